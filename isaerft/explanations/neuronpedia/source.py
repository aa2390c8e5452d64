"""The source `neuronpedia`: look up explanations by three routes and choose one per latent.

    sources:
      neuronpedia:
        neuronpedia: {prefer: [gpt-4o-mini/oai_token-act-pair]}

The routes are, in order: the bulk export, many latents at once for its gaps, and single latents. After repeated
failures the next route takes over. The export can be older than what the API knows, so a latent without an explanation
by the maker that is wanted most counts as a gap. Published scores come by the last route alone.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from isaerft.config import Neuronpedia, Source
from isaerft.errors import InputError
from isaerft.explanations.base import check_indices, names_of_maker
from isaerft.explanations.neuronpedia.api import list_page, read_batch, read_latent, read_latents
from isaerft.explanations.neuronpedia.client import Client, FailedRequest
from isaerft.explanations.neuronpedia.evidence import evidence_of
from isaerft.explanations.neuronpedia.records import Explanation, SourceId, choose, page_url, source_id_of
from isaerft.explanations.neuronpedia.store import STORE, Store
from isaerft.explanations.provenance import latents_to_compare
from isaerft.progress import Progress

GIVE_UP = 5
MAX_PAGES = 10_000
LOCK = ".neuronpedia.lock"
T = TypeVar("T")
log = logging.getLogger(__name__)


def from_neuronpedia(
    source: Source, *, subject_dir: Path, d_sae: int, latents: np.ndarray | None = None
) -> pd.DataFrame:
    """Return Neuronpedia's explanations of `latents`; see `isaerft.explanations.base.SourceFunction`.

    Look-ups are kept in `subject_dir`/neuronpedia.sqlite and not repeated. Jobs whose subjects are in one folder take
    turns, so that together they keep the rate.

    `attrs["counts"]` of the result: rows (explanations), other_maker, other_side, side_assumed, not_chosen, unlabeled
    (latents without any) and failed (latents whose look-up failed). `attrs["evidence"]` says by what the labels are
    recognized.

    Raises
    ------
    InputError
        No source at Neuronpedia is configured or known, it explains latents that the SAE does not have, no maker that
        is asked for explained anything, or more look-ups failed than `max_failed_share` allows.
    """
    options = source.neuronpedia
    source_id = source_id_of(options.source_id, subject_dir)
    wanted = set((np.arange(d_sae) if latents is None else latents).tolist())
    path = subject_dir / STORE
    with _one_at_a_time(subject_dir.parent / LOCK), Store(path, source_id) as store:
        reason = asyncio.run(fetch(options, source_id, store, wanted))
        failed = wanted - store.finished(**_needs(options))
        known = store.explanations()
        evidence = asyncio.run(evidence_of(options, source_id, store, latents_to_compare(subject_dir)))
    check_indices(pd.Series([latent for latent, _ in known], dtype="int64"), d_sae)
    found = [(latent, explanation) for latent, explanation in known if latent in wanted]
    if len(failed) > options.max_failed_share * len(wanted):
        raise InputError(
            f"{len(failed)} of {len(wanted)} look-ups at Neuronpedia failed (last: {reason})",
            remedy=f"run it again: finished ones are kept in {path}; or allow some with max_failed_share",
        )
    frame = choose(found, side=source.side, prefer=options.prefer, maker=options.maker, sides=options.sides)
    frame["url"] = [page_url(source_id, latent, options.base_url) for latent in frame["latent_index"]]
    unlabeled = wanted - failed - {latent for latent, _ in found}
    frame.attrs["counts"] |= {"unlabeled": len(unlabeled), "failed": len(failed)}
    frame.attrs["evidence"] = evidence
    return frame


def _needs(options: Neuronpedia) -> dict[str, Any]:
    """Return the arguments of `Store.finished`: what must be known of a latent."""
    return {"maker": options.maker or next(iter(options.prefer), ""), "scored": options.scores}


async def fetch(options: Neuronpedia, source_id: SourceId, store: Store, latents: Iterable[int]) -> str:
    """Look up the latents that `store` does not know, and store each answer on arrival.

    Returns
    -------
    str
        Why look-ups failed, "" if none did; the latents are those that the store still does not know.

    Raises
    ------
    InputError
        Neuronpedia has none of the latents.
    """
    run = _Fetch(options, source_id, store, set(latents) - store.finished(**_needs(options)))
    if run.gaps:
        async with Client(options) as client:
            await run.all_routes(client)
    return run.reason


class _Fetch:
    """One run: the latents still to look up, and the reason of the last failure."""

    def __init__(self, options: Neuronpedia, source_id: SourceId, store: Store, gaps: set[int]) -> None:
        self.options, self.source_id, self.store, self.gaps = options, source_id, store, gaps
        self.reason = ""

    async def all_routes(self, client: Client) -> None:
        with Progress(total=len(self.gaps), desc="Neuronpedia", unit="latent") as self.bar:
            if not self.options.scores:
                if self.options.bulk != "never":
                    await self._bulk(client)
                await self._many(client)
            if self.gaps and not self.store.source_exists():
                await self._probe(client)
            await self._single(client)

    async def _bulk(self, client: Client) -> None:
        if self.options.bulk == "auto" and self._n_requests() < 2:
            return
        try:
            await self._list(client)
        except FailedRequest as error:
            self._note("listing of the bulk export", error)
            return
        batches = self.store.batches()
        unread = [key for key, read in batches.items() if not read]
        # Once begun, an export is read to its end, so that an interrupted run chooses from the same explanations.
        begun = len(unread) < len(batches)
        if self.options.bulk == "auto" and not begun and len(unread) > self._n_requests():
            log.info("the bulk export has %d batches; looking up %d latents instead", len(unread), len(self.gaps))
            return

        async def read(key: str) -> None:
            rows = await read_batch(client, self.source_id, key) or []
            self.store.add_batch(key, rows)
            first = _needs(self.options)["maker"]
            self._done({latent for latent, one in rows if not first or first in names_of_maker(one.maker)})

        await self._each(unread, read, "batch of the bulk export")

    async def _list(self, client: Client) -> None:
        for _ in range(MAX_PAGES):
            token = self.store.next_page()
            if token is None:
                return
            page = await list_page(client, self.source_id, token)
            if page is None:
                raise FailedRequest("status 404")
            self.store.add_page(token, page)
        raise FailedRequest(f"more than {MAX_PAGES} pages")

    async def _many(self, client: Client) -> None:
        async def look_up(latents: Sequence[int]) -> None:
            found = await read_latents(client, self.source_id, latents)
            self.store.add_many(found, set(latents) - set(found))
            self._done(set(found) | (set(latents) & explained))

        explained = self.store.explained()
        gaps = sorted(self.gaps - self.store.skipped())
        size = self.options.batch_size
        await self._each([gaps[at : at + size] for at in range(0, len(gaps), size)], look_up, "batch of latents")

    async def _probe(self, client: Client) -> None:
        """Look up a few latents before many: a mistyped source would cost a request per latent."""
        last = "404"
        answers: dict[int, list[Explanation] | None] = {}
        for latent in sorted(self.gaps)[:GIVE_UP]:
            try:
                answers[latent] = await read_latent(client, self.source_id, latent)
            except FailedRequest as error:
                last = str(error)
            if answers.get(latent) is not None:
                for answered, explanations in answers.items():
                    self._keep(answered, explanations)
                return
        raise InputError(
            f"Neuronpedia has none of the {len(self.gaps)} latents in"
            f" {self.source_id.model}/{self.source_id.layer} (last answer: {last})",
            remedy="check the source_id, and the network",
        )

    async def _single(self, client: Client) -> None:
        async def look_up(latent: int) -> None:
            self._keep(latent, await read_latent(client, self.source_id, latent))

        await self._each(sorted(self.gaps), look_up, "latent")

    async def _each(self, items: Sequence[T], look_up: Callable[[T], Awaitable[None]], what: str) -> None:
        """Look up every item, several at once; stop after `GIVE_UP` failures in a row."""
        waiting, in_a_row = iter(items), 0

        async def work() -> None:
            nonlocal in_a_row
            for item in waiting:
                if in_a_row >= GIVE_UP:
                    return
                try:
                    await look_up(item)
                    in_a_row = 0
                except FailedRequest as error:
                    in_a_row += 1
                    self._note(what, error)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self.options.concurrency, len(items))):
                group.create_task(work())

    def _n_requests(self) -> int:
        """Return how many requests the latents take without the export."""
        return ceil(len(self.gaps) / self.options.batch_size)

    def _keep(self, latent: int, explanations: list[Explanation] | None) -> None:
        self.store.add_one(latent, explanations)
        self._done({latent})

    def _done(self, latents: set[int]) -> None:
        self.bar.update(len(self.gaps & latents))
        self.gaps -= latents

    def _note(self, what: str, error: FailedRequest) -> None:
        self.reason = str(error)
        log.warning("%s: %s", what, error)


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Wait until no other process on this machine holds the lock; a process that dies releases it."""
    with open(path, "ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
