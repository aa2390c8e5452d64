"""The client: bounded answers, a bounded rate, and retries only where they can help."""

import asyncio
import random
import time
from itertools import pairwise

import pytest

from isaerft.config import Neuronpedia
from isaerft.explanations.neuronpedia.client import Client, FailedRequest, Pace, as_json, as_json_lines
from isaerft.http import BadAnswer


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 10_000])
def test_what_is_no_json_is_a_bad_body_and_nothing_else(text):
    with pytest.raises(BadAnswer):
        as_json(text)


def test_html_is_told_apart_and_one_bad_line_spoils_a_batch():
    with pytest.raises(BadAnswer, match="HTML"):
        as_json(b"\n <html>")
    assert as_json_lines(b'{"a": 1}\n\n{"a": 2}\n') == [{"a": 1}, {"a": 2}]
    with pytest.raises(BadAnswer):
        as_json_lines(b'{"a": 1}\n{"a"')


def test_requests_start_no_sooner_than_the_rate_allows_and_not_in_a_pause():
    async def starts():
        pace, times = Pace(100), []

        async def one():
            await pace.wait()
            times.append(time.monotonic())
            if len(times) == 10:
                pace.pause(0.2)

        await asyncio.gather(*(one() for _ in range(20)))
        return times

    times = asyncio.run(starts())
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert min(gaps) >= 0.0099
    assert max(gaps) >= 0.199
    assert len([gap for gap in gaps if gap >= 0.199]) == 1


def pauses(serve, fault, **options):
    """Ask a server that always meets `fault`; return the message of the failure and the pauses between attempts."""
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    async def run(server):
        settings = server.options | {"attempts": 9, "backoff_seconds": 4.0} | options
        async with Client(Neuronpedia(**settings), rng=random.Random(0), sleep=sleep) as client:
            client._pace.pause = lambda seconds: slept.append(-seconds)
            with pytest.raises(FailedRequest) as caught:
                await client.api("GET", "/feature/gemma-2-2b/20-gemmascope-res-16k/0", as_json)
        return str(caught.value)

    with serve({0: []}, always={"feature": fault}) as server:
        return asyncio.run(run(server)), slept


def test_pauses_double_up_to_a_minute_and_at_least_half_of_each_is_kept(serve):
    reason, slept = pauses(serve, "500")
    assert reason == "status 500, 9 times"
    longest = [4, 8, 16, 32, 60, 60, 60, 60]
    assert len(slept) == len(longest)
    assert all(most / 2 <= pause <= most for pause, most in zip(slept, longest, strict=True))
    assert len(set(slept)) == len(slept)
    assert pauses(serve, "500")[1] == slept  # drawn by the generator that was given


def test_after_too_many_requests_all_requests_are_held_also_after_the_last_attempt(serve):
    reason, slept = pauses(serve, "429", attempts=3)
    assert reason == "status 429, 3 times"
    held, waited = [-s for s in slept if s < 0], [s for s in slept if s > 0]
    assert (len(held), len(waited)) == (3, 2)
    assert all(most / 2 <= pause <= most for pause, most in zip(held, (4, 8, 16), strict=True))


def test_a_refused_request_is_not_repeated(serve):
    assert pauses(serve, "403") == ("status 403", [])
