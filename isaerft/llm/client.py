"""What asking will cost, before anything is asked.

Asking an OpenAI-compatible server, many requests at a time, each answer kept as it comes.

The openai package makes the requests: it repeats them after 408, 409, 429, 5xx and broken connections, with growing
random pauses or the server's own Retry-After. A server that stays away, a refused key or a reached cap end the run in
one line; what was answered until then is in the cache, and the next run goes on from there.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from isaerft.config import Llm, Plan
from isaerft.errors import InputError, one_line
from isaerft.llm.cache import Reply, ResponseCache
from isaerft.llm.prompts import Prompt, canonical

if TYPE_CHECKING:
    from openai import AsyncOpenAI


# English text in current tokenizers: 4 characters to a token, about. Exact counts need each model's own tokenizer,
# which many servers do not publish and which nothing here could fetch before the first request.
CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class RequestPlan:
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

    def __add__(self, other: RequestPlan) -> RequestPlan:
        return RequestPlan(
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


def request_plan(prompts: Sequence[Prompt], llm: Llm, cache: ResponseCache) -> RequestPlan:
    """Return what asking `prompts` will take.

    The answers are estimated by the mean of the model's known ones, and where none is known by the longest allowed.
    """
    mean = cache.mean_completion_tokens(llm.model)
    plan, seen = RequestPlan(), set()
    for prompt in prompts:
        bodies = prompt.bodies(llm)
        name = canonical(bodies[0])
        if name in seen:
            continue
        seen.add(name)
        if any(cache.get(body) is not None for body in bodies):
            plan += RequestPlan(prompts=1, cached=1)
        else:
            tokens = estimated_tokens(bodies[0])
            longest = longest_answer(bodies[0])
            plan += RequestPlan(1, 0, tokens, longest if mean is None else min(longest, round(mean)))
    return plan


def price(plan: RequestPlan, llm: Llm) -> float | None:
    """Return what a plan costs by the config's prices; None where it gives none."""
    if llm.price_per_million_input is None or llm.price_per_million_output is None:
        return None
    tokens = plan.prompt_tokens * llm.price_per_million_input + plan.completion_tokens * llm.price_per_million_output
    return tokens / 1_000_000


HIDDEN = "[key]"
MAX_MESSAGE = 300


