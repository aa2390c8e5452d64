"""What asking will cost, before anything is asked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from isaerft.config import Llm
from isaerft.llm.cache import ResponseCache
from isaerft.llm.prompts import Prompt, canonical

# English text in current tokenizers: 4 characters to a token, about. Exact counts need each model's own tokenizer,
# which many servers do not publish and which nothing here could fetch before the first request.
CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class Plan:
    """What a set of prompts takes.

    Attributes
    ----------
    prompts : int
        Distinct prompts.
    cached : int
        Those among them whose answer is known.
    prompt_tokens, completion_tokens : int
        Estimated tokens of the others and of their answers.
    """

    prompts: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def calls(self) -> int:
        """Requests to be made."""
        return self.prompts - self.cached

    def __add__(self, other: Plan) -> Plan:
        return Plan(
            self.prompts + other.prompts,
            self.cached + other.cached,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )


def estimated_tokens(body: dict[str, Any]) -> int:
    """Return how many tokens a request's body has, at 4 characters a token."""
    return math.ceil(len(canonical(body)) / CHARACTERS_PER_TOKEN)


def most_tokens(body: dict[str, Any]) -> int:
    """Return how many tokens a request can use at most: no token is shorter than a byte."""
    return len(canonical(body)) + longest_answer(body)


def longest_answer(body: dict[str, Any]) -> int:
    """Return the longest answer that a request allows, in tokens."""
    return int(body.get("max_completion_tokens") or body["max_tokens"])


def plan_of(prompts: Sequence[Prompt], llm: Llm, cache: ResponseCache) -> Plan:
    """Return what asking `prompts` will take.

    The answers are estimated by the mean of the model's known ones, and where none is known by the longest allowed.
    """
    mean = cache.mean_completion_tokens(llm.model)
    plan, seen = Plan(), set()
    for prompt in prompts:
        bodies = prompt.bodies(llm)
        name = canonical(bodies[0])
        if name in seen:
            continue
        seen.add(name)
        if any(cache.get(body) is not None for body in bodies):
            plan += Plan(prompts=1, cached=1)
        else:
            tokens = estimated_tokens(bodies[0])
            longest = longest_answer(bodies[0])
            plan += Plan(1, 0, tokens, longest if mean is None else min(longest, round(mean)))
    return plan


def price(plan: Plan, llm: Llm) -> float | None:
    """Return what a plan costs by the config's prices; None where it gives none."""
    if llm.price_per_million_input is None or llm.price_per_million_output is None:
        return None
    tokens = plan.prompt_tokens * llm.price_per_million_input + plan.completion_tokens * llm.price_per_million_output
    return tokens / 1_000_000
