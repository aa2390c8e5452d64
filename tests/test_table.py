"""A table is checked, written and read: columns, kinds, and text from outside."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isaerft.errors import InputError
from isaerft.table import MAX_TEXT, Column, Table, neutral_text

TABLE = Table(
    "sizes",
    "How large models are.",
    (
        Column("name", "text", "Required text."),
        Column("note", "text", "Optional text.", optional=True),
        Column("rank", "int", "Required integer."),
        Column("n", "int", "Optional integer.", optional=True),
        Column("share", "float", "Required number."),
        Column("loss", "float", "Optional number.", optional=True),
        Column("primary", "bool", "Required truth value."),
    ),
)
VALUES = {"text": "some text", "int": 3, "float": 0.25, "bool": True}
HOSTILE = [
    "\x1b[31mred",
    "a\x00b",
    "a\rb",
    "a\nb",
    "\u202eevil",
    "a\u2066b",
    "\u200eleft",
    "\u200fright",
    "\ud800",
    "\x9b",
]


def frame_of(rows=2):
    return pd.DataFrame([{column.name: VALUES[column.kind] for column in TABLE.columns} for _ in range(rows)])


def with_value(column, value):
    frame = frame_of().astype({column: object})
    frame.loc[1, column] = value
    return frame


def of_kind(*kinds):
    return [column for column in TABLE.columns if column.kind in kinds]


def test_a_table_comes_back_as_it_was_written(tmp_path):
    TABLE.write(frame_of(), tmp_path / "table.csv")
    pd.testing.assert_frame_equal(TABLE.read(tmp_path / "table.csv"), TABLE.conform(frame_of()))


def test_writing_what_was_read_gives_the_same_bytes(tmp_path):
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    TABLE.write(with_value("note", "=1+1"), first)
    TABLE.write(TABLE.read(first), second)
    assert first.read_bytes() == second.read_bytes()


def test_a_table_without_rows_keeps_its_header_and_dtypes(tmp_path):
    path = tmp_path / "table.csv"
    TABLE.write(frame_of().iloc[:0], path)
    assert path.read_text() == ",".join(TABLE.column_names) + "\n"
    assert (TABLE.read(path).dtypes == TABLE.conform(frame_of()).dtypes).all()


def test_columns_come_in_the_tables_order_whatever_the_frames():
    assert list(TABLE.conform(frame_of().iloc[:, ::-1])) == TABLE.column_names


def test_a_missing_column_is_refused_by_name():
    for name in TABLE.column_names:
        with pytest.raises(InputError, match=rf"table 'sizes': missing columns \['{name}'\]"):
            TABLE.conform(frame_of().drop(columns=name))


def test_an_empty_field_is_refused_where_it_is_required_and_kept_empty_elsewhere(tmp_path):
    for column in TABLE.columns:
        frame = with_value(column.name, None)
        if column.optional:
            TABLE.write(frame, tmp_path / "table.csv")
            assert TABLE.read(tmp_path / "table.csv")[column.name].isna().tolist() == [False, True]
        else:
            with pytest.raises(InputError, match=rf"column '{column.name}' is empty in row 1"):
                TABLE.conform(frame)


def test_nan_is_empty_and_infinity_is_refused(tmp_path):
    for column in of_kind("float"):
        for value in [np.inf, -np.inf]:
            with pytest.raises(InputError, match=rf"column '{column.name}' holds an infinite value"):
                TABLE.conform(with_value(column.name, value))
    TABLE.write(with_value("loss", np.nan), tmp_path / "table.csv")
    assert "nan" not in (tmp_path / "table.csv").read_text().lower()


def test_a_value_of_another_kind_is_refused():
    for column in of_kind("int", "float", "bool"):
        with pytest.raises(InputError, match=rf"column '{column.name}' is not {column.kind}"):
            TABLE.conform(with_value(column.name, "many"))


def test_a_fraction_is_no_integer():
    with pytest.raises(InputError, match="column 'rank' is not int"):
        TABLE.conform(with_value("rank", 1.5))


def test_an_unknown_column_is_refused_and_the_valid_ones_are_listed():
    with pytest.raises(InputError, match=r"unknown columns \['feature'\]; allowed: name, note, rank"):
        TABLE.conform(frame_of().assign(feature=1))
    with pytest.raises(InputError, match=r"unknown column of table 'sizes': 'shar'.*did you mean 'share'\?"):
        TABLE.column("shar")


def test_a_column_given_twice_is_refused():
    frame = frame_of()
    with pytest.raises(InputError, match=r"columns twice: \['share'\]"):
        TABLE.conform(pd.concat([frame, frame[["share"]]], axis=1))


def test_a_refused_table_leaves_no_file(tmp_path):
    with pytest.raises(InputError):
        TABLE.write(frame_of().drop(columns="name"), tmp_path / "table.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\xff\xfe\n", b"name\n" + b'"open'])
def test_a_file_that_is_not_the_table_is_refused(content, tmp_path):
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(InputError):
        TABLE.read(tmp_path / "table.csv")


def test_a_missing_file_is_a_users_error(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        TABLE.read(tmp_path / "none.csv")


def test_the_words_of_missing_data_stay_text(tmp_path):
    words = ["NA", "nan", "null", "None"]
    TABLE.write(frame_of(rows=4).assign(name=words), tmp_path / "table.csv")
    assert TABLE.read(tmp_path / "table.csv")["name"].tolist() == words


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@cmd", "\t=1", " =1", "\r=1", "\x00=1", "\u200d=1", "\xad=1", "\uff1d1", "\ufeff=1"]
)
def test_a_spreadsheet_reads_no_formula(text):
    assert neutral_text(text).startswith("'")


@pytest.mark.parametrize("text", ["a;=cmd", "a; +1", 'a;"=1"', "a;-1", ";@x", "a;\t=1", "=1;=2;\uff1d3"])
def test_nor_does_one_that_splits_lines_at_semicolons(text):
    parts = neutral_text(text).split(";")
    assert all(re.match(r"[\s\"]*['a]|$", part) for part in parts)
    assert len(parts) == len(text.split(";"))


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_terminal_acts_on_is_gone(text, tmp_path):
    clean = neutral_text(text)
    assert clean.isprintable()
    clean.encode("utf-8")
    TABLE.write(frame_of().assign(name=pd.Series(["x" + text] * 2, dtype=object)), tmp_path / "table.csv")
    assert TABLE.read(tmp_path / "table.csv")["name"][0] == neutral_text("x" + text)


@pytest.mark.parametrize(
    "text", ["fires on 'refusal', \"sorry\"", "Grüße, 世界 🙂", "a, b; c", "👩‍👩‍👧", "می‌خواهم", "a - b = c"]
)
def test_harmless_text_is_left_as_it_is(text, tmp_path):
    assert neutral_text(text) == text
    TABLE.write(frame_of().assign(name=text), tmp_path / "table.csv")
    assert TABLE.read(tmp_path / "table.csv")["name"][0] == text


def test_required_text_of_control_characters_alone_is_empty():
    with pytest.raises(InputError, match="column 'name' is empty in row 1"):
        TABLE.conform(with_value("name", "\x00\u202e"))


def test_long_text_is_cut():
    assert len(neutral_text("=" * 10**6)) == MAX_TEXT
    assert neutral_text("x" * 10**6).endswith("x...")


@given(
    st.text(alphabet=st.characters(exclude_categories=()), max_size=40) | st.integers(1990, 2010).map(lambda n: "=" * n)
)
@settings(max_examples=300, deadline=None)
def test_neutral_text_is_a_fixed_point_that_utf_8_holds(text):
    clean = neutral_text(text)
    assert neutral_text(clean) == clean
    assert clean.encode("utf-8").decode("utf-8") == clean
    assert not clean[:1] or clean[0] not in "=+-@"
    assert len(clean) <= MAX_TEXT


@given(
    st.lists(st.text(alphabet=st.characters(exclude_categories=()), min_size=1, max_size=20), min_size=1, max_size=4)
)
@settings(max_examples=100, deadline=None)
def test_any_text_survives_the_way_through_a_file(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("tables") / "table.csv"
    names = pd.Series(["x" + text for text in texts], dtype=object)
    TABLE.write(frame_of(rows=len(texts)).assign(name=names), path)
    assert TABLE.read(path)["name"].tolist() == [neutral_text("x" + text) for text in texts]
