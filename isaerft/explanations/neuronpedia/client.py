"""Requests to Neuronpedia at a bounded rate, retried where that can help: on 429, 5xx, network faults, bad answers.

Answers are untrusted: before use they are unpacked, bounded in size, and checked to be JSON.

Neuronpedia sends no Retry-After, so pauses double and are partly random (Brooker 2015, "Exponential backoff and
jitter"). It allows 25,000 requests in any hour from one address, whoever sends them, and answers say how many are left.
Near the end all requests wait, and after a 429 that names the hourly limit for up to an hour, whatever `attempts` says.

The key goes into one header of requests to the API and nowhere else: no log, error or file holds it, and it is removed
from answers that repeat it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from isaerft.config import Neuronpedia
from isaerft.errors import InputError
from isaerft.http import BadAnswer, BoundedClient
from isaerft.version import VERSION

KEY = "NEURONPEDIA_API_KEY"
MAX_PAUSE = 60.0
PAUSES_AN_HOUR = 60
# With so few requests of the hour left, all wait: those under way need some, and others at this address may, too.
FEW_LEFT = 100
MIN_REDACTED = 6
MAX_DIGITS = 18
# A whole answer may take this many times `timeout_seconds`, which bounds each piece of it.
MAX_TIMEOUTS = 10
T = TypeVar("T")
log = logging.getLogger(__name__)


class FailedRequest(Exception):
    """A request that failed for good; the message says why, without quoting the answer."""


class _Retryable(Exception):
    """A fault that a further attempt may not meet."""


class _TooManyRequests(_Retryable):
    """The server asked for fewer requests (429)."""


class Pace:
    """Spaces the starts of requests at least 1 / `per_second` seconds apart, and holds all of them during a pause.

    Parameters
    ----------
    per_second : float
        Requests per second.
    """

    def __init__(self, per_second: float) -> None:
        self._gap, self._next, self._turn = 1 / per_second, 0.0, asyncio.Lock()

    async def wait(self) -> None:
        """Return when the next request may start."""
        async with self._turn:
            now = asyncio.get_running_loop().time
            while (left := self._next - now()) > 0:
                await asyncio.sleep(left)
            self._next = now() + self._gap

    def pause(self, seconds: float) -> None:
        """Let no request start for `seconds`."""
        self._next = max(self._next, asyncio.get_running_loop().time() + seconds)


class Client:
    """An HTTP client for Neuronpedia's API and its exports; use it as an asynchronous context manager.

    Parameters
    ----------
    options : Neuronpedia
        Rate, concurrency, timeouts, attempts and addresses.
    rng : random.Random, optional
        Draws the random part of pauses, never of results.
    sleep : callable, optional
        Waits between attempts; takes seconds.

    Raises
    ------
    InputError
        The environment holds an invalid key.
    """

    def __init__(
        self,
        options: Neuronpedia,
        *,
        rng: random.Random | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.options = options
        self._rng, self._sleep = rng or random.Random(), sleep
        self._key = read_key()
        self._pace = Pace(options.requests_per_second)
        self._slots = asyncio.Semaphore(options.concurrency)
        self._http = BoundedClient(
            seconds=MAX_TIMEOUTS * options.timeout_seconds,
            limit=int(options.max_body_mb * 2**20),
            timeout=options.timeout_seconds,
            headers={"User-Agent": f"isaerft/{VERSION}"},
            limits=httpx2.Limits(max_connections=options.concurrency),
        )

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def api(
        self, method: str, path: str, read: Callable[[bytes], T], json: Any = None, *, attempts: int | None = None
    ) -> T | None:
        """Send a request to the API and return what `read` makes of the answer; None for its 404, which is JSON too.

        `attempts` replaces that of the options: a request that makes something must not be repeated blindly.
        """
        headers = {"x-api-key": self._key} if self._key else {}
        url = self.options.base_url.rstrip("/") + path
        return await self._request(method, url, read, as_json, attempts, headers=headers, json=json)

    async def export(self, path: str, read: Callable[[bytes], T], params: dict[str, str] | None = None) -> T | None:
        """Get an object of the export bucket, without the key, and return what `read` makes of it; None for 404."""
        return await self._request("GET", self.options.export_url.rstrip("/") + path, read, bytes, params=params)

    async def _request(
        self,
        method: str,
        url: str,
        read: Callable[[bytes], T],
        read_404: Callable[[bytes], Any],
        attempts: int | None = None,
        **request: Any,
    ) -> T | None:
        """Return what `read` makes of the answer, None for 404, retrying until it can be read.

        Raises
        ------
        FailedRequest
            All attempts failed, or the fault is not one that a further attempt could mend.
        """
        attempts = attempts or self.options.attempts
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_Retryable),
            stop=stop_after_attempt(attempts),
            wait=self._wait,
            after=self._slow_down,
            sleep=self._sleep,
            reraise=True,
        )
        try:
            return await retrying(self._attempt, method, url, read, read_404, request)
        except _Retryable as error:
            raise FailedRequest(f"{error}, {attempts} times") from None

    async def _attempt(
        self,
        method: str,
        url: str,
        read: Callable[[bytes], T],
        read_404: Callable[[bytes], Any],
        request: dict[str, Any],
    ) -> T | None:
        async with self._slots:
            try:
                answer = await self._answer(method, url, request)
                status = answer.status_code
                if status == httpx2.codes.OK:
                    return read(self._without_key(answer.content))
                if status == httpx2.codes.NOT_FOUND:
                    read_404(answer.content)
                    return None
            except BadAnswer as error:
                raise _Retryable(str(error)) from None
            except (httpx2.HTTPError, httpx2.StreamError) as error:
                # Messages of httpx2 may quote headers, so only the kind of error is reported.
                raise _Retryable(type(error).__name__) from None
            except httpx2.InvalidURL:
                raise FailedRequest("invalid address") from None
        reason = f"status {status}"
        if status == httpx2.codes.TOO_MANY_REQUESTS:
            raise _TooManyRequests(reason)
        if status >= httpx2.codes.INTERNAL_SERVER_ERROR:
            raise _Retryable(reason)
        raise FailedRequest(reason)

    async def _answer(self, method: str, url: str, request: dict[str, Any]) -> httpx2.Response:
        """Send one request when the rate allows it, and again while the hourly limit is reached, for up to an hour."""
        for _ in range(PAUSES_AN_HOUR):
            await self._pace.wait()
            answer = await self._http.request(method, url, **request)
            left = answer.headers.get("x-limit-remaining", "")
            full = answer.status_code == httpx2.codes.TOO_MANY_REQUESTS and b'"requestWindow"' in answer.content
            if full or (left.isdecimal() and len(left) < MAX_DIGITS and int(left) < FEW_LEFT):
                log.warning("Neuronpedia's hourly limit of requests is almost reached; pausing for %g s", MAX_PAUSE)
                self._pace.pause(MAX_PAUSE)
            if not full:
                break
        return answer

    def _wait(self, state: RetryCallState) -> float:
        """Return the pause after a failed attempt, in seconds: half of the doubled pause, and a random part."""
        longest = min(MAX_PAUSE, self.options.backoff_seconds * 2 ** (state.attempt_number - 1))
        return float(longest * self._rng.uniform(0.5, 1))

    def _slow_down(self, state: RetryCallState) -> None:
        """Hold all requests for a while after one that came too fast."""
        if state.outcome is not None and isinstance(state.outcome.exception(), _TooManyRequests):
            self._pace.pause(self._wait(state))

    def _without_key(self, body: bytes) -> bytes:
        if len(self._key) < MIN_REDACTED:
            return body
        return body.replace(self._key.encode(), b"[key]")


def as_json(data: bytes) -> Any:
    """Parse a JSON answer; HTML (an error page of some proxy) and damage have different messages.

    Raises
    ------
    BadAnswer
        It is not JSON.
    """
    if data.lstrip()[:1] == b"<":
        raise BadAnswer("HTML instead of JSON")
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise BadAnswer("malformed JSON") from None


def as_json_lines(data: bytes) -> list[Any]:
    """Parse one JSON value per line; empty lines are skipped.

    Raises
    ------
    BadAnswer
        A line is not JSON.
    """
    return [as_json(line) for line in data.split(b"\n") if line.strip()]


def read_key() -> str:
    """Return the key in the environment, "" if there is none."""
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise InputError(f"{KEY} does not hold a valid key", remedy="set it again, or unset it: it is optional")
    return key
