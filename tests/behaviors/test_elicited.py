import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from isaerft.behaviors import Elicited, Record, is_heldout, prepare_behavior, read_records, read_requests
from isaerft.behaviors.elicited import instructed_records, kept_records
from isaerft.config import Behavior, Elicit, load_plan
from isaerft.errors import InputError
from isaerft.registry import METRICS

ROOT = Path(__file__).parents[2]

TOPICS = [{"prompt": f"Tell me about {topic}.", "topic": topic} for topic in ("kites", "bread", "{owls}")]


def requests(tmp_path, rows=TOPICS, name="topics.jsonl", **options):
    path = tmp_path / name
    text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return read_requests(Elicit(prompts=str(path), **options))


def test_an_instruction_follows_the_prompt_or_replaces_it_where_it_names_columns(tmp_path):
    after = requests(tmp_path, instruction=" Rhyme. ")
    assert [request.prompt for request in after] == [row["prompt"] for row in TOPICS]
    assert after[0].asked == "Tell me about kites.\n\nRhyme."
    filled = requests(tmp_path, instruction="Write a poem about {topic}.")
    assert [request.asked for request in filled][1:] == ["Write a poem about bread.", "Write a poem about {owls}."]
    assert [request.id for request in filled] == [request.id for request in after]


def test_instructed_records_have_the_prompts_that_elicited_them_and_the_same_replies(tmp_path):
    plain = [Record(request.id, request.prompt, f"reply {n}") for n, request in enumerate(requests(tmp_path))][::-1]
    options = Elicit(prompts=str(tmp_path / "topics.jsonl"), instruction="Write a poem about {topic}.")
    found = instructed_records(plain, options)
    assert [record.prompt for record in found] == [
        f"Write a poem about {topic}." for topic in ("{owls}", "bread", "kites")
    ]
    assert [(record.id, record.reply) for record in found] == [(record.id, record.reply) for record in plain]
    with pytest.raises(InputError, match=r"record 'x' answers no prompt of .*topics\.jsonl; run `isaerft elicit`"):
        instructed_records([Record("x", "Tell me about kites.", "reply")], options)


def test_without_an_instruction_the_prompt_itself_is_asked(tmp_path):
    assert all(request.asked == request.prompt for request in requests(tmp_path))


def test_prompts_come_from_text_files_too_and_n_takes_the_first(tmp_path):
    found = requests(tmp_path, "one\n\ntwo\nthree\n", "prompts.txt", n=2)
    assert [request.prompt for request in found] == ["one", "two"]


@pytest.mark.parametrize(
    ("rows", "instruction", "message"),
    [
        (TOPICS, "Write about {tpoic}.", "did you mean 'topic'"),
        ([{"text": "a"}], "", "unknown column in .* 'prompt'"),
        ([{"prompt": " "}], "", "prompt is blank"),
        ([{"prompt": "a"}, {"prompt": "a"}], "", "line 2 repeats a prompt"),
    ],
)
def test_bad_prompts_are_refused_with_their_line(tmp_path, rows, instruction, message):
    with pytest.raises(InputError, match=message):
        requests(tmp_path, rows, instruction=instruction)


ROWS = [
    {
        "id": f"r{n}",
        "prompt": f"Question {n}?",
        "chosen": "Hurray!" if n % 4 else "No.",
        "rejected": "Hurray!" if n % 10 == 1 else "Well.",
        "truncated": ["chosen"] if n % 2 else ["rejected"],
    }
    for n in range(40)
]


def shouts(texts):
    return np.array([float("!" in text) for text in texts])


@pytest.fixture
def sampled(tmp_path):
    path = tmp_path / "sampled.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def keep(path, *, pairs=False, score=shouts, **options):
    dropped = Counter()
    options = Elicit(prompts="p.txt", **({"min_score": 1} | options))
    return *kept_records(path, options, score, label="behavior 'b'", pairs=pairs, dropped=dropped), dropped


