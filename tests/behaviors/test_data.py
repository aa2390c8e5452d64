"""Rows of data: from the hub, and the share of them that may be left out."""

import json

import pytest

from isaerft.behaviors import read_rows
from isaerft.behaviors.data import ENOUGH_ROWS, MAX_REASONS, Unusable, data_rows
from isaerft.config import Behavior, Corpus
from isaerft.errors import InputError
from isaerft.io import Row


def behavior(**options):
    return Behavior(description="does it", **options)


def data(folder, *rows, name="a.jsonl"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / name)


def number(row):
    """Return the row's number; refuse negative ones."""
    if row.values["n"] < 0:
        raise InputError(f"{row.location}: n is {row.values['n']}", remedy="count up")
    return row.values["n"]


def left_out(numbers, allowed_share=0.05):
    unusable = Unusable("the numbers", allowed_share, "allow more")
    rows = (Row(f"row {at}", {"n": n}) for at, n in enumerate(numbers, 1))
    return unusable, unusable.without(rows, number)


def test_a_few_unusable_rows_are_left_out_and_counted_by_reason():
    unusable, found = left_out([-1, *range(58), -1, -2])
    assert [value for _, value in found] == list(range(58))
    assert unusable.reasons == {"n is -1": 2, "n is -2": 1}
    assert unusable.n_rows == 61


def test_more_than_the_allowed_share_is_an_error_that_shows_the_first():
    with pytest.raises(InputError, match=r"the numbers: 4 of 62 rows.* first is row 1: n is -1; allowed: at most 5%"):
        list(left_out([-1, *range(58), -1, -2, -3])[1])
    with pytest.raises(InputError, match="1 of 2 rows"):
        list(left_out([5, -1], allowed_share=0)[1])


def test_where_no_row_can_be_used_the_first_ones_own_error_says_what_to_do():
    with pytest.raises(InputError, match="row 1: n is -7; count up"):
        list(left_out([-7, -8, -9])[1])


def test_a_huge_data_set_is_not_read_to_its_end_to_see_that_it_cannot_be_used():
    def endless():
        yield from (Row(f"row {n}", {"n": -1}) for n in range(2 * ENOUGH_ROWS))
        pytest.fail("read on")

    with pytest.raises(InputError, match="row 0: n is -1"):
        list(Unusable("the numbers", 0.05).without(endless(), number))


def test_reasons_that_quote_the_data_do_not_grow_without_bound():
    unusable, found = left_out(range(-300, 10_000))
    list(found)
    assert len(unusable.reasons) == MAX_REASONS + 1
    assert unusable.reasons.total() == 300


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder that stands for a data set on the hub."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    data(tmp_path / "set", {"q": "a", "label": "x"}, {"q": "b", "label": "y"})
    return str(tmp_path / "set")


def test_hub_datasets_are_read_through_the_datasets_library(hub):
    options = behavior(dataset=hub, revision="0" * 40, where={"label": "y"})
    assert [row.values["q"] for row in read_rows(options)] == ["b"]
    assert [row.values["q"] for row in data_rows(Corpus(dataset=hub), streaming=True)] == ["a", "b"]


def test_a_hub_dataset_that_cannot_be_had_is_one_bounded_error(hub):
    options = behavior(dataset=hub, revision="main", split="tset")
    for rows in (read_rows(options), data_rows(Corpus(dataset=hub, split="tset"), streaming=True)):
        with pytest.raises(InputError, match=r"cannot be loaded.*correct `split`") as caught:
            list(rows)
        assert "tset" in str(caught.value)
        assert len(str(caught.value)) < 1000


def test_the_remedy_fits_the_cause(tmp_path, hub):
    (tmp_path / "script").mkdir()
    (tmp_path / "script" / "script.py").write_text("import datasets\n")
    with pytest.raises(InputError, match="refs/convert/parquet"):
        list(data_rows(Corpus(dataset=str(tmp_path / "script"))))
    with pytest.raises(InputError, match="unset HF_HUB_OFFLINE"):
        list(data_rows(Corpus(dataset="nobody/has-this"), streaming=True))


def test_the_lines_of_a_text_file_are_rows_where_asked_for(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\n two \n")
    found = list(data_rows(Corpus(path=str(tmp_path / "a.txt")), lines="text"))
    assert [row.values for row in found] == [{"text": "one"}, {"text": " two "}]
    assert found[1].location.endswith("a.txt line 3")
    with pytest.raises(InputError, match="jsonl"):
        list(data_rows(behavior(path=str(tmp_path / "a.txt"))))
