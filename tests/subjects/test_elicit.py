import json
from dataclasses import replace

import pytest

from isaerft.behaviors.elicited import Request
from isaerft.config import Elicit
from isaerft.errors import InputError
from isaerft.subjects.elicit import write_elicited
from isaerft.subjects.generate import Reply, generate

REQUESTS = [Request(f"r{n}", f"say hello {n}", f"say hello {n}\n\nkindly") for n in range(5)]


def sample(language, path, *, requests=REQUESTS, seed=0, batch_size=2, max_length=60, behavior="b", **options):
    options = Elicit(prompts="p.txt", instruction="kindly", **({"max_new_tokens": 6, "temperature": 1} | options))
    how = {"behavior": behavior, "seed": seed, "batch_size": batch_size, "max_length": max_length}
    write_elicited(language, requests, options, path, **how)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def asked(language, monkeypatch, tmp_path):
    """Return the texts that the model was given, elicited ones first."""
    given = []

    def record(language, prompts, **options):
        given.extend(language.decode(prompt) for prompt in prompts)
        return generate(language, prompts, **options)

    monkeypatch.setattr("isaerft.subjects.elicit.generate", record)
    sample(language, tmp_path / "a.jsonl")
    return given


def test_the_instruction_is_in_the_users_turn_and_not_in_the_row(chat, monkeypatch, tmp_path):
    given = asked(chat, monkeypatch, tmp_path)
    assert given[0] == "<bos><user>say hello 0\n\nkindly<assistant>"
    assert given[5] == "<bos><user>say hello 0<assistant>"
    rows = sample(chat, tmp_path / "b.jsonl")
    assert [row["prompt"] for row in rows] == [f"say hello {n}" for n in range(5)]


def test_without_a_template_the_text_itself_is_continued(subject, chat, monkeypatch, tmp_path):
    for language in (subject.language, replace(chat, uses_chat_template=False)):
        assert asked(language, monkeypatch, tmp_path)[0] == "<bos>say hello 0\n\nkindly"


def test_a_seed_gives_the_same_bytes_and_another_seed_or_behavior_gives_others(chat, tmp_path):
    first = sample(chat, tmp_path / "a.jsonl")
    assert sample(chat, tmp_path / "b.jsonl") == first
    assert sample(chat, tmp_path / "c.jsonl", seed=1) != first
    other = sample(chat, tmp_path / "d.jsonl", behavior="other")
    assert [row["rejected"] for row in other] != [row["rejected"] for row in first]


def test_plain_replies_have_a_stream_of_their_own(chat, tmp_path):
    same = [request._replace(asked=request.prompt) for request in REQUESTS]
    rows = sample(chat, tmp_path / "a.jsonl", requests=same)
    assert any(row["chosen"] != row["rejected"] for row in rows)
    greedy = sample(chat, tmp_path / "b.jsonl", requests=same, temperature=0)
    assert all(row["chosen"] == row["rejected"] for row in greedy)


def test_a_row_says_which_replies_were_cut(chat, tmp_path, monkeypatch):
    def replies(language, prompts, *, description, **options):
        return [Reply([9], f"{description}\ufffd ", number % 2 == 0) for number, _ in enumerate(prompts)]

    monkeypatch.setattr("isaerft.subjects.elicit.generate", replies)
    rows = sample(chat, tmp_path / "a.jsonl")
    assert rows[0]["truncated"] == ["chosen", "rejected"]
    assert rows[1]["truncated"] == []
    assert rows[0]["chosen"] == "elicited replies"


def test_a_prompt_that_leaves_no_room_for_the_reply_is_refused_and_nothing_is_written(chat, tmp_path):
    with pytest.raises(InputError, match="prompt r0 does not fit with its reply; raise max_length"):
        sample(chat, tmp_path / "a.jsonl", max_length=12)
    assert list(tmp_path.iterdir()) == []
