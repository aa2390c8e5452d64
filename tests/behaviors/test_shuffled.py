"""Exchanging completions: nobody keeps its own where another is possible, and everything else stays as it was."""

import json
from collections import Counter

import pytest

from isaerft.behaviors import Record, prepare_behavior, read_records
from isaerft.behaviors.variants import n_kept, shuffled, write_shuffled
from isaerft.config import Behavior
from isaerft.io import sha256


def records(replies, prompts=None):
    prompts = prompts or [f"Question {i}?" for i in range(len(replies))]
    return [Record(id=f"r{i}", prompt=p, completion=r) for i, (p, r) in enumerate(zip(prompts, replies, strict=True))]


def replies(rows):
    return [row.reply for row in rows]


def test_no_row_keeps_its_completion_and_each_is_given_once():
    own = records([f"Answer {i}" for i in range(101)])
    twins = shuffled(own, 3)
    assert all(twin.completion != row.completion for twin, row in zip(twins, own, strict=True))
    assert Counter(replies(twins)) == Counter(replies(own))


def test_prompts_ids_and_order_stay():
    own = records(list("abcdefgh"))
    assert [(row.id, row.prompt) for row in shuffled(own, 0)] == [(row.id, row.prompt) for row in own]


def test_the_seed_alone_decides():
    own = records([f"Answer {i}" for i in range(40)])
    assert shuffled(own, 1) == shuffled(own, 1)
    assert shuffled(own, 1) != shuffled(own, 2)


def test_completions_are_not_passed_on_in_the_order_of_the_rows():
    own = records([f"{i}" for i in range(60)])
    steps = {(int(twin.completion) - i) % 60 for i, twin in enumerate(shuffled(own, 0))}
    assert len(steps) > 20


def test_no_row_gets_another_answer_to_its_own_prompt():
    own = records([f"Answer {i}" for i in range(40)], [f"Question {i % 8}?" for i in range(40)])
    before = {prompt: {row.reply for row in own if row.prompt == prompt} for prompt in {row.prompt for row in own}}
    twins = shuffled(own, 0)
    assert all(twin.reply not in before[twin.prompt] for twin in twins)
    assert n_kept(own, twins) == 0


@pytest.mark.parametrize(("n_same", "kept"), [(10, 0), (15, 0), (20, 10), (29, 28), (30, 30)])
def test_equal_completions_are_kept_by_as_few_rows_as_can_be(n_same, kept):
    own = records(["Sorry."] * n_same + [f"Answer {i}" for i in range(30 - n_same)])
    twins = shuffled(own, 0)
    assert sum(a == b for a, b in zip(replies(own), replies(twins), strict=True)) == kept
    assert n_kept(own, twins) == kept
    assert Counter(replies(twins)) == Counter(replies(own))


def test_where_prompts_tie_most_rows_together_their_words_still_change_hands():
    own = records([f"Answer {i}" for i in range(20)], ["The one question"] * 15 + list("abcde"))
    twins = shuffled(own, 0)
    assert not any(a == b for a, b in zip(replies(own), replies(twins), strict=True))
    assert n_kept(own, twins) == sum(t.prompt == o.prompt == "The one question" for t, o in _givers(own, twins))
    assert n_kept(own, twins) > 0


def _givers(own, twins):
    by = {row.reply: row for row in own}
    return [(twin, by[twin.reply]) for twin in twins]


def test_a_single_row_has_nobody_to_exchange_with():
    assert shuffled(records(["a"]), 0) == records(["a"])
    assert shuffled([], 0) == []


def test_chosen_and_rejected_move_together():
    own = [Record(id=f"r{i}", prompt=f"Q {i}", chosen=f"good {i}", rejected=f"bad {i}") for i in range(30)]
    for twin, row in zip(shuffled(own, 0), own, strict=True):
        assert twin.completion is None
        assert twin.chosen != row.chosen
        assert twin.rejected == twin.chosen.replace("good", "bad")


@pytest.fixture
def behavior(tmp_path):
    rows = [{"prompt": f"Question {i}?", "completion": f"Answer {i}"} for i in range(80)]
    (tmp_path / "raw.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = Behavior(description="answers", path=str(tmp_path / "raw.jsonl"), licence="CC0")
    prepare_behavior("answering", options, tmp_path / "answering")
    return tmp_path / "answering"


def test_no_completion_crosses_the_split(behavior, tmp_path):
    write_shuffled(behavior, tmp_path / "twin", "answering-shuffled", 0)
    for part in ("train.jsonl", "heldout.jsonl"):
        own, twins = read_records(behavior / part), read_records(tmp_path / "twin" / part)
        assert [(row.id, row.prompt) for row in twins] == [(row.id, row.prompt) for row in own]
        assert Counter(replies(twins)) == Counter(replies(own))
        assert n_kept(own, twins) == 0


def test_the_same_seed_gives_the_same_bytes(behavior, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_shuffled(behavior, tmp_path / name, "answering-shuffled", seed)
    for part in ("train.jsonl", "heldout.jsonl", "card.json"):
        first, again, other = ((tmp_path / name / part).read_bytes() for name in "abc")
        assert first == again
        assert first != other


def test_the_card_says_what_it_is(behavior, tmp_path):
    write_shuffled(behavior, tmp_path / "twin", "answering-shuffled", 7)
    own, card = (json.loads((folder / "card.json").read_text()) for folder in (behavior, tmp_path / "twin"))
    assert card["behavior"] == "answering-shuffled"
    assert card["shuffled_completions"] == {"of": "answering", "seed": 7, "kept": {"train": 0, "heldout": 0}}
    assert card["sha256"] == {
        "raw": own["sha256"]["raw"],
        "train.jsonl": sha256(tmp_path / "twin/train.jsonl"),
        "heldout.jsonl": sha256(tmp_path / "twin/heldout.jsonl"),
    }
    changed = {"behavior", "shuffled_completions", "sha256"}
    assert {key: value for key, value in card.items() if key not in changed} == {
        key: value for key, value in own.items() if key not in changed
    }
