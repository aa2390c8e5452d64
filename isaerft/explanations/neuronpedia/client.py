"""Answers from outside, made plain before anything reads them: unpacked, bounded in size, and really JSON.

Requests at a bounded rate, tried again where that can help: on 429, 5xx, a failing network, an unreadable answer.

Neuronpedia sends no Retry-After, so pauses double and are drawn at random (Brooker 2015, "Exponential backoff and
jitter"). The key goes into one header of requests to the API. It stands in no log, no error and no file, and where an
answer holds it, it is taken out.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import zlib
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from isaerft import __version__
from isaerft.config import Neuronpedia
from isaerft.errors import InputError

_GZIP = b"\x1f\x8b"
_MAX_LAYERS = 2  # a .gz object may be sent with Content-Encoding: gzip besides


class BadBody(Exception):
    """An answer that cannot be read; its text says why, without quoting it."""


def unpacked(data: bytes, limit: int) -> bytes:
    """Return `data` with gzip taken off, at most `limit` bytes.

    Raises
    ------
    BadBody
        Larger than that, cut off, or damaged.
    """
    for _ in range(_MAX_LAYERS):
        if not data.startswith(_GZIP):
            break
        data = _gunzip(data, limit)
    if len(data) > limit:
        raise BadBody(f"more than {limit} bytes")
    return data


def _gunzip(data: bytes, limit: int) -> bytes:
    """Unpack all members of a gzip stream, never more than one byte beyond the limit."""
    parts, size = [], 0
    while data:
        stream = zlib.decompressobj(wbits=31)
        try:
            part = stream.decompress(data, limit + 1 - size)
        except zlib.error:
            raise BadBody("damaged gzip") from None
        parts.append(part)
        size += len(part)
        if size > limit:
            raise BadBody(f"more than {limit} bytes when unpacked")
        if not stream.eof:
            raise BadBody("gzip that ends too early")
        data = stream.unused_data
    return b"".join(parts)


def as_json(data: bytes) -> Any:
    """Parse a JSON answer; HTML (an error page of something in between) and damage are told apart.

    Raises
    ------
    BadBody
        It is not JSON.
    """
    if data.lstrip()[:1] == b"<":
        raise BadBody("HTML in place of JSON")
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise BadBody("malformed JSON") from None


def as_json_lines(data: bytes) -> list[Any]:
    """Parse one JSON value a line; empty lines are left out.

    Raises
    ------
    BadBody
        A line is not JSON.
    """
    return [as_json(line) for line in data.split(b"\n") if line.strip()]


KEY = "NEURONPEDIA_API_KEY"
MAX_PAUSE = 60.0
MIN_REDACTED = 6
SLOWEST = 10  # times timeout_seconds, which bounds each piece of an answer: a whole answer
T = TypeVar("T")
log = logging.getLogger(__name__)


class Failed(Exception):
    """A request that failed for good; its text says why and quotes nothing of the answer."""


class Pace:
    """Lets requests start at least 1 / `per_second` seconds apart, and none during a pause.

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
        """Let no request start for so long."""
        self._next = max(self._next, asyncio.get_running_loop().time() + seconds)


class Client:
    """An HTTP client for Neuronpedia's API and its exports; use it as an asynchronous context manager.

    Parameters
    ----------
    options : Neuronpedia
        Rate, concurrency, timeouts, tries and addresses.

    Raises
    ------
    InputError
        The environment holds a key that cannot be one.
    """

    def __init__(self, options: Neuronpedia) -> None:
        self.options = options
        self._key = _key()
        self._pace = Pace(options.requests_per_second)
        self._places = asyncio.Semaphore(options.concurrency)
        self._limit = int(options.max_body_mb * 2**20)
        self._random = random.Random()  # of pauses alone, never of results
        self._http = httpx.AsyncClient(
            timeout=options.timeout_seconds,
            follow_redirects=False,
            headers={"User-Agent": f"isaerft/{__version__}", "Accept-Encoding": "gzip"},
            limits=httpx.Limits(max_connections=options.concurrency),
        )

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def api(self, method: str, path: str, read: Callable[[bytes], T], json: Any = None) -> T | None:
        """Ask the API and return what `read` makes of the answer; None for its 404, which is JSON, too."""
        headers = {"x-api-key": self._key} if self._key else {}
        url = self.options.base_url.rstrip("/") + path
        return await self._ask(method, url, read, as_json, headers=headers, json=json)

    async def export(self, path: str, read: Callable[[bytes], T], params: dict[str, str] | None = None) -> T | None:
        """Ask the bucket with the exports, without the key, and return what `read` makes of it; None for 404."""
        return await self._ask("GET", self.options.export_url.rstrip("/") + path, read, bytes, params=params)

    async def _ask(
        self, method: str, url: str, read: Callable[[bytes], T], read_404: Callable[[bytes], Any], **request: Any
    ) -> T | None:
        """Try until an answer can be read.

        Raises
        ------
        Failed
            No answer after all attempts, or one that a further try would not mend.
        """
        reason = ""
        for attempt in range(self.options.attempts):
            if attempt:
                await asyncio.sleep(self._pause(attempt))
            async with self._places:
                await self._pace.wait()
                try:
                    async with asyncio.timeout(SLOWEST * self.options.timeout_seconds):
                        status, body = await self._once(method, url, **request)
                    if status == httpx.codes.OK:
                        return read(self._without_key(unpacked(body, self._limit)))
                    if status == httpx.codes.NOT_FOUND:
                        read_404(unpacked(body, self._limit))
                        return None
                except (httpx.HTTPError, httpx.StreamError, TimeoutError, BadBody) as error:
                    # What httpx says may quote headers, so only its kind is told.
                    reason = str(error) if isinstance(error, BadBody) else type(error).__name__
                    continue
                except httpx.InvalidURL:
                    raise Failed("its address is none") from None
            reason = f"status {status}"
            if status == httpx.codes.TOO_MANY_REQUESTS:
                self._pace.pause(self._pause(attempt + 1))
            elif status < httpx.codes.INTERNAL_SERVER_ERROR:
                raise Failed(reason)
        raise Failed(f"{reason}, {self.options.attempts} times")

    async def _once(self, method: str, url: str, **request: Any) -> tuple[int, bytes]:
        """Return status and packed body of one try; a body beyond the limit is not read to its end."""
        async with self._http.stream(method, url, **request) as answer:
            parts, size = [], 0
            async for part in answer.aiter_raw():
                parts.append(part)
                size += len(part)
                if size > self._limit:
                    raise BadBody(f"more than {self._limit} bytes")
        return answer.status_code, b"".join(parts)

    def _pause(self, attempt: int) -> float:
        """Return how long to wait before try `attempt`, in seconds: half the doubled pause and a random part."""
        longest = min(MAX_PAUSE, self.options.backoff_seconds * 2 ** (attempt - 1))
        return longest * self._random.uniform(0.5, 1)

    def _without_key(self, body: bytes) -> bytes:
        if len(self._key) < MIN_REDACTED:
            return body
        return body.replace(self._key.encode(), b"[key]")


def _key() -> str:
    """Return the key of the environment, "" where there is none."""
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise InputError(f"{KEY} holds characters that no key has", remedy="set it again, or unset it: it is optional")
    return key
