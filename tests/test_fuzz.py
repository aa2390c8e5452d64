"""The fuzzer itself, on a few inputs of every reader: its valid files are read, and a planted fault is found."""

import os
import shutil
from pathlib import Path

import pytest

from isaerft.errors import InputError
from tests.faults import fuzz
from tests.faults.readers import READERS, Valid

INPUTS = 12


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_refused(tmp_path, name):
    outcome = fuzz.fuzz(name, INPUTS, 1, tmp_path)
    assert outcome.inputs == INPUTS
    assert not outcome.findings


def stray(path: Path) -> None:
    (path.parent / "stray").write_text("x")


def needs_x(path: Path) -> None:
    if b"x" not in path.read_bytes():
        raise KeyError("x")


def endless(path: Path) -> None:
    while True:
        pass


def two_lines(path: Path) -> None:
    error = InputError("a")
    error.args = ("a\nb",)
    raise error


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (needs_x, "KeyError at test_fuzz.py:needs_x"),
        (stray, "writes "),
        (lambda path: os.system("true"), "os.system"),
        (endless, "takes too long at test_fuzz.py:endless"),
        (two_lines, "an error that is not one short line"),
        (lambda path: None, "accepted"),
    ],
)
def test_misbehavior_is_told(tmp_path, monkeypatch, read, said):
    monkeypatch.setattr(fuzz, "TIMERS", [(*fuzz.TIMERS[0][:2], 0.05)])
    assert fuzz.tried(Valid("a.txt", read, b"abc"), b"abc", tmp_path / "a.txt").startswith(said)


def test_a_finding_is_counted_and_reduced(tmp_path, monkeypatch):
    monkeypatch.setitem(READERS, "planted", lambda folder: [Valid("a.txt", needs_x, b"abc x def")])
    outcome = fuzz.fuzz("planted", 200, 0, tmp_path)
    (finding,) = outcome.findings.values()
    assert finding.data == b""
    assert finding.count + outcome.accepted == 200
    assert finding.count > 10
    shutil.rmtree(tmp_path)
