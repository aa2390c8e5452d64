"""Answers from outside, made plain before anything reads them: unpacked, bounded in size, and really JSON."""

from __future__ import annotations

import json
import zlib
from typing import Any

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
