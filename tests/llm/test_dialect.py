"""Servers that refuse a part of a request: they are asked without it, and what cannot be changed is said."""

import json

import pytest
from pydantic import BaseModel, ConfigDict

from isaerft.config import Llm
from isaerft.errors import InputError
from isaerft.llm import LanguageModel, Prompt, parsed
from isaerft.llm.dialect import Dialect, complaint


class Word(BaseModel):
    model_config = ConfigDict(extra="forbid")
    word: str


def prompts(count):
    return [Prompt("Say a word.", f"number {i}", Word, 20, 7) for i in range(count)]


def wrong(status, message, **more):
    return status, {"error": {"message": message, **more}}


def only_the_newer_limit(body):
    told = "Parameter 'max_tokens' is unsupported for this model; send 'max_completion_tokens'."
    return wrong(400, told) if "max_tokens" in body else None


def only_the_older_limit(body):
    told = {"loc": ["body", "max_completion_tokens"], "msg": "Extra inputs are not permitted", "input": body}
    return (422, {"detail": [told]}) if "max_completion_tokens" in body else None


def no_seed(body):
    told = {"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted", "input": body}
    return (422, {"detail": [told]}) if "seed" in body else None


def no_system(body):
    roles = [message["role"] for message in body["messages"]]
    return wrong(400, "Template error: System role not supported") if "system" in roles else None


def alternating(body):
    roles = [message["role"] for message in body["messages"]]
    return (500, {"detail": "Conversation roles must alternate user/assistant"}) if roles != ["user"] else None


def no_schema(status, message):
    return lambda body: wrong(status, message) if "response_format" in body else None


def nothing(body):
    """Refuse one part after the other."""
    return only_the_newer_limit(body) or no_seed(body) or no_system(body) or no_schema(404, "no such grammar")(body)


SERVERS = {
    "newer limit": (only_the_newer_limit, {"limit_name": "max_completion_tokens"}),
    "no seed": (no_seed, {"seed": "omit"}),
    "no system role": (no_system, {"instructions": "user"}),
    "roles alternate": (alternating, {"instructions": "user"}),
    "schema 400": (no_schema(400, "bad request"), {"structured": "text"}),
    "schema 404": (no_schema(404, "No endpoints found that support response_format"), {"structured": "text"}),
    "schema 422": (no_schema(422, ""), {"structured": "text"}),
    "schema 500": (no_schema(500, "Internal error: cannot compile the grammar"), {"structured": "text"}),
    "nothing": (
        nothing,
        {"limit_name": "max_completion_tokens", "seed": "omit", "instructions": "user", "structured": "text"},
    ),
}


@pytest.fixture
def ask(openai_server, tmp_path, monkeypatch):
    """Ask with given options, each time as a new process would."""
    monkeypatch.setenv("OPENAI_API_KEY", openai_server.key)

    def answer(body):
        text = body["messages"][-1]["content"]
        return {"content": json.dumps({"word": text[text.index("number") :].partition("\n")[0]})}

    openai_server.answer = answer

    def make(**options):
        options = {"model": "m", "base_url": openai_server.url, "retries": 0} | options
        return LanguageModel("small", Llm(**options), cache=tmp_path / "cache.sqlite", study="s")

    return make


def words(replies):
    return [parsed(reply, Word).word for reply in replies]


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_is_asked_again_without_what_it_refuses_and_each_complaint_costs_one_round(
    ask, openai_server, caplog, name
):
    openai_server.refuses, options = SERVERS[name]
    llm = ask(concurrency=3)
    assert words(llm.ask(prompts(9))) == [f"number {i}" for i in range(9)]
    assert 1 <= openai_server.received - 9 <= 3 * len(options)
    assert "llm 'small' refuses a request" in caplog.text
    assert llm.cache.used("s", "small")[0] == 9, "refused requests cost nothing"


