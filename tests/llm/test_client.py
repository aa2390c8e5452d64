"""Asking a server: every answer kept and asked for once, faults survived, caps held, the key seen nowhere."""

import json
import logging
import runpy
import sqlite3
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from isaerft.config import Llm
from isaerft.errors import InputError
from isaerft.llm import Failure, LanguageModel, Prompt, RequestPlan, parsed

Wire = runpy.run_path(str(Path(__file__).parents[1] / "servers/wire.py"))["Wire"]


class Word(BaseModel):
    model_config = ConfigDict(extra="forbid")
    word: str


def prompts(count, form=Word):
    return [Prompt("Say a word.", f"number {i}", form, 20, 7) for i in range(count)]


def says(text, **message):
    return lambda body: {"content": text, **message}


def numbered(body):
    return {"content": json.dumps({"word": body["messages"][1]["content"]})}


@pytest.fixture
def ask(openai_server, tmp_path, monkeypatch):
    """Ask with given options, each time as a new process would."""
    monkeypatch.setenv("LOOPBACK_KEY", openai_server.key)
    openai_server.answer = numbered

    def make(**options):
        options = {"model": "m", "base_url": openai_server.url, "api_key_env": "LOOPBACK_KEY", "retries": 3} | options
        return LanguageModel("small", Llm(**options), cache=tmp_path / "cache.sqlite", study="s")

    return make


def words(replies):
    return [parsed(reply, Word).word for reply in replies]


def test_each_prompt_gets_its_own_reply_whatever_order_they_come_in(ask, openai_server):
    openai_server.delay = 0.01
    assert words(ask(concurrency=5).ask(prompts(23))) == [f"number {i}" for i in range(23)]
    assert openai_server.problems == []
    assert 2 <= openai_server.most_under_way <= 5


def test_a_second_run_makes_no_request_and_needs_no_key(ask, openai_server, monkeypatch):
    first = ask().ask(prompts(9))
    monkeypatch.delenv("LOOPBACK_KEY")
    openai_server.close()
    assert ask().ask(prompts(9)) == first
    assert openai_server.received == 9


def test_a_new_prompt_without_a_key_is_a_users_error_that_names_the_variable(ask, openai_server, monkeypatch):
    ask().ask(prompts(2))
    monkeypatch.setenv("LOOPBACK_KEY", "  ")
    with pytest.raises(InputError, match=r"environment variable LOOPBACK_KEY holds no key.*llm_cache"):
        ask().ask(prompts(3))
    assert openai_server.received == 2


def test_the_answer_hangs_on_model_messages_and_parameters_but_on_no_server_nor_pace(ask, openai_server):
    ask().ask(prompts(1))
    ask(concurrency=1, timeout=7, max_calls=99, base_url=openai_server.url + "/").ask(prompts(1))
    assert openai_server.received == 1
    for options in ({"model": "n"}, {"answer_tokens": 99}, {"structured": "text"}):
        before = openai_server.received
        if options.get("structured") == "text":
            openai_server.schemas = False
        ask(**options).ask(prompts(1))
        assert openai_server.received == before + 1


@pytest.mark.parametrize("fault", [408, 409, 429, 500, 503, "cut", "slow"])
def test_a_passing_fault_is_tried_again(ask, openai_server, fault):
    openai_server.faults = [fault]
    assert words(ask(timeout=1).ask(prompts(1))) == ["number 0"]
    assert openai_server.received == 2


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("loris", r"gave no answer after 1 tries \(no whole answer within 0\.5 s\).*run again to continue"),
        ("endless", r"\(more than 16777216 bytes\)"),
        ("elsewhere", r"redirects to another address \(307\).*check base_url.*no redirect is followed"),
        ("gzip", r"\(damaged gzip\)"),
        ("closed", r"\(Server disconnected without sending a response\.\)"),
    ],
)
def test_a_broken_answer_ends_the_run_in_bounds_and_in_one_line(ask, openai_server, fault, said):
    with Wire(openai_server.url, fault, pause=0.2) as wire:
        with pytest.raises(InputError, match=said):
            ask(base_url=wire.url, retries=0, timeout=0.5 if fault == "loris" else 20).ask(prompts(1))
        assert len(wire.seen) == 1
        assert not (wire.sink and wire.sink.seen), "text and key went to another host"
    assert words(ask().ask(prompts(1))) == ["number 0"]


def test_a_storm_of_429_loses_nothing(ask, openai_server):
    openai_server.faults = [429] * 6
    assert words(ask(concurrency=3).ask(prompts(6))) == [f"number {i}" for i in range(6)]
    assert len(openai_server.requests) == 6


