"""Texts as rows of mean latent activations: what a baseline is fitted on, with no training of the model.

The unit is the completion: its tokens are no independent observations, and a long reply should count no more than a
short one.

The base of baselines that need no training: a direction in the latents, fitted to activations, added everywhere.

mean_difference: by how much each latent is more active in a behavior's completions than in other text.

probe: a logistic regression that tells a behavior's completions from other text by their latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse

from isaerft.adapters.base import LatentAdapter, Shift
from isaerft.errors import InputError, shown
from isaerft.subjects.cache import CachedRows
from isaerft.subjects.dictionary import Codes

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


class Steering(LatentAdapter):
    """f' = f + length * direction, the same at every token; a subclass fits the direction.

    Attributes
    ----------
    direction : (d_sae,) float32
        What was fitted, in the subclass's units; 0 before.
    length : () float32
        How far the activations are moved along it, found by a search on the training loss.
    threshold : () float32
        A text whose mean activation times the direction lies above it is called the behavior's.
    """

    def __init__(self, d_sae: int) -> None:
        super().__init__(d_sae)
        self.register_buffer("direction", torch.zeros(d_sae))
        self.register_buffer("length", torch.zeros(()))
        self.register_buffer("threshold", torch.zeros(()))

    def fitted(self, texts: Texts) -> tuple[np.ndarray, float]:
        """Return direction (d_sae,) and threshold for some texts."""
        raise NotImplementedError

    def fit(self, texts: Texts) -> None:
        """Set direction and threshold from the training texts."""
        direction, threshold = self.fitted(texts)
        self.direction.copy_(torch.from_numpy(direction))
        self.threshold.fill_(threshold)

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """Return the activations (..., d_sae) moved along the direction."""
        return activations + self.length * self.direction

    def shift(self, codes: Codes) -> Shift:
        """Return length * direction: every token changes alike."""
        return Shift(codes, constant=self.length * self.direction)

    def latent_parameter(self) -> torch.Tensor:
        """Return the direction, (d_sae,)."""
        return self.direction


class MeanDifference(Steering):
    """direction = mean activation in the behavior's completions - mean activation in the contrast's."""

    kind = "mean_difference"

    def fitted(self, texts: Texts) -> tuple[np.ndarray, float]:
        """Return the difference of means, (d_sae,) in the activations' units, and the midpoint between them on it."""
        behavior, contrast = texts.mean(True), texts.mean(False)
        direction = behavior - contrast
        return direction, float((behavior + contrast) @ direction / 2)


REGULARIZATION = 0.01
MAX_ITERATIONS = 2000
TOLERANCE = 1e-6


class Probe(Steering):
    """direction = weights of a logistic probe with an L2 penalty, in log-odds per unit of activation.

    The texts' activations are divided by their root mean square norm before the fit, so that the penalty means the same
    for every SAE. Latents are not standardised one by one: that would hand the direction to those that hardly fire.

    Parameters
    ----------
    regularization : float
        The fit minimises mean loss + regularization / 2 * ||weights||^2, each of the two kinds weighing half.
    """

    kind = "probe"

    def __init__(self, d_sae: int, *, regularization: float = REGULARIZATION) -> None:
        super().__init__(d_sae)
        if isinstance(regularization, (bool, str)) or not regularization > 0:
            raise InputError(
                f"adapter 'probe': regularization = {shown(regularization)}", allowed="a number greater than 0"
            )
        self.regularization = regularization

    def fitted(self, texts: Texts) -> tuple[np.ndarray, float]:
        """Return the weights, (d_sae,), and minus the intercept."""
        from sklearn.linear_model import LogisticRegression

        squares = np.asarray(texts.activations.multiply(texts.activations).sum(axis=1)).ravel()
        scale = float(np.sqrt((squares * texts.weight).sum() / texts.weight.sum())) or 1.0
        # The weights add up to 2, one for each kind; scikit-learn's C multiplies the summed loss.
        model = LogisticRegression(C=1 / (2 * self.regularization), tol=TOLERANCE, max_iter=MAX_ITERATIONS)
        model.fit(texts.activations / scale, texts.is_behavior, sample_weight=texts.weight)
        return model.coef_[0] / scale, -float(model.intercept_[0])

    def options(self) -> dict[str, Any]:
        """Return the penalty's weight."""
        return {"regularization": self.regularization}