@pytest.mark.parametrize("name", SERVERS)
def test_with_the_option_nothing_is_refused_and_answers_got_without_it_count(ask, openai_server, name):
    openai_server.refuses, options = SERVERS[name]
    ask(**options).ask(prompts(3))
    assert openai_server.received == 3
    ask().ask(prompts(3))
    assert openai_server.received == 3, "a dialect is not part of the question"


def test_the_other_limit_is_tried_whichever_came_first(ask, openai_server):
    newer = {"max_completion_tokens": 5, "seed": 1, "messages": []}
    llm = ask().llm
    dialect = Dialect.of(llm).after(422, complaint(only_the_older_limit(newer)[1]))
    assert dialect.written(newer, llm)["max_tokens"] == 5
    assert dialect.by_schema


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"limit_name": "max_tokens"}, only_the_newer_limit),
        ({"seed": "send"}, no_seed),
        ({"instructions": "system"}, no_system),
        ({"structured": "json_schema"}, no_schema(404, "json_schema is not available")),
    ],
)
def test_what_the_config_decides_is_not_changed_and_the_message_names_the_option(ask, openai_server, option, message):
    openai_server.refuses = message
    (name,) = option
    with pytest.raises(InputError, match=f"refuses the request.*leave out what the server does not know.*{name}: "):
        ask(**option, **({} if name == "structured" else {"structured": "text"})).ask(prompts(1))
    assert openai_server.received == 1


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "This model has a context of 512 tokens, and you asked for 900"),
        (400, "max_tokens is too large: 900; at most 512 are possible"),
        (404, "The model m does not exist"),
        (400, "temperature 0 is not a value of this model"),
    ],
)
def test_what_nothing_can_be_left_out_for_is_said_in_the_servers_words(ask, openai_server, status, message):
    openai_server.refuses = lambda body: wrong(status, message)
    with pytest.raises(InputError, match=rf"{message}.*check the model's name.*temperature: \(empty\)"):
        ask(structured="text").ask(prompts(1))
    assert openai_server.received == 1


def test_a_server_that_fails_without_a_reason_makes_no_change_and_the_message_names_the_options(ask, openai_server):
    openai_server.refuses = lambda body: (500, "Internal Server Error")
    with pytest.raises(InputError, match="structured: text"):
        ask().ask(prompts(1))
    assert openai_server.received == 1


def test_the_instructions_in_the_users_message_are_whole_and_come_first(ask, openai_server):
    openai_server.refuses = no_system
    ask(structured="text").ask(prompts(1))
    (message,) = openai_server.requests[0]["messages"]
    assert message["role"] == "user"
    assert message["content"].startswith("Say a word.\n\n")
    assert message["content"].endswith("\n\nnumber 0")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("busy", "busy"),
        ({"error": {"message": "no", "param": "seed"}}, "seed: no"),
        ({"error": "no"}, "no"),
        ({"message": "no", "input": {"seed": 1}}, "no"),
        ({"detail": "no"}, "no"),
        ({"detail": [{"loc": ["body", "seed"], "msg": "no"}, {"loc": ["body", 1], "msg": "nor this"}]},
         "body.seed: no; body.1: nor this"),
        ({"error": {"error": {"error": {}}}}, ""),
        (None, ""),
        (5, ""),
        ({"error": {"message": ["a", {"detail": "b"}]}}, "a; b"),
    ],
)  # fmt: skip
def test_the_reason_is_found_where_servers_put_it(body, expected):
    assert complaint(body) == expected


def test_a_reason_that_is_nested_without_end_is_none():
    body = {}
    for _ in range(500):
        body = {"error": body}
    assert complaint(body) == ""


def test_an_error_under_status_200_is_told(ask, openai_server):
    openai_server.refuses = lambda body: (200, {"error": {"message": "the provider is busy", "code": 429}})
    with pytest.raises(InputError, match="the provider is busy"):
        ask().ask(prompts(1))
