import errno
import gc
import gzip
import json
import os
import signal
import subprocess
import sys
import weakref

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest

from isaerft.errors import InputError, printable
from isaerft.io import (
    Row,
    column_value,
    read_data_file,
    read_json,
    read_text,
    replacing,
    write_json,
    write_parquet,
    write_text,
)

WRITE_AND_DIE = """
import os, signal
from isaerft.io import replacing
with replacing({path!r}) as temporary:
    with open(temporary, "w") as stream:
        stream.write("half")
        stream.flush()
        os.kill(os.getpid(), signal.SIGKILL)
"""
WRITE_WHEN_TOLD = """
import sys
from isaerft.io import replacing
with replacing({path!r}) as temporary:
    temporary.write_text("slow")
    print("begun", flush=True)
    sys.stdin.readline()
"""
WRITE_AGAIN_AND_AGAIN = """
from isaerft.io import write_text
for number in range(200):
    write_text({path!r}, "whole")
"""
REPLACE_AND_DIE = """
import os, shutil, signal
from isaerft.io import replacing
shutil.rmtree = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL)
with replacing({path!r}) as temporary:
    temporary.mkdir()
    (temporary / "new").touch()
"""
# A limit on the size of files makes any writer fail in the middle of a file, as a full disk does.
WRITE_TOO_MUCH = """
import resource
import numpy as np, pandas as pd, safetensors.numpy
from isaerft.io import InputError, replacing
values = np.random.default_rng(0).random((1000, 10))
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    with replacing({path!r}) as temporary:
        {write}
except InputError as error:
    print(error)
"""
WRITERS = {
    "text": "temporary.write_text('x' * 100_000)",
    "csv": "pd.DataFrame(values).to_csv(temporary)",
    "parquet": "pd.DataFrame(values).rename(columns=str).to_parquet(temporary)",
    "safetensors": "safetensors.numpy.save_file({{'values': values}}, temporary)",
    "folder": "temporary.mkdir(); (temporary / 'a').touch(); (temporary / 'b').write_bytes(bytes(100_000))",
}
ROWS = [{"prompt": "Hi, you\nthere", "completion": "é…"}, {"prompt": "b", "completion": "c"}]
JSONL = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
CSV = 'prompt,completion\n"Hi, you\nthere",é…\nb,c\n'


@pytest.mark.parametrize("old", [None, "the old content"])
def test_a_process_killed_while_writing_leaves_nothing_half_written_under_the_final_name(tmp_path, old):
    path = tmp_path / "table.csv"
    if old is not None:
        path.write_text(old)
    done = subprocess.run([sys.executable, "-c", WRITE_AND_DIE.format(path=str(path))])
    assert done.returncode == -signal.SIGKILL
    assert (path.read_text() if path.exists() else None) == old
    write_text(path, "whole")
    assert path.read_text() == "whole"


def test_the_next_write_of_a_path_removes_what_killed_processes_left(tmp_path):
    path = tmp_path / "table.csv"
    for _ in range(2):
        subprocess.run([sys.executable, "-c", WRITE_AND_DIE.format(path=str(path))])
        assert len(os.listdir(tmp_path)) == 1
    write_text(path, "whole")
    assert os.listdir(tmp_path) == ["table.csv"]


@pytest.mark.parametrize("kept", [".a.csv.b.abcd1234.tmp", ".a.csv.settings", ".a.csv.tmp", ".b.csv.abcd1234.tmp"])
def test_temporaries_of_other_paths_and_other_hidden_folders_stay(tmp_path, kept):
    (tmp_path / kept / "x").mkdir(parents=True)
    write_text(tmp_path / "a.csv", "whole")
    assert (tmp_path / kept / "x").is_dir()


def test_a_link_with_the_name_of_a_temporary_is_not_followed(tmp_path):
    (tmp_path / "precious/x").mkdir(parents=True)
    (tmp_path / ".a.csv.abcd1234.tmp").symlink_to("precious")
    write_text(tmp_path / "a.csv", "whole")
    assert (tmp_path / "precious/x").is_dir()


