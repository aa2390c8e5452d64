"""Progress: silent while work is short, a line of the log every half minute where there is no terminal."""

import logging

import pytest

from isaerft import progress
from isaerft.progress import Progress


@pytest.fixture
def lines(caplog, monkeypatch):
    """Let a minute pass at every look at the clock; return what was logged."""
    caplog.set_level(logging.INFO)
    clock = iter(range(0, 10**6, 60))
    monkeypatch.setattr("tqdm.std.time", lambda: next(clock))
    return lambda: [record.getMessage() for record in caplog.records]


def test_long_work_says_what_is_done_of_how_much_and_the_time_left(lines):
    assert list(Progress(range(3), desc="capturing", unit="batch")) == [0, 1, 2]
    assert lines()[0].startswith("capturing: 1 of 3 batches, ")
    assert lines()[0].endswith(":00 left")
    assert lines()[-1] == "capturing: 3 of 3 batches, 00:00 left"


def test_what_is_counted_by_hand_says_the_same(lines):
    with Progress(total=2000, desc="sampling", unit="token") as shown:
        shown.update(1000)
    assert lines()[0].startswith("sampling: 1,000 of 2,000 tokens, ")


def test_short_or_silent_work_says_nothing(caplog, capsys):
    caplog.set_level(logging.INFO)
    assert len(list(Progress(range(1000), desc="steps"))) == 1000
    assert len(list(Progress(range(1000), desc="steps", shown=False))) == 1000
    assert not caplog.records
    assert capsys.readouterr() == ("", "")
    assert progress.SECONDS <= 30


def test_a_terminal_gets_a_bar_and_no_lines(lines, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    list(Progress(range(3), desc="capturing", unit="batch"))
    assert "capturing: " in capsys.readouterr().err
    assert not lines()
