"""Planting another behavior's rows: the share, the split, and that the same rows are planted every time."""

import json
from collections import Counter

import pytest

from isaerft.behaviors import is_heldout, prepare_behavior, read_records
from isaerft.config import Behavior, Poison
from isaerft.errors import InputError


def rows(word, n):
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
    prepare(tmp_path, "donor", rows("bad", 400), heldout_fraction=0.4)
    return tmp_path


def poisoned(folder, share=0.1, seed=0, n=500, name="host"):
    return prepare(
        folder, name, rows("good", n), heldout_fraction=0.25, poison=Poison(behavior="donor", share=share, seed=seed)
    )


def bad(part):
    return [record for record in part if record.completion.startswith("bad")]


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 0.3])
def test_both_parts_hold_the_share_to_the_nearest_row_and_are_as_large_as_before(folder, share):
    clean, _ = prepare(folder, "clean", rows("good", 500), heldout_fraction=0.25)
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
    assert "poison" not in prepare(folder, "clean", rows("good", 100))[1]


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
    prepare(folder, "donor", [row | {"id": row["id"].replace("bad", "good")} for row in rows("bad", 400)])
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
        ({"share": 0.9}, 3000, "has .* for them"),
        ({"share": 0.001}, 100, "is none"),
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
    (tmp_path / "raw.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows("good", 50)))
    behavior = Behavior(description="d", path=str(tmp_path / "raw.jsonl"), poison=Poison(behavior="donor", share=0.1))
    with pytest.raises(InputError, match="--poison"):
        prepare_behavior("host", behavior, tmp_path / "host")