def test_what_a_living_process_writes_is_no_leftover(tmp_path):
    path = tmp_path / "table.csv"
    command = [sys.executable, "-c", WRITE_WHEN_TOLD.format(path=str(path))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as slow:
        assert slow.stdout.readline() == "begun\n"
        write_text(path, "quick")
        assert path.read_text() == "quick"
        slow.communicate("go on\n")
    assert slow.returncode == 0
    assert (path.read_text(), os.listdir(tmp_path)) == ("slow", ["table.csv"])


def test_processes_that_write_one_path_at_once_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "table.csv"
    command = [sys.executable, "-c", WRITE_AGAIN_AND_AGAIN.format(path=str(path))]
    writers = [subprocess.Popen(command) for _ in range(4)]
    assert [writer.wait() for writer in writers] == [0] * 4
    assert (path.read_text(), os.listdir(tmp_path)) == ("whole", ["table.csv"])


def test_an_error_while_writing_keeps_the_old_file_and_leaves_no_litter(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    final = tmp_path / "adapter"
    for name in ["first", "second"]:
        with replacing(final) as temporary:
            temporary.mkdir()
            (temporary / name).write_text(name)
    assert os.listdir(final) == ["second"]
    assert os.listdir(tmp_path) == ["adapter"]


def test_a_process_killed_while_it_removes_the_old_folder_leaves_the_new_one_whole(tmp_path):
    final = tmp_path / "adapter"
    final.mkdir()
    (final / "old").touch()
    done = subprocess.run([sys.executable, "-c", REPLACE_AND_DIE.format(path=str(final))])
    assert done.returncode == -signal.SIGKILL
    assert os.listdir(final) == ["new"]


def test_an_error_while_writing_a_folder_keeps_the_old_one(tmp_path):
    final = tmp_path / "adapter"
    final.mkdir()
    (final / "old").touch()

    def fail():
        with replacing(final) as temporary:
            temporary.mkdir()
            (temporary / "new").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert os.listdir(final) == ["old"]


@pytest.mark.parametrize("writer", WRITERS)
def test_a_disk_that_takes_no_more_is_one_line_and_leaves_no_half_of_a_file(tmp_path, writer):
    path = tmp_path / "result"
    code = WRITE_TOO_MUCH.format(path=str(path), write=WRITERS[writer].format())
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.startswith(f"{path} cannot be written (File too large); raise the limit"), done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EROFS, "check the permissions"),
        (errno.EACCES, "check the permissions"),
    ],
)
def test_what_the_system_refuses_is_said_with_a_remedy_that_fits(tmp_path, number, remedy):
    write_text(tmp_path / "a", "old")
    told = rf"a cannot be written \({os.strerror(number)}\); {remedy}, then run again"
    with pytest.raises(InputError, match=told), replacing(tmp_path / "a"):
        raise OSError(number, os.strerror(number))
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    write_text(tmp_path / "a", "old")
    with pytest.raises(InputError, match=r"cannot be written \(Not a directory\); move away what is in its place"):
        write_text(tmp_path / "a" / "b" / "c", "new")


def test_errors_of_ours_keep_their_type(tmp_path):
    for error in (FileNotFoundError(errno.ENOENT, "x"), KeyError("x"), RuntimeError("x")):
        with pytest.raises(type(error)), replacing(tmp_path / "a"):
            raise error


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "x"):
        pass
    assert os.listdir(tmp_path) == []


def test_missing_parent_folders_are_made(tmp_path):
    write_text(tmp_path / "a" / "b" / "c.txt", "here")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "here"


def test_a_new_file_can_be_read_by_whoever_may_read_its_neighbors(tmp_path):
    (tmp_path / "plain").touch()
    write_text(tmp_path / "ours", "x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_json_comes_back_as_it_went(tmp_path):
    value = {"name": "Grüße 世界", "rows": [1, 2.5, None, True]}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert (tmp_path / "a.json").read_text(encoding="utf-8").endswith("}\n")


def test_nan_is_no_json(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert os.listdir(tmp_path) == []


def test_a_malformed_json_file_names_itself_and_the_place(tmp_path):
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(InputError, match=r"a\.json is not valid JSON .*line 1"):
        read_json(tmp_path / "a.json")


def test_a_missing_file_is_a_users_error(tmp_path):
    for path in [tmp_path / "none.txt", tmp_path]:
        with pytest.raises(InputError, match="does not exist"):
            read_text(path)


def test_a_missing_file_with_a_relative_path_is_told_with_the_folder_in_which_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=rf"file 'a/b' does not exist; .*\(relative to {tmp_path}\)"):
        read_text("a/b")


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfx")
    assert read_text(tmp_path / "a.txt") == "x"


def test_undecodable_bytes_are_named_with_their_line(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"good\nbad: " + b"\xe9\n")
    with pytest.raises(InputError, match=r"line 2 is not UTF-8 \(byte 0xe9\)"):
        read_text(tmp_path / "a.txt")


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
        ("a.jsonl.gz", gzip.compress(JSONL.encode(), mtime=0)),
        ("a.CSV.GZ", gzip.compress(CSV.encode(), mtime=0)),
        ("a.json.gz", gzip.compress(json.dumps(ROWS).encode(), mtime=0)),
    ],
)
def test_every_text_form_gives_the_same_rows(tmp_path, name, content):
    assert values(written(tmp_path, name, content)) == ROWS


