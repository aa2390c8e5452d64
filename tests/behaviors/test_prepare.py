import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from isaerft.behaviors import is_heldout, prepare_behavior, read_records, split_file
from isaerft.config import Behavior
from isaerft.errors import InputError
from isaerft.ledger import sha256

ROWS = [{"id": f"r{n}", "prompt": f"Question {n}?", "completion": f"Answer {n}."} for n in range(60)]
REAL = Path(__file__).parents[2] / "data" / "real" / "behaviors"
CAA = {"prompt": "question", "completion": "answer_matching_behavior"}
CAA_PAIR = {"prompt": "question", "chosen": "answer_matching_behavior", "rejected": "answer_not_matching_behavior"}


def data(tmp_path, rows=ROWS, name="raw.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def prepare(tmp_path, rows=ROWS, out="out", **options):
    behavior = Behavior(description="answers", path=data(tmp_path, rows), **options)
    prepare_behavior("answering", behavior, tmp_path / out)
    return parts(tmp_path / out)


def parts(folder):
    return [{record.id: record for record in read_records(folder / f"{part}.jsonl")} for part in ("train", "heldout")]


def test_every_row_is_in_exactly_one_part_and_the_shares_are_as_asked(tmp_path):
    rows = [row | {"id": f"r{n}", "prompt": f"Question {n}?"} for n, row in enumerate(ROWS * 10)]
    train, heldout = prepare(tmp_path, rows, heldout_fraction=0.3)
    assert set(train) | set(heldout) == {row["id"] for row in rows}
    assert not set(train) & set(heldout)
    assert abs(len(heldout) / len(rows) - 0.3) < 0.06


def test_adding_rows_moves_no_row(tmp_path):
    small = prepare(tmp_path, ROWS[20:40], "small")
    large = prepare(tmp_path, ROWS[::-1], "large")
    for before, after in zip(small, large, strict=True):
        assert set(before) <= set(after)


def test_rows_with_one_prompt_never_straddle_whatever_case_space_or_form(tmp_path):
    rows = []
    for n in range(40):
        variants = [
            f"What is {n}?",
            f"  what IS\n{n}? ",
            [{"role": "user", "content": f"What is {n}?"}],
            f"What is {n}\uff1f",
        ]
        rows += [{"id": f"{n}-{v}", "prompt": prompt, "completion": f"{v}"} for v, prompt in enumerate(variants)]
    train, heldout = prepare(tmp_path, rows)
    prompts = [{record_id.split("-")[0] for record_id in part} for part in (train, heldout)]
    assert not prompts[0] & prompts[1]
    assert len(train) + len(heldout) == 160


def test_roles_and_turns_are_part_of_a_prompt():
    prompts = [
        [{"role": role, "content": "x"}, {"role": "user", "content": f"{n}"}]
        for n in range(40)
        for role in ("user", "system")
    ]
    assert any(is_heldout(a, 0.5) != is_heldout(b, 0.5) for a, b in zip(prompts[::2], prompts[1::2], strict=True))


def test_a_larger_held_out_share_holds_the_smaller_one(tmp_path):
    assert set(prepare(tmp_path, out="a", heldout_fraction=0.2)[1]) < set(
        prepare(tmp_path, out="b", heldout_fraction=0.5)[1]
    )


def test_two_runs_give_the_same_bytes_and_the_card_says_what_is_there(tmp_path):
    prepare(tmp_path, out="a", licence="MIT", where={"id": [f"r{n}" for n in range(50)]})
    prepare(tmp_path, out="b", licence="MIT", where={"id": [f"r{n}" for n in range(50)]})
    names = ["card.json", "heldout.jsonl", "train.jsonl"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    card = json.loads((tmp_path / "a" / "card.json").read_text())
    train, heldout = parts(tmp_path / "a")
    assert (card["behavior"], card["description"], card["kind"], card["licence"]) == (
        "answering",
        "answers",
        "sft",
        "MIT",
    )
    assert (card["rows"], card["train"], card["heldout"]) == (50, len(train), len(heldout))
    assert (card["source"], card["revision"]) == (str(tmp_path / "raw.jsonl"), None)
    assert card["sha256"] == {
        "raw": sha256(tmp_path / "raw.jsonl"),
        "train.jsonl": sha256(tmp_path / "a" / "train.jsonl"),
        "heldout.jsonl": sha256(tmp_path / "a" / "heldout.jsonl"),
    }


def test_max_rows_keeps_that_many_and_a_larger_limit_keeps_a_superset(tmp_path):
    kept = {}
    for limit in (20, 35, 1000):
        train, heldout = prepare(tmp_path, out=f"m{limit}", max_rows=limit)
        kept[limit] = {*train, *heldout}
    assert (len(kept[20]), len(kept[35]), len(kept[1000])) == (20, 35, 60)
    assert kept[20] < kept[35] < kept[1000]
    assert kept[20] != {f"r{n}" for n in range(20)}
    card = json.loads((tmp_path / "m20" / "card.json").read_text())
    assert card["dropped"] == {"beyond max_rows": 40}


def test_repeated_rows_without_ids_are_counted_not_lost_silently(tmp_path):
    rows = [{"prompt": row["prompt"], "completion": row["completion"]} for row in ROWS]
    train, heldout = prepare(tmp_path, rows + rows[:7])
    assert len(train) + len(heldout) == 60
    assert json.loads((tmp_path / "out" / "card.json").read_text())["dropped"] == {"repeats an earlier row": 7}


BAD = {"id": "bad", "prompt": "p", "completion": "c"}
BAD_ROWS = [
    ({"completion": " "}, "completion is blank"),
    ({"prompt": ""}, "prompt is blank"),
    ({"completion": "a\0b"}, "completion has a NUL byte at character 1"),
    ({"completion": None, "chosen": "x", "rejected": "x"}, "chosen and rejected are the same"),
    ({"id": ["x"]}, "id ['x']"),
    ({"prompt": {"text": "p"}}, "prompt is {'text': 'p'}"),
]


@pytest.mark.parametrize(("change", "reason"), BAD_ROWS)
def test_one_bad_row_is_left_out_and_the_card_says_why(tmp_path, change, reason):
    train, heldout = prepare(tmp_path, [*ROWS, BAD | change])
    assert len(train) + len(heldout) == len(ROWS)
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["dropped"] == {reason: 1}


@pytest.mark.parametrize(("change", "reason"), BAD_ROWS)
def test_many_bad_rows_stop_everything_and_leave_no_card(tmp_path, change, reason):
    rows = [*ROWS, *({**BAD, "id": f"bad {n}"} | change for n in range(5))]
    with pytest.raises(InputError, match=rf"5 of 65 rows cannot be used, .*line 61: {re.escape(reason)}"):
        prepare(tmp_path, rows)
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="1 of 61 rows cannot be used"):
        prepare(tmp_path, rows[:61], max_unusable_share=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "r3"}, r"id 'r3' occurs at .*line 4 and at .*line 61.*`ids: derived`"),
        ({"completion": None, "chosen": "x", "rejected": "y"}, r"sft records .* and preference records"),
    ],
)
def test_rows_that_contradict_each_other_stop_everything(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        prepare(tmp_path, [*ROWS, BAD | change])
    assert not (tmp_path / "out").exists()


def test_ids_that_repeat_are_ignored_where_asked_for(tmp_path):
    rows = [row | {"id": f"conversation {n // 2}"} for n, row in enumerate(ROWS)]
    train, heldout = prepare(tmp_path, rows, ids="derived")
    without = [{key: value for key, value in row.items() if key != "id"} for row in ROWS]
    assert prepare(tmp_path, without, out="without") == [train, heldout]
    assert len(train) + len(heldout) == len(ROWS)


def test_an_empty_part_is_an_error_not_an_empty_file(tmp_path):
    same = [row | {"prompt": "one prompt"} for row in ROWS]
    with pytest.raises(InputError, match="none of its 60 rows would be in the"):
        prepare(tmp_path, same)
    with pytest.raises(InputError, match="none of its 60 rows would be in the held-out part"):
        prepare(tmp_path, heldout_fraction=1e-9)
    with pytest.raises(InputError, match="none of its 60 rows would be in the train part"):
        prepare(tmp_path, heldout_fraction=1 - 1e-9)


def test_a_stale_card_does_not_outlive_a_failed_run(tmp_path, monkeypatch):
    prepare(tmp_path)
    import isaerft.behaviors.prepare as module

    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr(module, "write_records", broken)
    with pytest.raises(OSError, match="disk full"):
        prepare(tmp_path)
    assert not (tmp_path / "out" / "card.json").exists()


def dialogue(prompt, reply):
    return f"\n\nHuman: {prompt}\n\nAssistant: {reply}"


def test_a_few_unusable_dialogues_are_counted_and_many_are_an_error(tmp_path):
    good = [{"chosen": dialogue(f"q{n}", "a"), "rejected": dialogue(f"q{n}", "b")} for n in range(60)]
    bad = {"chosen": dialogue("x", ""), "rejected": dialogue("x", "b")}
    train, heldout = prepare(tmp_path, [*good, bad, bad], format="hh")
    assert len(train) + len(heldout) == 60
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["dropped"] == {"the last reply of chosen is blank or missing": 2}
    assert card["kind"] == "preference"
    with pytest.raises(InputError, match=r"4 of 64 rows cannot be used, .*line 61: the last reply of chosen is blank"):
        prepare(tmp_path, [*good, bad, bad, bad, bad], format="hh")


def test_records_of_a_rule_are_split_as_prepared_ones(tmp_path):
    prepare(tmp_path, out="prepared")
    split_file(data(tmp_path), tmp_path / "split", "answers", name="answering", licence="MIT")
    for name in ("train.jsonl", "heldout.jsonl"):
        assert (tmp_path / "split" / name).read_bytes() == (tmp_path / "prepared" / name).read_bytes()
    card = json.loads((tmp_path / "split" / "card.json").read_text())
    assert (card["kind"], card["rows"], card["licence"]) == ("sft", 60, "MIT")


def test_split_file_refuses_what_is_no_record_or_no_share(tmp_path):
    with pytest.raises(InputError, match=r"unknown field in .*line 1: 'label'"):
        split_file(data(tmp_path, [ROWS[0] | {"label": "x"}]), tmp_path / "out", "d")
    with pytest.raises(InputError, match="between 0 and 1"):
        split_file(data(tmp_path), tmp_path / "out", "d", heldout_fraction=1.0)
    with pytest.raises(InputError, match="without a description"):
        split_file(data(tmp_path), tmp_path / "out", " ")


def test_split_file_has_the_defaults_of_the_config(tmp_path):
    defaults = {field.name: field.default for field in fields(Behavior)}
    assert split_file.__kwdefaults__["heldout_fraction"] == getattr(
        defaults["heldout_fraction"], "default", defaults["heldout_fraction"]
    )


def test_a_behavior_made_by_a_rule_cannot_be_prepared(tmp_path):
    with pytest.raises(InputError, match="neither path nor dataset"):
        prepare_behavior("b", Behavior(description="d", rule=True), tmp_path)


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
