"""The registered source of explanations from Neuronpedia.

sources:
  neuronpedia:
    neuronpedia: {prefer: [gpt-4o-mini/oai_token-act-pair]}
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from isaerft.config import Source
from isaerft.errors import InputError
from isaerft.explanations.base import check_indices
from isaerft.explanations.neuronpedia.choice import chosen
from isaerft.explanations.neuronpedia.fetch import fetch
from isaerft.explanations.neuronpedia.identifiers import page_url, place_of
from isaerft.explanations.neuronpedia.store import STORE, Store
from isaerft.registry import SOURCES

LOCK = ".neuronpedia.lock"
log = logging.getLogger(__name__)


@SOURCES("neuronpedia")
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
