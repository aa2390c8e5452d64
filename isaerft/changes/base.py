"""How change is scored: a measure turns a trained adapter into one number per latent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from isaerft.adapters.base import LatentAdapter
from isaerft.files import replacing
from isaerft.subjects.cache import CachedRows
from isaerft.subjects.load import LoadedSubject

COLUMNS = ("adapter", "measure", "seed", "latent_index", "change")


@dataclass(frozen=True)
class Trained:
    """A trained adapter on its subject, with the held-out rows that changes are scored on.

    Attributes
    ----------
    batch_size : int
        Rows per forward pass.
    """

    subject: LoadedSubject
    adapter: LatentAdapter
    heldout: CachedRows
    batch_size: int


Measure = Callable[[Trained], torch.Tensor]
"""Returns the signed change of every latent, (d_sae,): positive where training promoted the latent."""


def write_changes(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a table of changes (columns adapter, measure, seed, latent_index, change) as Parquet, atomically."""
    with replacing(path) as temporary:
        frame.to_parquet(temporary, index=False)
