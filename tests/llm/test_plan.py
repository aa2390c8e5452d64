"""Costs known before they are made."""

import pytest
from pydantic import BaseModel, ConfigDict

from isaerft.config import Llm
from isaerft.llm import LanguageModel, Prompt, RequestPlan, price


class Word(BaseModel):
    model_config = ConfigDict(extra="forbid")
    word: str


def prompts(*texts):
    return [Prompt("Say a word.", text, Word, 20, 7) for text in texts]


@pytest.fixture
def llm(openai_server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", openai_server.key)
    openai_server.answer = lambda body: {"content": '{"word": "x"}'}
    options = Llm(model="m", base_url=openai_server.url, price_per_million_input=2.0, price_per_million_output=8.0)
    return LanguageModel("small", options, cache=tmp_path / "cache.sqlite", study="s")


def test_planning_sends_nothing_and_makes_no_file(llm, openai_server, tmp_path):
    plan = llm.plan(prompts("a", "b", "a"))
    assert (plan.prompts, plan.cached, plan.calls) == (2, 0, 2)
    assert openai_server.received == 0
    assert list(tmp_path.iterdir()) == []


def test_the_plan_is_what_asking_then_does(llm, openai_server):
    llm.ask(prompts("a"))
    plan = llm.plan(prompts("a", "b", "c"))
    assert (plan.cached, plan.calls) == (1, 2)
    before = openai_server.received
    llm.ask(prompts("a", "b", "c"))
    assert openai_server.received - before == plan.calls
    assert llm.plan(prompts("a", "b", "c")) == RequestPlan(3, 3, 0, 0)


def test_tokens_are_those_of_the_request_at_four_characters_each_and_answers_as_long_as_known_ones(llm):
    short, long = llm.plan(prompts("x")), llm.plan(prompts("x" * 4001))
    assert long.prompt_tokens - short.prompt_tokens == 1000
    assert short.completion_tokens == 20  # none known: the longest allowed
    known = Llm(model="m", base_url=llm.llm.base_url, answer_tokens=500)
    other = LanguageModel("small", known, cache=llm.cache.path, study="s")
    assert other.plan(prompts("y")).completion_tokens == 500
    llm.ask(prompts("a"))
    assert other.plan(prompts("y")).completion_tokens == 50  # what the server counted


def test_an_answer_got_in_words_counts_as_known(llm, openai_server):
    openai_server.schemas = False
    llm.ask(prompts("a"))
    assert llm.plan(prompts("a")).calls == 0


def test_a_price_needs_both_prices(llm):
    assert price(RequestPlan(1, 0, 1_000_000, 500_000), llm.llm) == 6.0
    assert price(RequestPlan(1, 0, 1, 1), Llm(model="m", price_per_million_input=1.0)) is None
