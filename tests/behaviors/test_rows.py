"""Rows of local files: every form is read, every kind of damage is one clear error with its place."""

import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest

from isaerft.errors import InputError
from isaerft.io import Row, column_value, printable, read_data_file

ROWS = [{"prompt": "Hi, you\nthere", "completion": "é…"}, {"prompt": "b", "completion": "c"}]
JSONL = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
CSV = 'prompt,completion\n"Hi, you\nthere",é…\nb,c\n'


def values(path, **options):
    return [row.values for row in read_data_file(path, **options)]


def written(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", JSONL),
        ("a.jsonl", "\ufeff" + JSONL.replace("\n", "\n\n")),
        ("a.json", json.dumps(ROWS)),
        ("a.csv", CSV),
        ("a.csv", "\ufeff" + CSV),
        ("a.jsonl.gz", gzip.compress(JSONL.encode())),
        ("a.CSV.GZ", gzip.compress(CSV.encode())),
        ("a.json.gz", gzip.compress(json.dumps(ROWS).encode())),
    ],
)
def test_every_text_form_gives_the_same_rows(tmp_path, name, content):
    assert values(written(tmp_path, name, content)) == ROWS


@pytest.mark.parametrize("name", ["a.parquet", "a.parquet.gz"])
def test_parquet_gives_the_same_rows(tmp_path, name):
    plain = tmp_path / "plain"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), plain)
    data = plain.read_bytes()
    assert values(written(tmp_path, name, gzip.compress(data) if name.endswith("gz") else data)) == ROWS


def test_rows_know_their_place_past_blank_lines_and_line_breaks_in_fields(tmp_path):
    jsonl = written(tmp_path, "a.jsonl", '{"a": 1}\n\n{"a": 2}\n')
    assert [row.location for row in read_data_file(jsonl)] == [f"{jsonl} line 1", f"{jsonl} line 3"]
    table = written(tmp_path, "a.csv", CSV)
    assert [row.location for row in read_data_file(table)] == [f"{table} line 2", f"{table} line 4"]


def test_an_array_inside_an_object_is_found_only_under_its_key(tmp_path):
    path = written(tmp_path, "a.json", json.dumps({"explanations": ROWS, "explanationsCount": 2}))
    assert values(path, inside="explanations") == ROWS
    with pytest.raises(InputError, match="an array of objects"):
        values(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "is empty"),
        ("a.jsonl", b"\n \n", "is empty"),
        ("a.json", b"", "is empty"),
        ("a.json", b"[]", "is empty"),
        ("a.csv", b"prompt,completion\n", "is empty"),
        ("a.txt", b"hello", r"allowed: .jsonl, .json, .csv, .parquet"),
        ("a.jsonl", b'{"a": 1}\n{"a": \n', r"line 2 is not valid JSON"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', r"line 2 holds bytes that are not UTF-8 \(0xff\)"),
        ("a.jsonl", '{"a": 1}\n'.encode("utf-16"), r"line 1 holds bytes that are not UTF-8"),
        ("a.jsonl", b"[1]\n", r"line 1 holds \[1\]; allowed: one JSON object per row"),
        ("a.jsonl", b"[" * 100_000, "line 1 is not valid JSON"),
        ("a.jsonl", b'{"a": ' + b"9" * 10_000 + b"}", "line 1 is not valid JSON"),
        ("a.json", b'{"a": 1}\n{"a": 2}\n', "name it .jsonl"),
        ("a.json", b'{"rows": []}', "an array of objects"),
        ("a.json", b"[1]", "row 1 holds 1"),
        ("a.csv", b"prompt,completion\na,b\nc\n", "line 3 has 1 fields; allowed: 2, as the header"),
        ("a.csv", b"prompt,prompt\na,b\n", "columns with one name: prompt"),
        ("a.csv", b'prompt,completion\n"a"b,c\n', "line 2 is not valid CSV"),
        ("a.csv", b'prompt,completion\n"a,b\n', "is not valid CSV"),
        ("a.csv", b"prompt,completion\n\xe9,b\n", "line 2 holds bytes"),
        ("a.csv", b"prompt,completion\n" + b"x" * 200_000 + b",b\n", "line 2 is not valid CSV"),
        ("a.parquet", b"PAR1 no", "not a whole Parquet file"),
        ("a.jsonl.gz", b'{"a": 1}\n', "not a whole gzip file"),
        ("a.jsonl.gz", gzip.compress(JSONL.encode() * 50)[:-20], "not a whole gzip file"),
    ],
)
def test_damage_is_a_bounded_error_that_says_where(tmp_path, name, content, message):
    path = written(tmp_path, name, content)
    with pytest.raises(InputError, match=message) as caught:
        values(path)
    assert name in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "no.jsonl", tmp_path):
        with pytest.raises(InputError, match="does not exist"):
            values(path)


def test_a_dotted_path_reaches_into_nested_data_and_a_dotted_name_goes_first():
    row = Row("row 1", {"a": [{"b": "x"}, {"b": "y"}], "a.0.b": "z"})
    assert column_value(row, "a.1.b") == "y"
    assert column_value(row, "a.-1.b") == "y"
    assert column_value(row, "a.0.b") == "z"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("promt", "did you mean 'prompt'"),
        ("a.2.b", "a list of 2"),
        ("a.-3.b", "a list of 2"),
        ("a.x", "a list of 2"),
        ("a.0.c", "unknown column of a.0.c in row 1: 'c'; allowed: b"),
        ("prompt.b", "nothing under 'b'"),
        ("a." + "9" * 5000, "a list of 2"),
    ],
)
def test_a_missing_column_is_an_error_that_says_what_is_there(path, message):
    with pytest.raises(InputError, match=message) as caught:
        column_value(Row("row 1", {"prompt": "x", "a": [{"b": 1}, {"b": 2}]}), path)
    assert "row 1" in str(caught.value)


def test_hostile_column_names_are_escaped_and_bounded_in_errors():
    row = Row("row 1", {"\x1b[31mred\0": 1, "x" * 100_000: 2, "\ud800": 3})
    with pytest.raises(InputError) as caught:
        column_value(row, "prompt")
    assert len(str(caught.value)) < 1000
    assert str(caught.value).isprintable()
    assert printable("a" * 61) == "a" * 60 + "..."