@pytest.mark.parametrize("fault", ["html", "malformed", "empty"])
def test_what_is_no_completion_is_never_kept_as_an_answer(ask, openai_server, fault):
    openai_server.faults = [fault] * 4
    with pytest.raises(InputError, match="llm 'small'"):
        ask(retries=0, concurrency=1).ask(prompts(1))
    openai_server.faults = []
    assert words(ask().ask(prompts(1))) == ["number 0"]


@pytest.mark.parametrize("fault", ["html", "malformed", "empty"])
def test_what_is_no_completion_is_asked_for_again_as_often_as_retries_allow(ask, openai_server, monkeypatch, fault):
    monkeypatch.setattr("isaerft.llm.client.FIRST_PAUSE", 0.01)
    openai_server.faults = [fault] * 3
    assert words(ask(retries=3).ask(prompts(1))) == ["number 0"]
    assert openai_server.received == 4
    assert ask().cache.used("s", "small")[0] == 4, "each counts against max_calls"


def test_a_server_that_stays_away_ends_the_run_with_all_answers_so_far_kept(ask, openai_server):
    openai_server.faults = [None] * 4 + [500] * 9
    with pytest.raises(InputError, match=r"gave no answer after 2 tries.*all answers so far are kept.*run again"):
        ask(retries=1, concurrency=1).ask(prompts(10))
    openai_server.faults = []
    before = openai_server.received
    assert words(ask().ask(prompts(10))) == [f"number {i}" for i in range(10)]
    assert openai_server.received - before == 6


def test_max_calls_stops_before_the_request_that_would_pass_it_and_keeps_the_rest(ask, openai_server):
    for allowed in (4, 4, 7):
        with pytest.raises(InputError, match=f"max_calls: {allowed}; all answers so far are kept"):
            ask(max_calls=allowed, concurrency=3).ask(prompts(10))
        assert openai_server.received == allowed
    ask(max_calls=10).ask(prompts(10))
    assert openai_server.received == 10
    ask(max_calls=0).ask(prompts(10))


def test_max_tokens_is_never_passed(ask, openai_server):
    with pytest.raises(InputError, match="max_tokens: 5000"):
        ask(max_tokens=5000, concurrency=4).ask(prompts(100))
    used = ask().cache.used("s", "small")
    assert used[0] == openai_server.received > 1
    assert 2500 < used[1] <= 5000


def test_a_refused_request_costs_nothing(ask, openai_server):
    openai_server.faults = [404]
    with pytest.raises(InputError, match=r"refuses the request.*check the model's name"):
        ask().ask(prompts(1))
    assert ask().cache.used("s", "small") == (0, 0)


def test_a_server_without_schemas_is_asked_in_words_and_its_answers_are_found_again(ask, openai_server):
    openai_server.schemas = False
    assert len(words(ask(concurrency=1).ask(prompts(5)))) == 5
    assert openai_server.received == 6
    ask().ask(prompts(5))
    assert openai_server.received == 6
    with pytest.raises(InputError, match="refuses the request"):
        ask(structured="json_schema").ask(prompts(6))


def test_a_model_without_temperature_is_sent_none(ask, openai_server):
    openai_server.check = lambda body, raw: ["temperature"] if "temperature" in body else []
    ask(temperature=None).ask(prompts(1))
    assert "temperature" not in openai_server.requests[0]


def test_the_key_is_in_no_error_no_log_and_no_file(ask, openai_server, tmp_path, caplog, monkeypatch):
    key = openai_server.key
    caplog.set_level(logging.DEBUG)
    openai_server.answer = says(json.dumps({"word": key}), refusal=key, finish_reason=key)
    ask().ask(prompts(1))
    openai_server.answer = numbered
    told = []
    for fault in (401, 403, 400, 404, 500):
        openai_server.faults = [fault] * 3
        with pytest.raises(InputError) as caught:
            ask(retries=0).ask(prompts(2))
        told.append(str(caught.value))
    monkeypatch.setenv("LOOPBACK_KEY", key + "wrong")
    with pytest.raises(InputError, match=r"refuses the key \(401\); check LOOPBACK_KEY") as caught:
        ask().ask(prompts(3))
    assert key not in " ".join([*told, str(caught.value), repr(caught.value.__cause__), caplog.text])
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or key.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("key", ["sk with space", "sk-é", "sk\nx"])
def test_what_cannot_be_a_key_is_not_repeated(ask, key, monkeypatch):
    monkeypatch.setenv("LOOPBACK_KEY", key)
    with pytest.raises(InputError, match="LOOPBACK_KEY does not hold a valid key") as caught:
        ask().ask(prompts(1))
    assert key not in str(caught.value)


