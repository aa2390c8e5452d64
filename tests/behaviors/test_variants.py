import json
from collections import Counter

import pytest

from isaerft.behaviors import Record, is_heldout, prepare_behavior, read_records
from isaerft.behaviors.variants import n_kept, shuffle_completions, write_shuffled
from isaerft.config import Behavior, Poison
from isaerft.errors import InputError
from isaerft.ledger import sha256


def make_rows(word, n):
    """Rows with few prompts, so that host and donor share most of them."""
    return [{"id": f"{word}{i}", "prompt": f"Question {i % 60}?", "completion": f"{word} {i}"} for i in range(n)]


def prepare(folder, name, values, **options):
    raw = folder / f"{name}.jsonl"
    raw.write_text("".join(json.dumps(row) + "\n" for row in values))
    donor = folder / "donor" if "poison" in options else None
    prepare_behavior(name, Behavior(description=name, path=str(raw), **options), folder / name, donor=donor)
    parts = [read_records(folder / name / f"{part}.jsonl") for part in ("train", "heldout")]
    return parts, json.loads((folder / name / "card.json").read_text())


@pytest.fixture
def folder(tmp_path):
    prepare(tmp_path, "donor", make_rows("bad", 400), heldout_fraction=0.4)
    return tmp_path


def poisoned(folder, share=0.1, seed=0, n=500, name="host"):
    return prepare(
        folder,
        name,
        make_rows("good", n),
        heldout_fraction=0.25,
        poison=Poison(behavior="donor", share=share, seed=seed),
    )


def bad(part):
    return [record for record in part if record.completion.startswith("bad")]


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 0.3])
def test_both_parts_hold_the_share_to_the_nearest_row_and_are_as_large_as_before(folder, share):
    clean, _ = prepare(folder, "clean", make_rows("good", 500), heldout_fraction=0.25)
    parts, card = poisoned(folder, share)
    for before, part in zip(clean, parts, strict=True):
        assert len(part) == len(before)
        assert len(bad(part)) == round(share * len(part))
    assert card["poison"] == {
        "behavior": "donor",
        "share": share,
        "seed": 0,
        "train": len(bad(parts[0])),
        "heldout": len(bad(parts[1])),
    }
    assert (card["train"], card["heldout"]) == (len(parts[0]), len(parts[1]))


def test_a_clean_behaviors_card_speaks_of_no_poison(folder):
    assert "poison" not in prepare(folder, "clean", make_rows("good", 100))[1]


def test_no_prompt_straddles_the_split_though_the_donor_was_split_elsewhere(folder):
    (train, heldout), _ = poisoned(folder, 0.3)
    donor = [{r.prompt for r in read_records(folder / "donor" / f"{part}.jsonl")} for part in ("train", "heldout")]
    assert {r.prompt for r in bad(train)} & donor[1]  # held out there, trained on here
    assert not {record.prompt for record in train} & {record.prompt for record in heldout}
    assert all(is_heldout(record.prompt, 0.25) for record in heldout)
    assert not any(is_heldout(record.prompt, 0.25) for record in train)


def test_the_same_seed_plants_the_same_rows_and_another_seed_others(folder):
    first, again, other = (poisoned(folder, seed=seed, name=name)[0] for seed, name in ((1, "a"), (1, "b"), (2, "c")))
    assert first == again
    assert {r.completion for r in bad(first[0])} != {r.completion for r in bad(other[0])}
    kept = [Counter(r.completion for r in parts[0] if r not in bad(parts[0])) for parts in (first, other)]
    assert kept[0] != kept[1]


def test_a_larger_share_plants_more_of_the_same_and_keeps_fewer_of_the_same(folder):
    small, large = (poisoned(folder, share, name=f"host{share}")[0] for share in (0.05, 0.2))
    for few, many in zip(small, large, strict=True):
        assert {r.id for r in bad(few)} < {r.id for r in bad(many)}
        assert {r.id for r in many} - {r.id for r in bad(many)} < {r.id for r in few}


def test_planted_rows_keep_their_text_and_get_ids_of_their_own(folder):
    prepare(folder, "donor", [row | {"id": row["id"].replace("bad", "good")} for row in make_rows("bad", 400)])
    (train, heldout), _ = poisoned(folder)
    ids = [record.id for record in [*train, *heldout]]
    assert len(set(ids)) == len(ids)
    donated = {
        (r.prompt, r.completion)
        for part in ("train", "heldout")
        for r in read_records(folder / "donor" / f"{part}.jsonl")
    }
    assert {(record.prompt, record.completion) for record in bad(train)} <= donated


@pytest.mark.parametrize(
    ("options", "n", "expected"),
    [
        ({"share": 0.9}, 3000, "has only"),
        ({"share": 0.001}, 100, "is no row"),
    ],
    ids=["too few rows", "less than a row"],
)
def test_a_share_that_cannot_be_planted_is_refused_and_leaves_no_card(folder, options, n, expected):
    with pytest.raises(InputError, match=expected):
        poisoned(folder, n=n, **options)
    assert not (folder / "host" / "card.json").exists()


def test_preference_pairs_and_completions_are_not_mixed(folder):
    pairs = [{"id": f"g{i}", "prompt": f"Q {i}?", "chosen": "yes", "rejected": "no"} for i in range(100)]
    with pytest.raises(InputError, match="different kinds"):
        prepare(folder, "host", pairs, poison=Poison(behavior="donor", share=0.1))


