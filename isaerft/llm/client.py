"""Ask an OpenAI-compatible server: concurrent requests, replies kept as they arrive, cost known in advance.

The openai package makes the requests. It repeats them after 408, 409, 429, 5xx and broken connections, with growing
random pauses or after the server's own Retry-After; what is no completion is asked for again here. What a server
refuses of a request is left out (`isaerft.llm.dialect`). A server that stays unreachable, a refused key or a reached
cap ends the run with one line of explanation; the replies so far are in the cache, and the next run continues there.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isaerft.config import Llm, Plan
from isaerft.errors import InputError, one_line
from isaerft.llm.cache import ResponseCache
from isaerft.llm.dialect import Dialect, complaint
from isaerft.llm.prompts import Prompt, Reply, canonical
from isaerft.progress import Progress

if TYPE_CHECKING:
    from openai import AsyncOpenAI

# About 4 characters make a token of English text. Exact counts need each model's own tokenizer, which many servers do
# not publish and which nothing here could fetch before the first request.
CHARACTERS_PER_TOKEN = 4
HIDDEN = "[key]"
MAX_MESSAGE = 300
MAX_BYTES = 2**24
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
"""Seconds before an answer that is no completion is asked for again: the first pause, doubled up to the longest."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RequestPlan:
    """The cost of a set of prompts.

    Attributes
    ----------
    prompts : int
        Distinct prompts.
    cached : int
        Those with an answer in the cache.
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

    def price(self, llm: Llm) -> float | None:
        """Return the price by the rates in the config; None where it gives none."""
        if llm.price_per_million_input is None or llm.price_per_million_output is None:
            return None
        price = self.prompt_tokens * llm.price_per_million_input + self.completion_tokens * llm.price_per_million_output
        return price / 1_000_000


class LanguageModel:
    """A study's language model, with its cache and its account.

    Parameters
    ----------
    name : str
        Its name in the study.
    llm : Llm
        Its options.
    cache : path
        The SQLite file of replies.
    study : str
        The study whose account is kept.
    seed : int
        The study's seed; prompts take theirs from it.
    """

    def __init__(self, name: str, llm: Llm, *, cache: str | Path, study: str, seed: int = 0) -> None:
        self.name, self.llm, self.study, self.seed = name, llm, study, seed
        self.cache = ResponseCache(cache)
        self._key = ""
        self._dialect = Dialect.of(llm)

    @classmethod
    def of(cls, plan: Plan, name: str) -> LanguageModel:
        """Return the language model that a study's config calls `name`."""
        study = plan.study
        return cls(name, study.llms[name], cache=study.llm_cache, study=study.study, seed=study.seed)

    def plan(self, prompts: Sequence[Prompt]) -> RequestPlan:
        """Return what `ask` would take; nothing is sent.

        Answers are estimated by the mean length of the model's replies in the cache, or by the longest allowed where
        there are none.
        """
        try:
            return self._plan(prompts)
        finally:
            self.cache.close()

    def ask(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """Return the reply to each prompt, from the cache where it holds an answer. Equal prompts are sent once.

        A reply in the cache that holds no answer is asked for again, once in a call. Where that cannot be done (no key,
        no server, a cap), it counts as before, so that who has the cache gets the same results.

        Raises
        ------
        InputError
            A request must be made and the key is missing or refused, a cap is reached, or the server does not answer.
        """
        distinct = list(dict.fromkeys(prompts))
        try:
            replies = dict(zip(distinct, asyncio.run(self._ask(distinct)), strict=True))
        finally:
            self.cache.close()
        return [replies[prompt] for prompt in prompts]

    def _plan(self, prompts: Sequence[Prompt]) -> RequestPlan:
        mean = self.cache.mean_completion_tokens(self.llm.model)
        total, seen = RequestPlan(), set()
        for prompt in prompts:
            requests = prompt.requests(self.llm)
            name = canonical(requests[0])
            if name in seen:
                continue
            seen.add(name)
            known = self._known(prompt)
            if known is not None and prompt.is_answered_by(known):
                total += RequestPlan(prompts=1, cached=1)
                continue
            longest = _longest_answer(requests[0])
            answer = longest if mean is None else min(longest, round(mean))
            total += RequestPlan(1, 0, math.ceil(len(name) / CHARACTERS_PER_TOKEN), answer)
        return total

    async def _ask(self, prompts: Sequence[Prompt]) -> list[Reply]:
        replies: dict[int, Reply] = {}
        failed: dict[int, Reply] = {}
        waiting: list[int] = []
        for number, prompt in enumerate(prompts):
            known = self._known(prompt)
            if known is not None and prompt.is_answered_by(known):
                replies[number] = known
                continue
            waiting.append(number)
            if known is not None:
                failed[number] = known
        if waiting:
            try:
                async with self._client() as client:
                    await self._work(client, prompts, iter(waiting), len(waiting), replies)
            except InputError as problem:
                again = [number for number in waiting if number not in replies]
                if not failed.keys() >= set(again):
                    raise
                log.warning("%d failed replies count as before; they could not be asked again: %s", len(again), problem)
                replies |= {number: failed[number] for number in again}
        return [replies[number] for number in range(len(prompts))]

    def _known(self, prompt: Prompt) -> Reply | None:
        """Return the reply to a prompt in the cache, one that holds an answer before one that does not."""
        known = list(filter(None, map(self.cache.get, prompt.requests(self.llm))))
        return next(filter(prompt.is_answered_by, known), known[0] if known else None)

    async def _work(
        self,
        client: AsyncOpenAI,
        prompts: Sequence[Prompt],
        waiting: Iterator[int],
        count: int,
        replies: dict[int, Reply],
    ) -> None:
        """Let `concurrency` workers take prompts; after a problem the requests under way are still finished."""
        problems: list[InputError] = []
        progress = Progress(total=count, desc=f"asking {self.name}")

        async def worker() -> None:
            for number in waiting:
                try:
                    replies[number] = await self._reply_to(client, prompts[number])
                except InputError as problem:
                    problems.append(problem)
                progress.update()
                if problems:
                    return

        with progress:
            await asyncio.gather(*(worker() for _ in range(min(self.llm.concurrency, count))))
        if problems:
            raise problems[0]

    async def _reply_to(self, client: AsyncOpenAI, prompt: Prompt) -> Reply:
        """Return the reply to a prompt; what the server refuses of a request is left out, here and from then on."""
        while True:
            dialect = self._dialect
            try:
                return await self._send(client, prompt, dialect)
            except _Refused as refused:
                if self._dialect != dialect:
                    continue  # another request has found out meanwhile
                changed = dialect.after(refused.status, refused.complaint)
                if changed is None:
                    raise refused.problem from None
                self._dialect = changed
                reason = one_line(self._without_key(refused.complaint), MAX_MESSAGE)
                log.warning("llm %r refuses a request (%s); it now gets %s", self.name, reason, changed.told(dialect))

    async def _send(self, client: AsyncOpenAI, prompt: Prompt, dialect: Dialect) -> Reply:
        """Send a request and keep its reply.

        Raises
        ------
        _Refused
            The server refuses the request or fails on it.
        InputError
            There is no reply.
        """
        from openai import APIError, APIStatusError

        request = prompt.request(self.llm, by_schema=dialect.by_schema)
        sent = dialect.written(request, self.llm)
        reply, tried = None, 0
        while reply is None:
            entry = self.cache.take(self.study, self.name, self.llm, _most_tokens(sent))
            try:
                reply = self._read(await client.chat.completions.create(**sent))
            except APIStatusError as error:
                self.cache.settle(entry, None)
                reason = complaint(error.body)
                problem = self._problem(error, error.status_code, reason)
                raise _Refused(error.status_code, reason, problem) from None
            except (APIError, ValueError) as error:
                # No reply came, yet the server may have worked for it: the entry stays in the account.
                if isinstance(error, APIError) or tried == self.llm.retries:
                    raise self._problem(error, None) from None
                # openai itself does not ask again after a page or cut JSON.
                await asyncio.sleep(min(FIRST_PAUSE * 2**tried, LONGEST_PAUSE))
                tried += 1
        tokens = reply.prompt_tokens + reply.completion_tokens
        self.cache.settle(entry, tokens or _most_tokens(sent))
        return self.cache.put(request, reply, sent=sent, is_answer=prompt.is_answered_by)

    def _read(self, completion: Any) -> Reply:
        """Return a completion as a reply; a server may leave out or misname any part but the message itself.

        Raises
        ------
        _NoCompletion
            It has no message.
        """
        choices = getattr(completion, "choices", None)
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = getattr(choice, "message", None)
        if message is None:
            reason = complaint(getattr(completion, "error", None)) or "the answer is not a chat completion"
            raise _NoCompletion(reason)
        usage = getattr(completion, "usage", None)
        return Reply(
            content=self._without_key(_text(getattr(message, "content", None))),
            refusal=self._without_key(_text(getattr(message, "refusal", None))),
            finish_reason=self._without_key(_text(getattr(choice, "finish_reason", None))),
            prompt_tokens=_count(getattr(usage, "prompt_tokens", None)),
            completion_tokens=_count(getattr(usage, "completion_tokens", None)),
        )

    def _client(self) -> AsyncOpenAI:
        from httpx2 import Limits
        from openai import AsyncOpenAI

        from isaerft.http import BoundedClient

        self._key = self._read_key()
        options = self.llm
        return AsyncOpenAI(
            api_key=self._key or "none",
            base_url=options.base_url,
            timeout=options.timeout,
            max_retries=options.retries,
            http_client=BoundedClient(
                seconds=options.timeout, limit=MAX_BYTES, limits=Limits(max_connections=options.concurrency)
            ),
        )

    def _read_key(self) -> str:
        """Return the key, "" for a server that needs none; no error repeats it."""
        variable = self.llm.api_key_env
        if variable is None:
            return ""
        key = os.environ.get(variable, "").strip()
        if not key:
            raise InputError(
                f"llm {self.name!r} must be asked, but the environment variable {variable} holds no key",
                remedy=f"set {variable}, or use a cache that holds all replies (`llm_cache`)",
            )
        if not (key.isascii() and key.isprintable() and " " not in key):
            raise InputError(f"the environment variable {variable} does not hold a valid key", allowed="ASCII text")
        return key

    def _problem(self, error: Exception, status: int | None, reason: str = "") -> InputError:
        where = f"llm {self.name!r} at {self.llm.base_url}"
        kept = f"all answers so far are kept in {self.cache.path}"
        if status in (401, 403):
            # The server's own words are left out: some repeat the key.
            variable = self.llm.api_key_env or "no key (api_key_env is empty)"
            return InputError(f"{where} refuses the key ({status})", remedy=f"check {variable}; {kept}")
        if status and 300 <= status < 400:
            return InputError(
                f"{where} redirects to another address ({status})",
                remedy=f"check base_url, or give the other address there: no redirect is followed; {kept}",
            )
        said = f"{status}: {reason}" if status and reason else str(error.__cause__ or error)
        reason = one_line(self._without_key(said), MAX_MESSAGE)
        options = self._dialect.options(self.llm)
        if status is None or status in (408, 409, 429) or status >= 500:
            tries = f"after {self.llm.retries + 1} tries"
            refused = f"; if it fails on a part of the request, leave that out: {options}" if status == 500 else ""
            return InputError(
                f"{where} gave no answer {tries} ({reason})", remedy=f"{kept}; run again to continue{refused}"
            )
        return InputError(
            f"{where} refuses the request ({reason})",
            remedy=f"check the model's name, or leave out what the server does not know: {options}; {kept}",
        )

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, HIDDEN) if self._key else text


class _NoCompletion(ValueError):
    """An answer that is no chat completion."""


class _Refused(Exception):
    """A server's refusal of a request, and the error that it is where nothing can be changed about the request."""

    def __init__(self, status: int, complaint: str, problem: InputError) -> None:
        super().__init__(status)
        self.status, self.complaint, self.problem = status, complaint, problem


def _most_tokens(request: dict[str, Any]) -> int:
    """Return how many tokens a request can use at most: no token is shorter than a byte."""
    return len(canonical(request)) + _longest_answer(request)


def _longest_answer(request: dict[str, Any]) -> int:
    """Return the longest answer that a request allows, in tokens."""
    return int(request.get("max_completion_tokens") or request["max_tokens"])


def _text(value: object) -> str:
    """Return text as text; of a list of parts, those that are text (thoughts are not) are joined."""
    if isinstance(value, list):
        return "".join(_text(part["text"]) for part in value if isinstance(part, dict) and _is_text(part))
    return value if isinstance(value, str) else ""


def _is_text(part: dict[str, object]) -> bool:
    return part.get("type", "text") in ("text", "output_text") and isinstance(part.get("text"), str)


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40 else 0
