"""How change is scored: a measure turns a trained adapter into one number per latent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from isaerft.adapters.base import LatentAdapter
from isaerft.adapters.shift import Shift
from isaerft.files import replacing
from isaerft.subjects.cache import Batch, CachedRows
from isaerft.subjects.load import LoadedSubject

COLUMNS = ("adapter", "measure", "seed", "latent_index", "change")


@dataclass(frozen=True)
class Trained:
    """A trained adapter on its subject, with the held-out rows that changes are scored on.

    A measure knows of an adapter only the three methods below. They are written here for an adapter on latents; what
    acts elsewhere in the model is a subclass (`isaerft.changes.pullback`).

    Attributes
    ----------
    batch_size : int
        Rows per forward pass.
    """

    subject: LoadedSubject
    adapter: LatentAdapter
    heldout: CachedRows
    batch_size: int

    def shift(self, batch: Batch) -> Shift:
        """Return the change of the latent activations of a batch's tokens."""
        return self.adapter.shift(batch.codes)

    def displacement(self, batch: Batch) -> torch.Tensor:
        """Return what really is added to the residual stream of a batch's tokens, (n_tokens, d_in)."""
        return self.shift(batch).residual(self.subject.dictionary.W_dec).to(batch.residual.dtype)

    def latent_parameter(self) -> torch.Tensor:
        """Return the adapter's own number for each latent, (d_sae,), 0 where the adapter leaves it alone."""
        return self.adapter.latent_parameter()


Measure = Callable[[Trained], torch.Tensor]
"""Returns the signed change of every latent, (d_sae,): positive where training promoted the latent."""


def write_changes(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a table of changes (columns adapter, measure, seed, latent_index, change) as Parquet, atomically."""
    with replacing(path) as temporary:
        frame.to_parquet(temporary, index=False)
