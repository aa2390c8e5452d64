"""Answers come whole and within bounds of time and size, or not at all, and from no other server."""

import asyncio
import gzip
import runpy
import time
import tracemalloc
from pathlib import Path

import httpx2
import pytest

from isaerft.http import BadAnswer, BoundedClient, unpacked

Wire = runpy.run_path(str(Path(__file__).parent / "servers/wire.py"))["Wire"]


def test_gzip_is_taken_off_once_twice_and_in_members():
    packed = gzip.compress(b"a" * 100, mtime=0) + gzip.compress(b"b", mtime=0)
    assert unpacked(b"plain", 10) == b"plain"
    assert unpacked(packed, 101) == b"a" * 100 + b"b"
    assert unpacked(gzip.compress(packed), 101) == b"a" * 100 + b"b"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"x" * 11, "more than 10 bytes"),
        (gzip.compress(b"x" * 10_000_000, mtime=0), "when unpacked"),
        (gzip.compress(b"x" * 10, mtime=0) + gzip.compress(b"y", mtime=0), "when unpacked"),
        (gzip.compress(b"hello", mtime=0)[:-9], "truncated"),
        (gzip.compress(b"hello", mtime=0) + b"junk", "damaged"),
    ],
)
def test_a_body_too_large_cut_or_damaged_is_refused(data, reason):
    with pytest.raises(BadAnswer, match=reason):
        unpacked(data, 10)


def get(url, *, seconds=5.0, limit=2**16, **options):
    async def run():
        async with BoundedClient(seconds=seconds, limit=limit) as client:
            return await client.get(url, **options)

    return asyncio.run(run())


def test_a_byte_at_a_time_is_given_up_when_the_whole_time_is_over():
    with Wire(fault="loris", pause=0.3) as wire:
        started = time.monotonic()
        with pytest.raises(BadAnswer, match=r"no whole answer within 0\.1 s"):
            get(wire.url, seconds=0.1, timeout=5)
        assert time.monotonic() - started < 3  # of 5.4


def test_a_body_without_end_is_given_up_at_the_limit():
    with Wire(fault="endless") as wire:
        tracemalloc.start()
        try:
            with pytest.raises(BadAnswer, match="more than 65536 bytes"):
                get(wire.url)
            assert tracemalloc.get_traced_memory()[1] < 2**23
        finally:
            tracemalloc.stop()


def test_a_compressed_answer_is_unpacked_and_a_damaged_one_refused():
    with Wire() as wire:
        answer = get(wire.url)
        assert wire.headers[0]["Accept-Encoding"] == "gzip"
    assert (answer.status_code, answer.content) == (200, b"{}" * 9)
    with Wire(fault="gzip") as wire, pytest.raises(BadAnswer, match="damaged gzip"):
        get(wire.url)


@pytest.mark.parametrize("fault", ["loop", "elsewhere"])
def test_no_redirect_is_followed_even_if_a_caller_asks_for_it(fault):
    with Wire(fault=fault) as wire:
        assert get(wire.url, follow_redirects=True).status_code == 307
        assert len(wire.seen) == 1
        assert not (wire.sink and wire.sink.seen)


@pytest.mark.parametrize("fault", ["long", "closed", "tls"])
def test_a_broken_answer_is_an_error_of_httpx(fault):
    with Wire(fault=fault) as wire, pytest.raises(httpx2.HTTPError):
        get(wire.url)