def test_a_server_that_wants_no_key_is_asked_without(ask, openai_server, monkeypatch):
    monkeypatch.delenv("LOOPBACK_KEY")
    openai_server.key = ""
    assert words(ask(api_key_env=None).ask(prompts(1))) == ["number 0"]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"content": None, "refusal": "I'd rather not."}, "refused"),
        ({"content": '{"word": "x"}', "refusal": "no"}, "refused"),
        ({"content": "", "finish_reason": "content_filter"}, "refused"),
        ({"content": '{"word": "x"}', "finish_reason": "length"}, "truncated"),
        ({"content": '{"word": "x' + "y" * 300_000 + '"}'}, "truncated"),
        ({"content": ""}, "empty"),
        ({"content": None}, "empty"),
        ({"content": 5}, "empty"),
        ({"content": "promoted, I think"}, "no_json"),
        ({"content": '{"word": "x'}, "no_json"),
        ({"content": "{" * 100_000}, "no_json"),
        ({"content": '{"word": 5}'}, "wrong_form"),
        ({"content": '{"word": "x", "more": 1}'}, "wrong_form"),
        ({"content": '<think>{"word": "x"}</think> I cannot say.'}, "no_json"),
        ({"content": '[{"words": "x"}]'}, "wrong_form"),
    ],
)
def test_what_is_no_answer_is_a_failure(openai_server, ask, message, reason):
    openai_server.answer = lambda body: message
    (reply,) = ask().ask(prompts(1))
    assert parsed(reply, Word) == Failure(reason)
    assert openai_server.received == 1


def half_empty(body):
    return {"content": ""} if int(body["messages"][1]["content"].split()[-1]) % 2 else numbered(body)


def test_failed_replies_are_asked_for_again_in_a_later_run_and_answers_are_not(ask, openai_server):
    openai_server.answer = half_empty
    ask().ask(prompts(6))
    assert openai_server.received == 6
    assert (ask().plan(prompts(6)).prompts, ask().plan(prompts(6)).calls) == (6, 3)
    openai_server.answer = numbered
    assert words(ask().ask(prompts(6))) == [f"number {i}" for i in range(6)]
    asked_again = {body["messages"][1]["content"] for body in openai_server.requests[6:]}
    assert asked_again == {"number 1", "number 3", "number 5"}
    ask().ask(prompts(6))
    assert openai_server.received == 9


def test_a_failure_never_replaces_the_answer_that_another_job_has_kept(ask, openai_server):
    def answered_meanwhile(body):
        openai_server.answer = numbered
        ask().ask(prompts(1))
        return {"content": ""}

    openai_server.answer = answered_meanwhile
    assert words(ask().ask(prompts(1))) == ["number 0"]


@pytest.mark.parametrize("obstacle", ["no key", "no server", "cap"])
def test_failed_replies_that_cannot_be_asked_for_again_count_as_before(
    ask, openai_server, monkeypatch, caplog, obstacle
):
    openai_server.answer = half_empty
    first = ask().ask(prompts(4))
    if obstacle == "no key":
        monkeypatch.delenv("LOOPBACK_KEY")
    elif obstacle == "no server":
        openai_server.close()
    assert ask(retries=0, max_calls=4).ask(prompts(4)) == first
    assert "2 failed replies count as before" in caplog.text
    with pytest.raises(InputError):
        ask(retries=0, max_calls=4).ask(prompts(5))


def test_an_answer_with_the_code_of_another_text_is_a_failure_and_asked_for_again(ask, openai_server):
    prompt = Prompt("Say it.", "x", Word, 20, 7, code=("word", "a1b2"))
    openai_server.answer = says('{"word": "c3d4"}')
    (reply,) = ask().ask([prompt])
    assert prompt.answer(reply) == Failure("of_another")
    openai_server.answer = says('{"word": "a1b2"}')
    (reply,) = ask().ask([prompt])
    assert prompt.answer(reply) == Word(word="a1b2")


