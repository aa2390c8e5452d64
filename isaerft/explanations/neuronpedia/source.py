"""The three routes to explanations, in order: the bulk export, many latents at once for its gaps, single latents last.

A route that fails again and again is given up, and what it left is asked for by the next.

The registered source of explanations from Neuronpedia.

sources:
  neuronpedia:
    neuronpedia: {prefer: [gpt-4o-mini/oai_token-act-pair]}
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from tqdm import tqdm

from isaerft.config import Neuronpedia, Source
from isaerft.errors import InputError
from isaerft.explanations.base import check_indices
from isaerft.explanations.neuronpedia.client import Client, Failed
from isaerft.explanations.neuronpedia.entries import Place, Said, chosen, page_url, place_of
from isaerft.explanations.neuronpedia.export import ask_many, ask_one, list_page, read_batch
from isaerft.explanations.neuronpedia.store import STORE, Store

GIVE_UP = 5
MAX_PAGES = 10_000
T = TypeVar("T")
log = logging.getLogger(__name__)


async def fetch(options: Neuronpedia, place: Place, store: Store, latents: Iterable[int]) -> str:
    """Look up those latents that `store` does not know, and keep every answer there as it comes.

    Returns
    -------
    str
        Why look-ups failed, as far as any did; the latents are those that the store still does not know.

    Raises
    ------
    InputError
        Neuronpedia has none of the latents.
    """
    fetching = _Fetching(options, place, store, set(latents) - store.finished())
    if fetching.gaps:
        async with Client(options) as client:
            await fetching.run(client)
    return fetching.reason


class _Fetching:
    """One run: what is still to be looked up, and why the last failure failed."""

    def __init__(self, options: Neuronpedia, place: Place, store: Store, gaps: set[int]) -> None:
        self.options, self.place, self.store, self.gaps = options, place, store, gaps
        self.reason = ""

    async def run(self, client: Client) -> None:
        with tqdm(total=len(self.gaps), desc="Neuronpedia", unit="latent", disable=None) as self.bar:
            if self.options.bulk != "never":
                await self._bulk(client)
            await self._many(client)
            if self.gaps and not self.store.exists_there():
                await self._probe(client)
            await self._single(client)

    async def _bulk(self, client: Client) -> None:
        if self.options.bulk == "auto" and self._n_requests() < 2:
            return
        try:
            await self._list(client)
        except Failed as error:
            self._note("listing of the bulk export", error)
            return
        batches = self.store.batches()
        unread = [key for key, read in batches.items() if not read]
        # Once begun an export is read to its end, so that a run cut in two chooses from the same explanations.
        begun = len(unread) < len(batches)
        if self.options.bulk == "auto" and not begun and len(unread) > self._n_requests():
            log.info("the bulk export has %d batches; asking for %d latents instead", len(unread), len(self.gaps))
            return

        async def read(key: str) -> None:
            entries = await read_batch(client, self.place, key) or []
            self.store.add_batch(key, entries)
            self._done({latent for latent, _ in entries})

        await self._each(unread, read, "batch of the bulk export")

    async def _list(self, client: Client) -> None:
        for _ in range(MAX_PAGES):
            token = self.store.unlisted_from()
            if token is None:
                return
            page = await list_page(client, self.place, token)
            if page is None:
                raise Failed("status 404")
            self.store.add_page(token, page)
        raise Failed(f"more than {MAX_PAGES} pages")

    async def _many(self, client: Client) -> None:
        async def ask(latents: Sequence[int]) -> None:
            found = await ask_many(client, self.place, latents)
            self.store.add_many(found, set(latents) - set(found))
            self._done(set(found))

        gaps = sorted(self.gaps - self.store.left_out())
        size = self.options.batch_size
        await self._each([gaps[at : at + size] for at in range(0, len(gaps), size)], ask, "batch of latents")

    async def _probe(self, client: Client) -> None:
        """Ask for a few latents before many: a mistyped source would cost a request for each of its latents."""
        last = "404"
        answers: dict[int, list[Said] | None] = {}
        for latent in sorted(self.gaps)[:GIVE_UP]:
            try:
                answers[latent] = await ask_one(client, self.place, latent)
            except Failed as error:
                last = str(error)
            if answers.get(latent) is not None:
                for known, said in answers.items():
                    self._keep(known, said)
                return
        raise InputError(
            f"Neuronpedia has none of the {len(self.gaps)} latents asked for in"
            f" {self.place.model}/{self.place.layer} (last answer: {last})",
            remedy="check the source_id, and the network",
        )

    async def _single(self, client: Client) -> None:
        async def ask(latent: int) -> None:
            self._keep(latent, await ask_one(client, self.place, latent))

        await self._each(sorted(self.gaps), ask, "latent")

    async def _each(self, items: Sequence[T], ask: Callable[[T], Awaitable[None]], what: str) -> None:
        """Ask for every item, several at once; stop where `GIVE_UP` in a row fail."""
        waiting, in_a_row = iter(items), 0

        async def work() -> None:
            nonlocal in_a_row
            for item in waiting:
                if in_a_row >= GIVE_UP:
                    return
                try:
                    await ask(item)
                    in_a_row = 0
                except Failed as error:
                    in_a_row += 1
                    self._note(what, error)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self.options.concurrency, len(items))):
                group.create_task(work())

    def _n_requests(self) -> int:
        """Return how many requests the gaps take without the export."""
        return ceil(len(self.gaps) / self.options.batch_size)

    def _keep(self, latent: int, said: list[Said] | None) -> None:
        self.store.add_one(latent, said)
        self._done({latent})

    def _done(self, latents: set[int]) -> None:
        self.bar.update(len(self.gaps & latents))
        self.gaps -= latents

    def _note(self, what: str, error: Failed) -> None:
        self.reason = str(error)
        log.warning("%s: %s", what, error)


LOCK = ".neuronpedia.lock"
source_log = logging.getLogger(__name__)


def from_neuronpedia(
    source: Source, *, subject_dir: Path, d_sae: int, latents: np.ndarray | None = None
) -> pd.DataFrame:
    """Return Neuronpedia's explanations of the latents asked for, those that it has.

    Look-ups are kept in `subject_dir`/neuronpedia.sqlite; nothing that stands there is looked up again. Jobs whose
    subjects lie in one folder take turns, so that they keep the rate together.

    `attrs["counts"]` of the result: rows (explanations), other_side, not_chosen, unlabelled (latents without any) and
    failed (latents whose look-up failed).

    Raises
    ------
    InputError
        No source at Neuronpedia is named or known, it explains latents that the SAE does not have, a preferred maker
        explained nothing, or more look-ups failed than `max_failed_share` allows.
    """
    options = source.neuronpedia
    place = place_of(options.source_id, subject_dir)
    asked = np.arange(d_sae) if latents is None else latents
    path = subject_dir / STORE
    with _one_at_a_time(subject_dir.parent / LOCK), Store(path, place) as store:
        wanted = set(asked.tolist())
        reason = asyncio.run(fetch(options, place, store, wanted))
        failed = len(wanted - store.finished())
        known = store.said()
    check_indices(pd.Series([latent for latent, _ in known], dtype="int64"), d_sae)
    said = [(latent, one) for latent, one in known if latent in wanted]
    if failed > options.max_failed_share * len(wanted):
        raise InputError(
            f"{failed} of {len(wanted)} look-ups at Neuronpedia failed (last: {reason})",
            remedy=f"run it again, finished ones are kept in {path}; or allow some with max_failed_share",
        )
    frame = chosen(said, side=source.side, prefer=options.prefer)
    frame["url"] = [page_url(place, latent, options.base_url) for latent in frame["latent_index"]]
    explained = len({latent for latent, _ in said})
    frame.attrs["counts"] |= {"unlabelled": len(wanted) - explained - failed, "failed": failed}
    return frame


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Wait until no other process on this machine holds the lock; one that dies lets go of it."""
    with open(path, "ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
