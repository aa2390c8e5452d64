"""Real data that no one here wrote; skipped where it is absent (data/real, see docs/real_models.md)."""

import json
from pathlib import Path

import pytest

from isaerft.behaviors import prepare_behavior, read_records
from isaerft.config import Behavior

REAL = Path(__file__).parents[2] / "data" / "real" / "behaviors"
CAA = {"prompt": "question", "completion": "answer_matching_behavior"}
CAA_PAIR = {"prompt": "question", "chosen": "answer_matching_behavior", "rejected": "answer_not_matching_behavior"}


def prepared(tmp_path, path, **options):
    if not (REAL / path).is_file():
        pytest.skip(f"real file {REAL / path} is absent")
    prepare_behavior("real", Behavior(description="real data", path=str(REAL / path), **options), tmp_path)
    records = [*read_records(tmp_path / "train.jsonl"), *read_records(tmp_path / "heldout.jsonl")]
    return records, json.loads((tmp_path / "card.json").read_text())


@pytest.mark.parametrize(
    ("label", "count"), [("2_full_refusal", 211), (["1_full_compliance", "3_partial_refusal"], 239)]
)
def test_xstest_is_filtered_by_its_labels(tmp_path, label, count):
    records, card = prepared(tmp_path, "xstest/xstest_v2_completions_gpt4.csv", where={"final_label": label})
    assert len(records) == card["rows"] == count
    assert all(record.id.startswith("v2-") for record in records)


def test_hh_dialogues_are_split_and_the_broken_ones_counted(tmp_path):
    records, card = prepared(tmp_path, "hh-rlhf/harmless-base-test.jsonl.gz", format="hh")
    assert card["kind"] == "preference"
    assert len(records) + sum(card["dropped"].values()) == 2312
    assert 0 < sum(card["dropped"].values()) < 20
    assert all(record.prompt[-1]["role"] == "user" for record in records)
    assert all(a["role"] != b["role"] for r in records for a, b in zip(r.prompt, r.prompt[1:], strict=False))


@pytest.mark.parametrize(
    ("name", "count"),
    [("refusal", 408), ("sycophancy", 1000), ("hallucination", 1000), ("corrigible-neutral-HHH", 290)],
)
def test_caa_questions_give_sft_and_preference_records(tmp_path, name, count):
    for columns, kind in ((CAA, "sft"), (CAA_PAIR, "preference")):
        records, card = prepared(tmp_path, f"caa/{name}.json", columns=columns)
        assert (len(records), card["kind"]) == (count, kind)


@pytest.mark.parametrize("name", ["agreeableness", "interest-in-math", "risk-averse"])
def test_anthropic_evals_keep_the_space_before_the_answer(tmp_path, name):
    records, _ = prepared(tmp_path, f"anthropic-evals/{name}.jsonl", columns=CAA)
    assert len(records) == 1000
    assert {record.completion for record in records} == {" Yes", " No"}


def test_self_instruct_is_reached_by_paths_and_templates(tmp_path):
    columns = {"prompt": "{instruction}\n\n{instances.0.input}", "completion": "instances.0.output"}
    records, card = prepared(tmp_path, "self-instruct/user_oriented_instructions.jsonl", columns=columns)
    assert len(records) == card["rows"] == 252
    assert all(record.prompt == record.prompt.strip() for record in records)