@pytest.mark.parametrize(
    "text",
    [
        '{"word": "x"}',
        '```json\n{"word": "x"}\n```',
        'Sure! {"word": "y"} or rather {"word": "x"} {"more": 1} Bye.',
        '{oops} {"word":"x"}',
        '<think>Maybe {"word": "y"}. {a}{b}{c} No.</think>\n{"word": "x"}',
        "<think>" + "{x} " * 2000 + '</think>{"word": "x"}',
        [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": '{"word": "x"}'}],
        [{"type": "text", "text": '{"word":'}, {"type": "text", "text": ' "x"}'}],
    ],
)
def test_the_last_object_that_fits_is_found_in_whatever_stands_around_it(ask, openai_server, text):
    openai_server.answer = says(text)
    assert words(ask().ask(prompts(1))) == ["x"]


def test_half_characters_and_nulls_are_kept_as_harmless_text(ask, openai_server):
    openai_server.answer = says('{"word": "a\\ud800b"} \0 \ud800')
    (reply,) = ask().ask(prompts(1))
    assert "\0" not in reply.content
    assert ask().ask(prompts(1)) == [reply]


def test_a_cache_that_is_no_database_is_a_users_error(ask, tmp_path):
    (tmp_path / "cache.sqlite").write_text("not a database, but long enough to be taken for one" * 9)
    with pytest.raises(InputError, match=r"cannot be used .*not a database.*move it away.*llm_cache"):
        ask().ask(prompts(1))


def test_a_damaged_cache_is_a_users_error_that_says_how_to_go_on(ask, tmp_path):
    ask().ask(prompts(40))
    path = tmp_path / "cache.sqlite"
    data = bytearray(path.read_bytes())
    data[4096:] = b"\x5a" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"cannot be used .*malformed.*put back a copy.*sqlite3 FILE .recover"):
        ask().ask(prompts(1))


def test_a_cache_below_a_path_that_is_a_file_is_a_users_error(ask, tmp_path, openai_server):
    (tmp_path / "file").write_text("")
    llm = LanguageModel("small", ask().llm, cache=tmp_path / "file" / "cache.sqlite", study="s")
    with pytest.raises(InputError, match=r"cannot be used .*file.*llm_cache"):
        llm.ask(prompts(1))


def test_a_run_leaves_one_file_that_can_be_shipped(ask, tmp_path):
    ask().ask(prompts(4))
    assert [path.name for path in tmp_path.iterdir()] == ["cache.sqlite"]
    with sqlite3.connect(tmp_path / "cache.sqlite") as connection:
        assert connection.execute("SELECT COUNT(*) FROM responses").fetchone() == (4,)


def test_equal_prompts_are_sent_once(ask, openai_server):
    assert words(ask().ask([*prompts(2), *prompts(3)])) == ["number 0", "number 1", *(f"number {i}" for i in range(3))]
    assert openai_server.received == 3


def prompts_of(*texts):
    return [Prompt("Say a word.", text, Word, 20, 7) for text in texts]


@pytest.fixture
def llm(openai_server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", openai_server.key)
    openai_server.answer = lambda body: {"content": '{"word": "x"}'}
    options = Llm(model="m", base_url=openai_server.url, price_per_million_input=2.0, price_per_million_output=8.0)
    return LanguageModel("small", options, cache=tmp_path / "cache.sqlite", study="s")


def test_planning_sends_nothing_and_makes_no_file(llm, openai_server, tmp_path):
    plan = llm.plan(prompts_of("a", "b", "a"))
    assert (plan.prompts, plan.cached, plan.calls) == (2, 0, 2)
    assert openai_server.received == 0
    assert list(tmp_path.iterdir()) == []


def test_the_plan_is_what_asking_then_does(llm, openai_server):
    llm.ask(prompts_of("a"))
    plan = llm.plan(prompts_of("a", "b", "c"))
    assert (plan.cached, plan.calls) == (1, 2)
    before = openai_server.received
    llm.ask(prompts_of("a", "b", "c"))
    assert openai_server.received - before == plan.calls
    assert llm.plan(prompts_of("a", "b", "c")) == RequestPlan(3, 3, 0, 0)


def test_tokens_are_those_of_the_request_at_four_characters_each_and_answers_as_long_as_known_ones(llm):
    short, long = llm.plan(prompts_of("x")), llm.plan(prompts_of("x" * 4001))
    assert long.prompt_tokens - short.prompt_tokens == 1000
    assert short.completion_tokens == 20  # none known: the longest allowed
    known = Llm(model="m", base_url=llm.llm.base_url, answer_tokens=500)
    other = LanguageModel("small", known, cache=llm.cache.path, study="s")
    assert other.plan(prompts_of("y")).completion_tokens == 500
    llm.ask(prompts_of("a"))
    assert other.plan(prompts_of("y")).completion_tokens == 50  # what the server counted


def test_an_answer_got_in_words_counts_as_known(llm, openai_server):
    openai_server.schemas = False
    llm.ask(prompts_of("a"))
    assert llm.plan(prompts_of("a")).calls == 0


def test_a_price_needs_both_prices(llm):
    assert RequestPlan(1, 0, 1_000_000, 500_000).price(llm.llm) == 6.0
    assert RequestPlan(1, 0, 1, 1).price(Llm(model="m", price_per_million_input=1.0)) is None