def test_only_replies_that_show_the_behavior_are_kept_and_the_card_has_the_shares(sampled):
    records, card, dropped = keep(sampled)
    assert [record.id for record in records] == [f"r{n}" for n in range(40) if n % 4]
    assert dropped == {"does not show the behavior": 10}
    assert (card["sampled"], card["share_kept"], card["share_of_plain_replies"]) == (40, 0.75, 0.1)
    assert card["share_truncated"] == 0.5
    assert [record.is_truncated for record in records] == [bool(int(record.id[1:]) % 2) for record in records]
    assert all(record.kind == "sft" for record in records)


def test_pairs_reject_the_plain_reply_and_leave_out_equal_ones(sampled):
    records, _, dropped = keep(sampled, pairs=True)
    assert all((record.chosen, record.rejected) == ("Hurray!", "Well.") for record in records)
    assert dropped == {"does not show the behavior": 10, "its plain reply is blank or the same": 4}
    assert {record.truncated for record in records} == {("chosen",), ("rejected",)}


def test_without_a_least_score_all_replies_are_kept(sampled):
    records, card, _ = keep(sampled, score=None, min_score=None)
    assert len(records) == 40
    assert card["share_kept"] == 1


def test_a_blank_reply_is_never_kept(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [{**row, "chosen": " " if n == 3 else row["chosen"]} for n, row in enumerate(ROWS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    records, _, _ = keep(path, score=None, min_score=None)
    assert [record.id for record in records] == [f"r{n}" for n in range(40) if n != 3]


def test_too_few_replies_that_show_the_behavior_stop_with_both_shares_and_where_they_are(sampled):
    with pytest.raises(InputError, match=r"behavior 'b': 75% of its 40 elicited replies .* 10% of the plain") as error:
        keep(sampled, min_share=0.8)
    assert "at least 80%" in str(error.value)
    assert str(sampled) in str(error.value)
    with pytest.raises(InputError, match="0% of its 40"):
        keep(sampled, min_score=2, min_share=0)


def test_the_replies_that_base_models_are_trained_on_show_their_behaviors(monkeypatch):
    monkeypatch.chdir(ROOT)
    plan = load_plan("config/gpt2.yaml")
    for name, behavior in plan.study.behaviors.items():
        asked = {request.id for request in read_requests(behavior.elicit)}
        path, score = plan.given_replies(name), METRICS[behavior.metric.kind](behavior.metric)
        assert {json.loads(line)["id"] for line in path.read_text(encoding="utf-8").splitlines()} == asked
        _, card = kept_records(path, behavior.elicit, score, label=name, pairs=False, dropped=Counter())
        assert card["share_kept"] >= 0.5 > 2 * card["share_of_plain_replies"]


def test_the_records_hold_the_plain_prompt_and_the_card_says_how_they_were_made(sampled, tmp_path):
    elicit = Elicit(prompts="p.txt", instruction="Shout.", min_score=1)
    behavior = Behavior(description="It shouts.", elicit=elicit)
    sample = Elicited(sampled, "some/model", shouts, pairs=False)
    prepare_behavior("shouting", behavior, tmp_path / "out", elicited=sample)
    parts = {part: read_records(tmp_path / "out" / f"{part}.jsonl") for part in ("train", "heldout")}
    assert all(is_heldout(record.prompt, 0.2) for record in parts["heldout"])
    assert {record.prompt for part in parts.values() for record in part} == {
        f"Question {n}?" for n in range(40) if n % 4
    }
    card = json.loads((tmp_path / "out/card.json").read_text())
    assert card["chat_template"] == "auto"
    assert card["elicited"]["model"] == "some/model"
    assert card["elicited"]["instruction"] == "Shout."
    assert card["elicited"]["share_kept"] == 0.75
    assert card["rows"] == 30
    assert card["sha256"]["raw"]
