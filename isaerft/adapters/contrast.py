"""Texts as rows of mean latent activations: what a baseline is fitted on, with no training of the model.

The unit is the completion: its tokens are no independent observations, and a long reply should count no more than a
short one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse

from isaerft.subjects.cache import CachedRows

ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class Texts:
    """Texts of two kinds, those of a behavior and those it is contrasted with.

    Attributes
    ----------
    activations : (n_texts, d_sae) sparse float64
        Mean activation of each latent over the completion's tokens.
    is_behavior : (n_texts,) bool
    weight : (n_texts,) float
        Adds up to 1 over the behavior's texts and to 1 over the others, where each group counts alike.
    """

    activations: sparse.csr_array
    is_behavior: np.ndarray
    weight: np.ndarray

    @staticmethod
    def of(behavior: sparse.csr_array, contrast: Sequence[sparse.csr_array]) -> Texts:
        """Put a behavior's texts and one or several groups of other texts together."""
        groups = [behavior, *contrast]
        shares = [1.0, *[1 / len(contrast)] * len(contrast)]
        n_rows = [group.shape[0] for group in groups]
        weight = np.concatenate([np.full(n, share / n) for n, share in zip(n_rows, shares, strict=True)])
        return Texts(sparse.csr_array(sparse.vstack(groups)), np.arange(sum(n_rows)) < n_rows[0], weight)

    def mean(self, is_behavior: bool) -> np.ndarray:
        """Return the weighted mean of one of the two kinds, (d_sae,)."""
        chosen = self.is_behavior == is_behavior
        return self.activations[chosen].T @ self.weight[chosen]


def completion_means(rows: CachedRows, chosen: torch.Tensor) -> sparse.csr_array:
    """Return the mean activation of each latent over each completion's tokens, (n_chosen, d_sae).

    Parameters
    ----------
    chosen : (n_chosen,) int64
        Rows of the cache.
    """
    parts = []
    for few in chosen.split(ROWS_AT_ONCE):
        batch = rows.batch(few)
        row_of_token = batch.mask.nonzero()[:, 0]
        # A token belongs to the completion where the token before it predicts the completion.
        inside = torch.zeros_like(batch.predicts)
        inside[1:] = batch.predicts[:-1] & (row_of_token[1:] == row_of_token[:-1])
        codes = batch.codes.rows(inside.nonzero()[:, 0])
        row = row_of_token[inside]
        n_tokens = torch.bincount(row, minlength=len(few)).clamp_min(1)
        entry_row = row[codes.tokens()]
        values = codes.values.double() / n_tokens[entry_row]
        place = (entry_row.numpy(), codes.indices.numpy())
        parts.append(sparse.coo_array((values.numpy(), place), shape=(len(few), codes.d_sae)).tocsr())
    return sparse.csr_array(sparse.vstack(parts))
