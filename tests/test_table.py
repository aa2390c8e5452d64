import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isaerft.errors import InputError
from isaerft.table import MAX_TEXT, TABLES, columns_of, conform, neutral_text, read_table, write_table

VALUES = {"text": "some text", "int": 3, "float": 0.25, "bool": True}
COLUMNS = [(table, column) for table, columns in TABLES.items() for column in columns]
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


def table(name, rows=2):
    return pd.DataFrame([{column.name: VALUES[column.kind] for column in TABLES[name]} for _ in range(rows)])


def with_value(name, column, value):
    frame = table(name).astype({column: object})
    frame.loc[1, column] = value
    return frame


def ids(case):
    return f"{case[0]}.{case[1].name}"


@pytest.mark.parametrize("name", TABLES)
def test_a_table_comes_back_as_it_was_written(name, tmp_path):
    path = tmp_path / "table.csv"
    write_table(name, table(name), path)
    pd.testing.assert_frame_equal(read_table(name, path), conform(name, table(name)))


@pytest.mark.parametrize("name", TABLES)
def test_writing_what_was_read_gives_the_same_bytes(name, tmp_path):
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    write_table(name, table(name), first)
    write_table(name, read_table(name, first), second)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("name", TABLES)
def test_a_table_without_rows_keeps_its_header_and_dtypes(name, tmp_path):
    path = tmp_path / "table.csv"
    write_table(name, table(name).iloc[:0], path)
    assert path.read_text() == ",".join(column.name for column in TABLES[name]) + "\n"
    assert (read_table(name, path).dtypes == conform(name, table(name)).dtypes).all()


@pytest.mark.parametrize("name", TABLES)
def test_columns_stand_in_the_contracts_order_whatever_the_frames(name):
    shuffled = table(name).iloc[:, ::-1]
    assert list(conform(name, shuffled)) == [column.name for column in TABLES[name]]


@pytest.mark.parametrize("case", COLUMNS, ids=ids)
def test_a_missing_column_is_refused_by_name(case):
    name, column = case
    with pytest.raises(InputError, match=rf"table '{name}': missing columns \['{column.name}'\]"):
        conform(name, table(name).drop(columns=column.name))


@pytest.mark.parametrize("case", COLUMNS, ids=ids)
def test_an_empty_field_is_refused_where_it_is_required_and_kept_empty_elsewhere(case, tmp_path):
    name, column = case
    frame = with_value(name, column.name, None)
    if column.optional:
        write_table(name, frame, tmp_path / "table.csv")
        assert read_table(name, tmp_path / "table.csv")[column.name].isna().tolist() == [False, True]
    else:
        with pytest.raises(InputError, match=rf"column '{column.name}' is empty in row 1"):
            conform(name, frame)


@pytest.mark.parametrize("case", [case for case in COLUMNS if case[1].kind == "float"], ids=ids)
def test_nan_is_empty_and_infinity_is_refused(case, tmp_path):
    name, column = case
    for value in [np.inf, -np.inf]:
        with pytest.raises(InputError, match=rf"column '{column.name}' holds an infinite value"):
            conform(name, with_value(name, column.name, value))
    if column.optional:
        write_table(name, with_value(name, column.name, np.nan), tmp_path / "table.csv")
        assert "nan" not in (tmp_path / "table.csv").read_text().lower()


@pytest.mark.parametrize("case", [case for case in COLUMNS if case[1].kind != "text"], ids=ids)
def test_a_value_of_another_kind_is_refused(case):
    name, column = case
    with pytest.raises(InputError, match=rf"column '{column.name}' is not {column.kind}"):
        conform(name, with_value(name, column.name, "many"))


def test_a_fraction_is_no_integer():
    with pytest.raises(InputError, match="column 'rank' is not int"):
        conform("most_changed_latents", with_value("most_changed_latents", "rank", 1.5))


def test_an_unknown_column_is_refused_and_the_valid_ones_are_listed():
    with pytest.raises(InputError, match=r"unknown columns \['feature'\]; allowed: subject, model, release"):
        conform("subjects", table("subjects").assign(feature=1))


def test_a_column_given_twice_is_refused():
    frame = table("calibration")
    with pytest.raises(InputError, match=r"columns twice: \['value'\]"):
        conform("calibration", pd.concat([frame, frame[["value"]]], axis=1))


def test_an_unknown_table_names_the_nearest():
    with pytest.raises(InputError, match=r"unknown table 'agrement'.*did you mean 'agreement'\?"):
        columns_of("agrement")


def test_a_refused_table_leaves_no_file(tmp_path):
    with pytest.raises(InputError):
        write_table("subjects", table("subjects").drop(columns="model"), tmp_path / "table.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\xff\xfe\n", b"quantity\n" + b'"open'])
def test_a_file_that_is_not_the_table_is_refused(content, tmp_path):
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(InputError):
        read_table("calibration", tmp_path / "table.csv")


def test_a_missing_file_is_a_users_error(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_table("calibration", tmp_path / "none.csv")


def test_the_words_of_missing_data_stay_text(tmp_path):
    frame = table("calibration", rows=4).assign(setting=["NA", "nan", "null", "None"])
    write_table("calibration", frame, tmp_path / "table.csv")
    assert read_table("calibration", tmp_path / "table.csv")["setting"].tolist() == ["NA", "nan", "null", "None"]


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@cmd", "\t=1", " =1", "\r=1", "\x00=1", "\u200d=1", "\uff1d1", "\ufeff=1"]
)
def test_a_spreadsheet_reads_no_formula(text):
    assert neutral_text(text).startswith("'")


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_terminal_acts_on_is_gone(text, tmp_path):
    clean = neutral_text(text)
    assert clean.isprintable()
    clean.encode("utf-8")
    frame = table("calibration").assign(setting=pd.Series(["x" + text] * 2, dtype=object))
    write_table("calibration", frame, tmp_path / "table.csv")
    assert read_table("calibration", tmp_path / "table.csv")["setting"][0] == neutral_text("x" + text)


@pytest.mark.parametrize(
    "text", ["fires on 'refusal', \"sorry\"", "Grüße, 世界 🙂", "a, b; c", "👩‍👩‍👧", "می‌خواهم", "a - b = c"]
)
def test_harmless_text_is_left_as_it_is(text, tmp_path):
    assert neutral_text(text) == text
    write_table("calibration", table("calibration").assign(setting=text), tmp_path / "table.csv")
    assert read_table("calibration", tmp_path / "table.csv")["setting"][0] == text


def test_required_text_of_control_characters_alone_is_empty():
    with pytest.raises(InputError, match="column 'setting' is empty in row 1"):
        conform("calibration", with_value("calibration", "setting", "\x00\u202e"))


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
    frame = table("calibration", rows=len(texts)).assign(
        setting=pd.Series(["x" + text for text in texts], dtype=object)
    )
    write_table("calibration", frame, path)
    assert read_table("calibration", path)["setting"].tolist() == [neutral_text("x" + text) for text in texts]
