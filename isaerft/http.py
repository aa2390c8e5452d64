"""Answers of servers, bounded as a whole in time and size, compressed or not.

httpx bounds the time to each next piece of an answer: a byte a second would never end, and an endless answer would fill
the memory.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import Any

import httpx

_GZIP = b"\x1f\x8b"
_MAX_LAYERS = 2  # a .gz object may be sent with Content-Encoding: gzip besides
_OF_THE_WIRE = ("content-encoding", "content-length", "transfer-encoding")


class BadAnswer(httpx.RequestError):
    """An answer that cannot be read; the message says why, without quoting it."""


class BoundedClient(httpx.AsyncClient):
    """A client whose answers come whole and unpacked, or not at all. It follows no redirects.

    Parameters
    ----------
    seconds : float
        Longest time of a request, from its start to the end of its answer.
    limit : int
        Most bytes of an answer, compressed and unpacked.
    **options
        As for `httpx.AsyncClient`.
    """

    def __init__(self, *, seconds: float, limit: int, **options: Any) -> None:
        super().__init__(**options, follow_redirects=False)
        self.headers["Accept-Encoding"] = "gzip"
        self._seconds, self._limit = seconds, limit

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request and return its whole answer.

        Raises
        ------
        BadAnswer
            It takes too long, is too large, or is damaged.
        httpx.HTTPError
            There is no answer.
        """
        # Not even a caller that asks for it follows a redirect: it would bring the request to a server of another's
        # choice.
        options |= {"stream": True, "follow_redirects": False}
        try:
            async with asyncio.timeout(self._seconds):
                answer = await super().send(request, **options)
                try:
                    body = await self._read(answer)
                finally:
                    await answer.aclose()
        except TimeoutError:
            raise BadAnswer(f"no whole answer within {self._seconds:g} s") from None
        return httpx.Response(
            answer.status_code,
            headers=[(name, value) for name, value in answer.headers.multi_items() if name not in _OF_THE_WIRE],
            content=unpacked(body, self._limit),
            request=request,
            extensions=answer.extensions,
        )

    async def _read(self, answer: httpx.Response) -> bytes:
        parts, size = [], 0
        async for part in answer.aiter_raw():
            parts.append(part)
            size += len(part)
            if size > self._limit:
                raise BadAnswer(f"more than {self._limit} bytes")
        return b"".join(parts)


def unpacked(data: bytes, limit: int) -> bytes:
    """Return `data` without gzip, at most `limit` bytes.

    Raises
    ------
    BadAnswer
        It is larger, truncated or damaged.
    """
    for _ in range(_MAX_LAYERS):
        if not data.startswith(_GZIP):
            break
        data = _gunzip(data, limit)
    if len(data) > limit:
        raise BadAnswer(f"more than {limit} bytes")
    return data


def _gunzip(data: bytes, limit: int) -> bytes:
    """Unpack all members of a gzip stream, at most one byte more than the limit."""
    parts, size = [], 0
    while data:
        stream = zlib.decompressobj(wbits=31)
        try:
            part = stream.decompress(data, limit + 1 - size)
        except zlib.error:
            raise BadAnswer("damaged gzip") from None
        parts.append(part)
        size += len(part)
        if size > limit:
            raise BadAnswer(f"more than {limit} bytes when unpacked")
        if not stream.eof:
            raise BadAnswer("truncated gzip")
        data = stream.unused_data
    return b"".join(parts)