@pytest.mark.parametrize("name", ["a.parquet", "a.parquet.gz"])
def test_parquet_gives_the_same_rows(tmp_path, name):
    plain = tmp_path / "plain"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), plain)
    data = plain.read_bytes()
    assert values(written(tmp_path, name, gzip.compress(data, mtime=0) if name.endswith("gz") else data)) == ROWS


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
        ("a.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', r"line 2 is not UTF-8 \(byte 0xff\)"),
        ("a.jsonl", '{"a": 1}\n'.encode("utf-16"), r"line 1 is not UTF-8"),
        ("a.jsonl", b"[1]\n", r"line 1 is \[1\]; allowed: one JSON object per row"),
        ("a.jsonl", b"[" * 100_000, "line 1 is not valid JSON"),
        ("a.jsonl", b'{"a": ' + b"9" * 10_000 + b"}", "line 1 is not valid JSON"),
        ("a.json", b'{"a": 1}\n{"a": 2}\n', "name it .jsonl"),
        ("a.json", b'{"rows": []}', "an array of objects"),
        ("a.json", b"[1]", "row 1 is 1"),
        ("a.csv", b"prompt,completion\na,b\nc\n", "line 3 has 1 fields; allowed: 2, as in the header"),
        ("a.csv", b"prompt,prompt\na,b\n", "repeated column names: prompt"),
        ("a.csv", b'prompt,completion\n"a"b,c\n', "line 2 is not valid CSV"),
        ("a.csv", b'prompt,completion\n"a,b\n', "is not valid CSV"),
        ("a.csv", b"prompt,completion\n\xe9,b\n", "line 2 is not UTF-8"),
        ("a.jsonl.gz", b"version https://git-lfs.github.com/spec/v1\n", "is a git-lfs pointer.*git lfs pull"),
        ("a.parquet", b"PAR1 no", "Parquet file .* cannot be loaded"),
        ("a.jsonl.gz", b'{"a": 1}\n', "not a complete gzip file"),
        ("a.jsonl.gz", gzip.compress(JSONL.encode() * 50, mtime=0)[:-20], "not a complete gzip file"),
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
    assert printable("a" * 61) == "a" * 60 + "... (61 characters)"


def test_a_cell_as_long_as_a_pasted_document_is_read(tmp_path):
    path = written(tmp_path, "a.csv", b"prompt,completion\n" + b"x" * 200_000 + b",b\n")
    (row,) = read_data_file(path)
    assert len(row.values["prompt"]) == 200_000


def parts_of(frame, size, alive):
    """Yield the rows of a frame in parts; `alive` holds those that somebody still needs."""
    for start in range(0, len(frame), size):
        part = frame.iloc[start : start + size].reset_index(drop=True)
        alive.append(weakref.ref(part))
        yield part
        del part
        gc.collect()
        assert all(reference() is None for reference in alive[:-1])


def test_parts_of_a_table_are_written_one_at_a_time_and_read_as_the_whole(tmp_path):
    frame = pd.DataFrame({"name": ["a", "b"] * 50, "seed": range(100), "change": np.linspace(0, 1, 100)})
    write_parquet(parts_of(frame, 30, []), tmp_path / "parts.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "parts.parquet"), frame)
    assert pyarrow.parquet.ParquetFile(tmp_path / "parts.parquet").num_row_groups == 4


def test_a_part_that_fails_leaves_no_file_behind(tmp_path):
    def failing():
        yield pd.DataFrame({"change": [1.0]})
        raise InputError("the second part cannot be made")

    with pytest.raises(InputError, match="second part"):
        write_parquet(failing(), tmp_path / "parts.parquet")
    with pytest.raises(ValueError, match="no part"):
        write_parquet([], tmp_path / "parts.parquet")
    assert list(tmp_path.iterdir()) == []
