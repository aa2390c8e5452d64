import os
import signal
import subprocess
import sys

import pytest

from isaerft.errors import InputError
from isaerft.io import read_json, read_text, replacing, sha256, write_json, write_text

WRITE_AND_DIE = """
import os, signal
from isaerft.io import replacing
with replacing({path!r}) as temporary:
    with open(temporary, "w") as stream:
        stream.write("half")
        stream.flush()
        os.kill(os.getpid(), signal.SIGKILL)
"""


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


REPLACE_AND_DIE = """
import os, shutil, signal
from isaerft.io import replacing
shutil.rmtree = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL)
with replacing({path!r}) as temporary:
    temporary.mkdir()
    (temporary / "new").touch()
"""


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


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "x"):
        pass
    assert os.listdir(tmp_path) == []


def test_missing_parent_folders_are_made(tmp_path):
    write_text(tmp_path / "a" / "b" / "c.txt", "here")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "here"


def test_a_new_file_can_be_read_by_whoever_may_read_its_neighbours(tmp_path):
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


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfx")
    assert read_text(tmp_path / "a.txt") == "x"


def test_undecodable_bytes_are_named_with_their_line(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"good\nbad: " + b"\xe9\n")
    with pytest.raises(InputError, match=r"line 2 holds bytes that are not UTF-8 \(0xe9 at byte 10\)"):
        read_text(tmp_path / "a.txt")


def test_sha256_is_that_of_the_bytes(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "big").write_bytes(bytes(3 << 20) + b"x")
    before = sha256(tmp_path / "big")
    (tmp_path / "big").write_bytes(bytes(3 << 20) + b"y")
    assert sha256(tmp_path / "big") != before
