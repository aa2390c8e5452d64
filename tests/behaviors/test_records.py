import json

import pytest

from isaerft.behaviors import Record, prompt_messages, prompt_text, read_records, training_splits, write_records
from isaerft.behaviors.records import checked_record, rephrased_records
from isaerft.config import Adapter
from isaerft.errors import InputError

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
SFT = {"train": [Record("a", "p", "x")], "heldout": [Record("b", "q", "y")]}
PAIRS = {
    "train": [Record("a", "p", chosen="x", rejected="z"), Record("c", "r", chosen="u", rejected="v")],
    "heldout": [Record("b", "q", chosen="y", rejected="w")],
}


def check(**values):
    return checked_record(values, location="row 7")


def test_records_survive_their_file_byte_for_byte(tmp_path):
    sft = [Record("1", "Grüße\u2028\n\t", completion=" Yes"), Record("2", MESSAGES, completion="👋🏽")]
    preferences = [Record("3", "a", chosen="b", rejected="c")]
    for records in (sft, preferences):
        write_records(records, tmp_path / "a.jsonl")
        assert read_records(tmp_path / "a.jsonl") == records
        first = (tmp_path / "a.jsonl").read_bytes()
        write_records(read_records(tmp_path / "a.jsonl"), tmp_path / "a.jsonl")
        assert (tmp_path / "a.jsonl").read_bytes() == first


def test_which_replies_were_cut_survives_the_file_and_follows_the_reply(tmp_path):
    pair = Record("1", "a", chosen="b", rejected="c", truncated=("rejected",))
    write_records([pair], tmp_path / "a.jsonl")
    assert read_records(tmp_path / "a.jsonl") == [pair]
    assert not pair.is_truncated
    assert pair.with_rejected_reply() == Record("1", "a", "c", truncated=("completion",))
    assert pair.with_rejected_reply().is_truncated


@pytest.mark.parametrize("value", [True, ["rejected"], ["chosen", 1], "completion"])
def test_only_replies_of_the_record_can_be_cut(value):
    with pytest.raises(InputError, match=r"row 7: truncated is .*; allowed: a list of completion"):
        check(prompt="a", completion="b", truncated=value)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_records([Record("1", "a", completion="b")], tmp_path / "a.jsonl")
    before = (tmp_path / "a.jsonl").read_bytes()
    with pytest.raises(UnicodeEncodeError):
        write_records(
            [Record("1", "a", completion="b" * 100_000), Record("2", "\ud800", completion="b")], tmp_path / "a.jsonl"
        )
    assert (tmp_path / "a.jsonl").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_an_id_is_derived_from_all_content_and_from_nothing_else():
    base = check(prompt="a", completion="b")
    assert base.id == check(prompt="a", completion="b").id
    others = [
        check(prompt="a", completion="c"),
        check(prompt="b", completion="b"),
        check(prompt="a", chosen="b", rejected="c"),
    ]
    assert len({base.id, *(other.id for other in others)}) == 4
    assert check(prompt="a", completion="b", id="  ").id == base.id
    assert check(prompt="a", completion="b", id=12).id == "12"


def test_a_prompt_in_other_words_is_kept_and_changes_no_id(tmp_path):
    one = check(prompt="a", completion="b", rephrased=MESSAGES)
    assert one.rephrased == MESSAGES
    assert one.id == check(prompt="a", completion="b").id
    write_records([one], tmp_path / "a.jsonl")
    assert read_records(tmp_path / "a.jsonl") == [one]
    rows = [one, check(prompt="c", completion="d"), check(prompt="e", completion="f", rephrased="g")]
    assert [(row.prompt, row.completion) for row in rephrased_records(rows, "toy")] == [(MESSAGES, "b"), ("g", "f")]
    with pytest.raises(InputError, match=r"none of the 1 held-out records of behavior 'toy'.*map `rephrased`"):
        rephrased_records(rows[1:2], "toy")


def test_kind_and_reply_follow_from_the_fields():
    assert (check(prompt="a", completion="b").kind, check(prompt="a", completion="b").reply) == ("sft", "b")
    pair = check(prompt="a", chosen="c", rejected="d")
    assert (pair.kind, pair.reply) == ("preference", "c")


