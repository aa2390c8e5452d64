"""How change is scored: a measure turns a trained adapter into one number per latent.

parameter: the adapter's own trained number for each latent.

contribution: how much of each latent the adapter adds to the residual stream.

attribution: how much of the fall in held-out loss each latent's change brought about.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from isaerft.adapters.base import LatentAdapter, Shift
from isaerft.io import replacing
from isaerft.subjects.cache import Batch, CachedRows, completion_losses
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


def parameter(trained: Trained) -> torch.Tensor:
    """Return the trained parameter, (d_sae,), in the adapter's own units.

    The naive reading. It ignores how far a latent reaches the residual stream and whether it fires at all.
    """
    return trained.latent_parameter()


def contribution(trained: Trained) -> torch.Tensor:
    """Return the mean change of activation times decoder norm, (d_sae,), in the residual stream's units per token.

    (1 / T) sum_t (f'_ti - f_ti) * ||W_dec_i|| over the T tokens of the held-out rows: a scale counts only as far as its
    latent fires, and latents with different decoder norms become comparable.
    """
    device = trained.subject.model.device
    total = torch.zeros(trained.subject.dictionary.d_sae, device=device)
    n_tokens = 0
    with torch.no_grad():
        for batch in trained.heldout.batches(trained.batch_size):
            total += trained.shift(batch.to(device)).total()
            n_tokens += batch.codes.n_tokens
    return total / n_tokens * trained.subject.dictionary.decoder_norm


N_POINTS = 8


def attribution(trained: Trained) -> torch.Tensor:
    """Return the integrated gradient of the held-out loss along the learned change, (d_sae,), in nats per token.

    -(f' - f) * integral_0^1 dL(x + a (x' - x)) / df da, summed over tokens (Sundararajan et al. 2017), by
    Gauss-Legendre quadrature along what really is added to the residual stream. Positive where a latent's change lowers
    the loss; over latents it adds up to the fall in loss that the dictionary explains, for an adapter on latents all.
    """
    device = trained.subject.model.device
    points, weights = np.polynomial.legendre.leggauss(N_POINTS)
    total = torch.zeros(trained.subject.dictionary.d_sae, device=device)
    n_losses = 0
    for batch in trained.heldout.batches(trained.batch_size):
        moved = batch.to(device)
        with torch.no_grad():
            shift, step = trained.shift(moved), trained.displacement(moved)
        gradient = torch.zeros_like(step)
        for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
            gradient += weight * _loss_gradient(trained, moved, moved.residual + point * step)
        with torch.no_grad():
            total -= shift.against(trained.subject.dictionary.W_dec, gradient.float())
        n_losses += len(moved.labels)
    return total / n_losses


def _loss_gradient(trained: Trained, batch: Batch, residual: torch.Tensor) -> torch.Tensor:
    """Return the gradient of the summed loss with respect to the residual stream, (n_tokens, d_in)."""
    point = residual.detach().requires_grad_(True)
    loss = completion_losses(trained.subject, batch, point).sum()
    return torch.autograd.grad(loss, point)[0]