class LanguageModel:
    """A study's language model, with its cache and its account.

    Parameters
    ----------
    name : str
        Its name in the study.
    llm : Llm
        Its options.
    cache : path
        The SQLite file with the answers.
    study : str
        The study whose account is kept.
    seed : int
        The study's seed; prompts take theirs from it.
    """

    def __init__(self, name: str, llm: Llm, *, cache: str | Path, study: str, seed: int = 0) -> None:
        self.name, self.llm, self.study, self.seed = name, llm, study, seed
        self.cache = ResponseCache(cache)
        self._key = ""
        self._schema_refused = False

    @classmethod
    def of(cls, plan: Plan, name: str) -> LanguageModel:
        """Return the language model that a study's config calls `name`."""
        return cls(
            name, plan.study.llms[name], cache=plan.study.llm_cache, study=plan.study.study, seed=plan.study.seed
        )

    def plan(self, prompts: Sequence[Prompt]) -> RequestPlan:
        """Return what `ask` would take; nothing is sent."""
        try:
            return request_plan(prompts, self.llm, self.cache)
        finally:
            self.cache.close()

    def ask(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """Return the reply to each prompt, from the cache where it is known.

        Raises
        ------
        InputError
            A request must be made and the key is missing or refused, the cap is reached, or the server stays away.
        """
        try:
            return asyncio.run(self._ask(prompts))
        finally:
            self.cache.close()

    async def _ask(self, prompts: Sequence[Prompt]) -> list[Reply]:
        replies: dict[int, Reply] = {}
        waiting: list[int] = []
        for number, prompt in enumerate(prompts):
            known = next(filter(None, map(self.cache.get, prompt.bodies(self.llm))), None)
            if known is None:
                waiting.append(number)
            else:
                replies[number] = known
        if waiting:
            async with self._connected() as client:
                await self._work(client, prompts, iter(waiting), len(waiting), replies)
        return [replies[number] for number in range(len(prompts))]

    async def _work(
        self, client: AsyncOpenAI, prompts: Sequence[Prompt], waiting: Iterator[int], count: int, replies: dict
    ) -> None:
        """Let `concurrency` workers take prompts; after a problem the requests under way still come to their end."""
        problems: list[InputError] = []
        progress = tqdm(total=count, desc=f"asking {self.name}", disable=None)

        async def worker() -> None:
            for number in waiting:
                try:
                    replies[number] = await self._answer(client, prompts[number])
                except InputError as problem:
                    problems.append(problem)
                progress.update()
                if problems:
                    return

        with progress:
            await asyncio.gather(*(worker() for _ in range(min(self.llm.concurrency, count))))
        if problems:
            raise problems[0]

    async def _answer(self, client: AsyncOpenAI, prompt: Prompt) -> Reply:
        """Return one prompt's reply; where the server knows no schemas and the config allows it, ask in words."""
        *by_schema, last = prompt.bodies(self.llm)
        for body in by_schema:
            if not self._schema_refused:
                reply = await self._request(client, body, in_words_next=True)
                if reply is not None:
                    return reply
                self._schema_refused = True
        return await self._request(client, last)

    async def _request(self, client: AsyncOpenAI, body: dict[str, Any], in_words_next: bool = False) -> Reply | None:
        """Return a request's reply, kept; None where it is refused as it stands and another way is left."""
        from openai import APIError, APIStatusError

        entry = self.cache.take(self.study, self.name, self.llm, most_tokens(body))
        try:
            completion = await client.chat.completions.create(**body)
        except APIStatusError as error:
            self.cache.settle(entry, None)
            if error.status_code in (400, 422) and in_words_next:
                return None
            raise self._problem(error, error.status_code) from None
        except (APIError, ValueError) as error:
            # No answer came, yet the server may have worked for it: the entry stays in the account.
            raise self._problem(error, None) from None
        reply = self._reply(completion)
        tokens = reply.prompt_tokens + reply.completion_tokens
        self.cache.settle(entry, tokens or most_tokens(body))
        return self.cache.put(body, reply)

    def _reply(self, completion: Any) -> Reply:
        """Return what came; a server may leave out or misname any part but the message itself."""
        choices = getattr(completion, "choices", None)
        message = getattr(choices[0], "message", None) if isinstance(choices, list) and choices else None
        if message is None:
            raise self._problem(ValueError("what came is no chat completion"), None)
        usage = getattr(completion, "usage", None)
        return Reply(
            content=self._hidden(_text(getattr(message, "content", None))),
            refusal=self._hidden(_text(getattr(message, "refusal", None))),
            finish_reason=self._hidden(_text(getattr(choices[0], "finish_reason", None))),
            prompt_tokens=_count(getattr(usage, "prompt_tokens", None)),
            completion_tokens=_count(getattr(usage, "completion_tokens", None)),
        )

    def _connected(self) -> AsyncOpenAI:
        from openai import AsyncOpenAI

        self._key = self._read_key()
        options = self.llm
        return AsyncOpenAI(
            api_key=self._key or "none", base_url=options.base_url, timeout=options.timeout, max_retries=options.retries
        )

    def _read_key(self) -> str:
        """Return the key, "" for a server that wants none; no error repeats it."""
        variable = self.llm.api_key_env
        if variable is None:
            return ""
        key = os.environ.get(variable, "").strip()
        if not key:
            raise InputError(
                f"llm {self.name!r} must be asked, and the environment variable {variable} holds no key",
                remedy=f"set {variable}, or use a cache of answers in which all are known (`llm_cache`)",
            )
        if not (key.isascii() and key.isprintable() and " " not in key):
            raise InputError(f"the environment variable {variable} holds what cannot be a key", allowed="ASCII text")
        return key

    def _problem(self, error: Exception, status: int | None) -> InputError:
        where = f"llm {self.name!r} at {self.llm.base_url}"
        kept = f"all answers so far are kept in {self.cache.path}"
        if status in (401, 403):
            # The server's own words are left out: some repeat the key.
            given = self.llm.api_key_env or "no key (api_key_env is empty)"
            return InputError(f"{where} refuses the key ({status})", remedy=f"check {given}; {kept}")
        said = one_line(self._hidden(str(error)), MAX_MESSAGE)
        if status is None or status in (408, 409, 429) or status >= 500:
            tries = f"after {self.llm.retries + 1} tries"
            return InputError(f"{where} gave no answer {tries} ({said})", remedy=f"{kept}; run again to go on")
        return InputError(f"{where} refuses the request ({said})", remedy=f"check the model's name and options; {kept}")

    def _hidden(self, text: str) -> str:
        return text.replace(self._key, HIDDEN) if self._key else text


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40 else 0
