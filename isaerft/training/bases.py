"""Bases: the directions that a linear map of the residual stream may read and write.

All bases are used alike: what is read has a root mean square of 1 over the tokens that predict the completions, and
what is written has norm 1. So the size of a map's numbers is that of what they do, whatever the basis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from isaerft.subjects.cache import Batch, CachedRows, bos_mask, completion_losses
from isaerft.subjects.device import in_float64
from isaerft.subjects.load import LoadedSubject
from isaerft.subjects.untrained import untrained_like

N_MATCHED = 20_000
"""Tokens on which an untrained dictionary's firing rates are matched."""
TINY = 1e-12


@dataclass(frozen=True)
class Basis:
    """Directions to read, and as many to write.

    Attributes
    ----------
    read : callable
        Returns what each direction reads of a batch, (n_tokens, n).
    scale : (n,)
        Factor by which a direction's signal gets a root mean square of 1; 0 where it reads nothing.
    directions : (n, d_model)
        What each direction writes, of norm 1.
    """

    read: Callable[[Batch], torch.Tensor]
    scale: torch.Tensor
    directions: torch.Tensor

    def signals(self, batch: Batch, chosen: torch.Tensor | None = None) -> torch.Tensor:
        """Return the scaled signals of all directions, or of the chosen ones, (n_tokens, n)."""
        raw = self.read(batch)
        return raw * self.scale if chosen is None else raw[:, chosen] * self.scale[chosen]


def basis_of(family: str, subject: LoadedSubject, rows: CachedRows, seed: int, batch_size: int) -> Basis:
    """Return the basis of a family of maps; see `config.LossCurves.families`.

    Parameters
    ----------
    rows : CachedRows
        Training rows, from which scales, axes and firing rates are taken.
    seed : int
        Draws what is random.
    """
    dictionary = subject.dictionary
    if family in ("latents", "rank_latents"):
        return _scaled(lambda batch: batch.codes.dense(), dictionary.decoder, rows, subject, batch_size)
    if family == "random_latents":
        drawn = untrained_like(dictionary, _residual(subject, rows, batch_size)[:N_MATCHED], seed)

        def read(batch: Batch) -> torch.Tensor:
            return drawn.encode_dense(batch.residual.float()) * _is_text(subject, batch)

        return _scaled(read, drawn.W_dec, rows, subject, batch_size)
    axes = torch.eye(dictionary.d_in, device=subject.model.device)
    if family == "principal":
        exact = in_float64(_residual(subject, rows, batch_size))
        axes = torch.linalg.eigh(exact.T @ exact).eigenvectors.flip(1).float()
    elif family == "random":
        axes = torch.linalg.qr(torch.randn(axes.shape, generator=torch.Generator().manual_seed(seed)))[0].to(axes)
    return _scaled(
        lambda batch: batch.residual.float() * _is_text(subject, batch) @ axes, axes.T, rows, subject, batch_size
    )


def _scaled(
    read: Callable[[Batch], torch.Tensor],
    written: torch.Tensor,
    rows: CachedRows,
    subject: LoadedSubject,
    batch_size: int,
) -> Basis:
    squares, n_tokens = torch.zeros(len(written), device=written.device), 0
    for batch in rows.batches(batch_size):
        moved = batch.to(subject.model.device)
        squares += read(moved)[moved.predicts].square().sum(0)
        n_tokens += moved.n_terms
    rms = (squares / n_tokens).sqrt()
    scale = torch.where(rms > 0, 1 / rms.clamp_min(TINY), 0.0)
    return Basis(read, scale, written / written.norm(dim=1, keepdim=True).clamp_min(TINY))


def _is_text(subject: LoadedSubject, batch: Batch) -> torch.Tensor:
    return ~bos_mask(subject, batch)[:, None]


def _residual(subject: LoadedSubject, rows: CachedRows, batch_size: int) -> torch.Tensor:
    """Return the residual stream at the tokens that predict the completions, (n_tokens, d_model) float32."""
    parts = [batch.residual[batch.predicts].float() for batch in rows.batches(batch_size)]
    return torch.cat(parts).to(subject.model.device)


def gradients(subject: LoadedSubject, rows: CachedRows, batch_size: int) -> list[torch.Tensor]:
    """Return the loss's gradient with respect to the residual stream before training, (n_tokens, d_model) a batch."""
    found = []
    for batch in rows.batches(batch_size):
        moved = batch.to(subject.model.device)
        moved = replace(moved, residual=moved.residual.detach().requires_grad_(True))
        loss = completion_losses(subject, moved, moved.residual).sum()
        found.append(torch.autograd.grad(loss, moved.residual)[0].float())
    return found


def candidates(
    subject: LoadedSubject,
    basis: Basis,
    rows: CachedRows,
    gradient: Sequence[torch.Tensor],
    batch_size: int,
    n: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the n directions to read and the n to write on which the first gradient is largest, (n,) int64 each.

    The gradient of a map's number is the sum over tokens of its signal times the loss's gradient along its direction;
    a direction counts by the norm of its row, or its column.

    Parameters
    ----------
    gradient : sequence of (n_tokens, d_model)
        What `gradients` gives for the same rows.
    """
    total = torch.zeros_like(basis.directions)
    for batch, own in zip(rows.batches(batch_size), gradient, strict=True):
        total += basis.signals(batch.to(subject.model.device)).T @ own
    first = total @ basis.directions.T
    n = min(n, len(first))
    return first.norm(dim=1).topk(n).indices.sort().values, first.norm(dim=0).topk(n).indices.sort().values