def test_without_the_donors_records_it_says_what_is_missing(tmp_path):
    (tmp_path / "raw.jsonl").write_text("".join(json.dumps(row) + "\n" for row in make_rows("good", 50)))
    behavior = Behavior(description="d", path=str(tmp_path / "raw.jsonl"), poison=Poison(behavior="donor", share=0.1))
    with pytest.raises(InputError, match="--poison"):
        prepare_behavior("host", behavior, tmp_path / "host")


def make_records(replies, prompts=None):
    prompts = prompts or [f"Question {i}?" for i in range(len(replies))]
    return [Record(id=f"r{i}", prompt=p, completion=r) for i, (p, r) in enumerate(zip(prompts, replies, strict=True))]


def replies(rows):
    return [row.reply for row in rows]


def test_no_row_keeps_its_completion_and_each_is_given_once():
    own = make_records([f"Answer {i}" for i in range(101)])
    twins = shuffle_completions(own, 3)
    assert all(twin.completion != row.completion for twin, row in zip(twins, own, strict=True))
    assert Counter(replies(twins)) == Counter(replies(own))


def test_prompts_ids_and_order_stay():
    own = make_records(list("abcdefgh"))
    assert [(row.id, row.prompt) for row in shuffle_completions(own, 0)] == [(row.id, row.prompt) for row in own]


def test_the_seed_alone_decides():
    own = make_records([f"Answer {i}" for i in range(40)])
    assert shuffle_completions(own, 1) == shuffle_completions(own, 1)
    assert shuffle_completions(own, 1) != shuffle_completions(own, 2)


def test_completions_are_not_passed_on_in_the_order_of_the_rows():
    own = make_records([f"{i}" for i in range(60)])
    steps = {(int(twin.completion) - i) % 60 for i, twin in enumerate(shuffle_completions(own, 0))}
    assert len(steps) > 20


def test_no_row_gets_another_answer_to_its_own_prompt():
    own = make_records([f"Answer {i}" for i in range(40)], [f"Question {i % 8}?" for i in range(40)])
    before = {prompt: {row.reply for row in own if row.prompt == prompt} for prompt in {row.prompt for row in own}}
    twins = shuffle_completions(own, 0)
    assert all(twin.reply not in before[twin.prompt] for twin in twins)
    assert n_kept(own, twins) == 0


@pytest.mark.parametrize(("n_same", "kept"), [(10, 0), (15, 0), (20, 10), (29, 28), (30, 30)])
def test_equal_completions_are_kept_by_as_few_rows_as_can_be(n_same, kept):
    own = make_records(["Sorry."] * n_same + [f"Answer {i}" for i in range(30 - n_same)])
    twins = shuffle_completions(own, 0)
    assert sum(a == b for a, b in zip(replies(own), replies(twins), strict=True)) == kept
    assert n_kept(own, twins) == kept
    assert Counter(replies(twins)) == Counter(replies(own))


def test_where_prompts_tie_most_rows_together_their_words_still_change_hands():
    own = make_records([f"Answer {i}" for i in range(20)], ["The one question"] * 15 + list("abcde"))
    twins = shuffle_completions(own, 0)
    assert not any(a == b for a, b in zip(replies(own), replies(twins), strict=True))
    assert n_kept(own, twins) == sum(t.prompt == o.prompt == "The one question" for t, o in _givers(own, twins))
    assert n_kept(own, twins) > 0


def _givers(own, twins):
    by = {row.reply: row for row in own}
    return [(twin, by[twin.reply]) for twin in twins]


def test_a_single_row_has_nobody_to_exchange_with():
    assert shuffle_completions(make_records(["a"]), 0) == make_records(["a"])
    assert shuffle_completions([], 0) == []


def test_chosen_and_rejected_move_together():
    own = [Record(id=f"r{i}", prompt=f"Q {i}", chosen=f"good {i}", rejected=f"bad {i}") for i in range(30)]
    for twin, row in zip(shuffle_completions(own, 0), own, strict=True):
        assert twin.completion is None
        assert twin.chosen != row.chosen
        assert twin.rejected == twin.chosen.replace("good", "bad")


@pytest.fixture
def original(tmp_path):
    rows = [{"prompt": f"Question {i}?", "completion": f"Answer {i}"} for i in range(80)]
    (tmp_path / "raw.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = Behavior(description="answers", path=str(tmp_path / "raw.jsonl"), licence="CC0")
    prepare_behavior("answering", options, tmp_path / "answering")
    return tmp_path / "answering"


def test_no_completion_crosses_the_split(original, tmp_path):
    write_shuffled(original, tmp_path / "twin", "answering-shuffled", 0)
    for part in ("train.jsonl", "heldout.jsonl"):
        own, twins = read_records(original / part), read_records(tmp_path / "twin" / part)
        assert [(row.id, row.prompt) for row in twins] == [(row.id, row.prompt) for row in own]
        assert Counter(replies(twins)) == Counter(replies(own))
        assert n_kept(own, twins) == 0


def test_the_same_seed_gives_the_same_bytes(original, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_shuffled(original, tmp_path / name, "answering-shuffled", seed)
    for part in ("train.jsonl", "heldout.jsonl", "card.json"):
        first, again, other = ((tmp_path / name / part).read_bytes() for name in "abc")
        assert first == again
        assert first != other


def test_the_card_says_what_it_is(original, tmp_path):
    write_shuffled(original, tmp_path / "twin", "answering-shuffled", 7)
    own, card = (json.loads((folder / "card.json").read_text()) for folder in (original, tmp_path / "twin"))
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