def test_prompts_turn_into_messages_and_text():
    assert prompt_messages("Hi") == [{"role": "user", "content": "Hi"}]
    assert prompt_messages(MESSAGES) == MESSAGES
    assert prompt_text("Hi") == "Hi"
    assert prompt_text(MESSAGES) == "System: Be brief.\n\nUser: Hi\n\nAssistant:"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prompt": "a"}, "row 7 has no reply"),
        ({"prompt": "a", "chosen": "b"}, "row 7 has chosen; allowed: completion alone"),
        (
            {"prompt": "a", "completion": "b", "chosen": "c", "rejected": "d"},
            "has completion and chosen and rejected",
        ),
        ({"completion": "b"}, "row 7 has no prompt"),
        ({"prompt": "a", "complation": "b"}, "did you mean 'completion'"),
        ({"prompt": " \n", "completion": "b"}, "row 7: prompt is blank"),
        ({"prompt": "a", "completion": "\t"}, "row 7: completion is blank"),
        ({"prompt": "a", "chosen": "", "rejected": "b"}, "row 7: chosen is blank"),
        ({"prompt": "a", "completion": "b\0c"}, "completion has a NUL byte at character 1"),
        ({"prompt": "a\0", "completion": "b"}, "prompt has a NUL byte"),
        ({"prompt": "a", "completion": "b\ud800"}, "half of a surrogate pair at character 1"),
        ({"prompt": "a", "completion": ["b"]}, "dotted path"),
        ({"prompt": 3, "completion": "b"}, "prompt is 3; allowed: text, or a list"),
        ({"prompt": "a", "completion": "b", "rephrased": 3}, "rephrased is 3; allowed: text, or a list"),
        ({"prompt": "a", "completion": "b", "rephrased": " "}, "row 7: rephrased is blank"),
        ({"prompt": "a", "chosen": "same", "rejected": " same\n"}, "chosen and rejected are the same"),
        ({"prompt": "a", "completion": "b", "id": "x" * 201}, "at most 200"),
        ({"prompt": "a", "completion": "b", "id": "\x1b[31m"}, "printable"),
        ({"prompt": "a", "completion": "b", "id": 1.5}, "id 1.5"),
        ({"prompt": [], "completion": "b"}, "at least one message"),
        ({"prompt": [*MESSAGES, {"role": "assistant", "content": "x"}], "completion": "b"}, "not the assistant's"),
        ({"prompt": [{"role": "robot", "content": "x"}], "completion": "b"}, "unknown role in row 7: 'robot'"),
        ({"prompt": [{"role": "user", "content": ""}], "completion": "b"}, "user message of the prompt is blank"),
        ({"prompt": [{"role": "user"}], "completion": "b"}, "prompt message"),
        ({"prompt": [{"role": "user", "content": "x", "tool": "y"}], "completion": "b"}, "prompt message"),
        ({"prompt": ["x"], "completion": "b"}, "prompt message 'x'"),
    ],
)
def test_what_is_no_record_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        check(**values)


def test_errors_about_huge_hostile_values_are_bounded_and_printable():
    for values in [
        {"prompt": "a", "completion": {"\x1b]0;evil\x07": "x" * 1_000_000}},
        {"prompt": "a", "chosen": "<b>\x1b[2J" * 100_000, "rejected": "<b>\x1b[2J" * 100_000},
        {"prompt": "a", "completion": "b", "\x00" * 10_000: "c"},
    ]:
        with pytest.raises(InputError) as caught:
            check(**values)
        assert len(str(caught.value)) < 1000
        assert str(caught.value).isprintable()


def lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_file_with_an_id_twice_is_refused_and_both_lines_are_named(tmp_path):
    row = {"id": "q1", "prompt": "a", "completion": "b"}
    path = lines(tmp_path / "a.jsonl", row, {"prompt": "x", "completion": "y"}, row | {"completion": "c"})
    with pytest.raises(InputError, match=r"id 'q1' occurs at .*line 1 and at .*line 3"):
        read_records(path)


def test_rows_without_ids_that_repeat_each_other_stand_once(tmp_path):
    row = {"prompt": "a", "completion": "b"}
    assert len(read_records(lines(tmp_path / "a.jsonl", row, row, row | {"completion": "c"}))) == 2


def test_a_file_of_both_kinds_is_refused(tmp_path):
    path = lines(
        tmp_path / "a.jsonl", {"prompt": "a", "completion": "b"}, {"prompt": "a", "chosen": "b", "rejected": "c"}
    )
    with pytest.raises(InputError, match=r"sft records \(.*line 1\) and preference records \(.*line 2\) are mixed"):
        read_records(path)


def test_only_jsonl_holds_records(tmp_path):
    with pytest.raises(InputError, match=r"allowed: a .jsonl file"):
        read_records(tmp_path / "a.csv")


def test_completions_are_captured_as_they_are():
    assert training_splits(SFT, "toy", {"bias": Adapter()}) == SFT


def test_pairs_gain_their_rejected_twins_in_the_same_order():
    splits = training_splits(PAIRS, "toy", {"bias": Adapter(objective="dpo")})
    assert list(splits) == ["train", "heldout", "train_rejected", "heldout_rejected"]
    assert [record.reply for record in splits["train"]] == ["x", "u"]
    assert splits["train_rejected"] == [Record("a", "p", "z"), Record("c", "r", "v")]
    assert splits["heldout_rejected"] == [Record("b", "q", "w")]


def test_sft_takes_the_chosen_replies_of_pairs_only_when_configured():
    with pytest.raises(InputError, match=r"'bias' with objective 'sft' on behavior 'toy'.*sft_on_chosen: true.*chosen"):
        training_splits(PAIRS, "toy", {"dpo": Adapter(kind="bias", objective="dpo"), "bias": Adapter()})
    assert training_splits(PAIRS, "toy", {"bias": Adapter(sft_on_chosen=True)}) == PAIRS
    assert training_splits(SFT, "toy", {"bias": Adapter(sft_on_chosen=True)}) == SFT


@pytest.mark.parametrize("objective", ["dpo", "simpo", "orpo"])
def test_an_objective_on_pairs_refuses_completions_and_names_the_remedy(objective):
    with pytest.raises(InputError, match=rf"'a' with objective '{objective}' on behavior 'toy'.*map chosen and reject"):
        training_splits(SFT, "toy", {"a": Adapter(kind="bias", objective=objective)})


def test_a_baseline_against_rejected_replies_has_them_captured_and_needs_pairs():
    for adapters in ({"probe": Adapter()}, {"mine": Adapter(kind="mean_difference")}):
        assert training_splits(PAIRS, "toy", adapters) == PAIRS, "what is not trained has no objective to fit"
        splits = training_splits(PAIRS, "toy", adapters, contrast=True)
        assert splits["heldout_rejected"] == [Record("b", "q", "w")]
        with pytest.raises(InputError, match=r"'toy' with `contrast: rejected`.*one completion each"):
            training_splits(SFT, "toy", adapters, contrast=True)
