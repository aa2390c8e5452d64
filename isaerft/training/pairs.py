"""Preference pairs: cached rows of chosen and rejected replies, with log-probabilities of the base model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch

from isaerft.behaviors.records import REJECTED
from isaerft.errors import InputError
from isaerft.subjects.cache import Batch, CachedRows, completion_losses, joined_batch, read_cache
from isaerft.subjects.load import LoadedSubject


@dataclass(frozen=True, kw_only=True)
class PreferenceBatch(Batch):
    """Pairs as one batch of 2 n rows: the n chosen replies, then the n rejected ones.

    Attributes
    ----------
    base_log_probability : (2 n,) float32
        Log-probability of each row's completion under the unadapted model, in nats.
    """

    base_log_probability: torch.Tensor

    @property
    def n_terms(self) -> int:
        """Number of pairs, the terms that an objective averages over."""
        return len(self.mask) // 2

    def to(self, device: torch.device | str) -> PreferenceBatch:
        """Return the batch on `device`."""
        moved = cast("PreferenceBatch", super().to(device))
        return replace(moved, base_log_probability=self.base_log_probability.to(device))


@dataclass(frozen=True)
class PreferenceRows:
    """All pairs of one split, in place of `CachedRows` for an objective that compares replies.

    Attributes
    ----------
    chosen, rejected : CachedRows
        Row r of both belongs to the same prompt.
    base_log_probability : (n_rows, 2) float32
        Log-probability of the chosen and the rejected completion under the unadapted model, in nats.
    """

    chosen: CachedRows
    rejected: CachedRows
    base_log_probability: torch.Tensor

    def __len__(self) -> int:
        return len(self.chosen)

    def batch(self, rows: torch.Tensor) -> PreferenceBatch:
        """Return the given pairs, (n,) int64, as one batch."""
        joined = joined_batch([self.chosen.batch(rows), self.rejected.batch(rows)])
        return PreferenceBatch(**vars(joined), base_log_probability=self.base_log_probability[rows].T.flatten())

    def batches(self, n: int) -> Iterator[PreferenceBatch]:
        """Yield all pairs in order, `n` at a time."""
        for rows in torch.arange(len(self)).split(n):
            yield self.batch(rows)


def read_pairs(subject: LoadedSubject, cache: str | Path, split: str, batch_size: int) -> PreferenceRows:
    """Read the pairs of a split and run the unadapted model once over both replies.

    Parameters
    ----------
    subject : LoadedSubject
        Its model must be unadapted.
    batch_size : int
        Rows per forward pass.

    Raises
    ------
    InputError
        The cache holds no rejected replies, or not as many as chosen ones.
    """
    chosen = read_cache(cache, split)
    try:
        rejected = read_cache(cache, split + REJECTED)
    except InputError as error:
        raise InputError(error.problem, remedy="run `isaerft capture` again, with an objective on pairs") from None
    if len(chosen) != len(rejected):
        raise InputError(
            f"cache {str(cache)!r} holds {len(rejected)} rejected replies for {len(chosen)} chosen ones",
            remedy="run `isaerft capture` again",
        )
    return make_pairs(subject, chosen, rejected, batch_size)


def make_pairs(subject: LoadedSubject, chosen: CachedRows, rejected: CachedRows, batch_size: int) -> PreferenceRows:
    """Return pairs of replies, row by row; the unadapted model is run once over both (see `read_pairs`)."""
    base = [_log_probabilities(subject, rows, batch_size) for rows in (chosen, rejected)]
    return PreferenceRows(chosen, rejected, torch.stack(base, 1))


Rows = CachedRows | PreferenceRows
"""The rows of one split, as the objective needs them."""


def completions(rows: Rows) -> CachedRows:
    """Return the rows whose completions show the behavior; of pairs, the chosen replies."""
    return rows.chosen if isinstance(rows, PreferenceRows) else rows


def need_pairs(batch: Batch, objective: str) -> PreferenceBatch:
    """Return the batch if it holds pairs; otherwise raise an `InputError`."""
    if not isinstance(batch, PreferenceBatch):
        raise InputError(
            f"objective {objective!r} on rows with one completion each",
            allowed="preference pairs",
            remedy="give the adapter `objective: sft`, or train on records with chosen and rejected",
        )
    return batch


def row_log_probabilities(
    subject: LoadedSubject, batch: Batch, residual: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the log-probability of each row's completion and its length.

    Parameters
    ----------
    residual : (n_tokens, d_in)
        The (adapted) residual stream of the batch's tokens.

    Returns
    -------
    log_probability : (n_rows,) float32
        In nats, summed over the completion's tokens, EOS included.
    length : (n_rows,) float32
        Tokens of the completion.
    """
    losses = completion_losses(subject, batch, residual)
    row = batch.mask.nonzero()[:, 0][batch.predicts]
    zeros = losses.new_zeros(len(batch.mask))
    return zeros.index_add(0, row, -losses), zeros.index_add(0, row, torch.ones_like(losses))


def _log_probabilities(subject: LoadedSubject, rows: CachedRows, batch_size: int) -> torch.Tensor:
    """Return the log-probability of each row's completion under the unadapted model, (n_rows,) in nats."""
    parts = []
    with torch.no_grad():
        for batch in rows.batches(batch_size):
            moved = batch.to(subject.model.device)
            parts.append(row_log_probabilities(subject, moved, moved.residual)[0].cpu())
    return torch.cat(parts)
