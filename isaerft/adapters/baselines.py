"""Steering baselines: a direction in the latents, fitted to activations without training the model.

`MeanDifference` and `Probe` are fitted to a behavior's completions against other text. The unit is the completion: its
tokens are not independent observations, and a long reply counts no more than a short one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse

from isaerft.adapters.base import LatentAdapter
from isaerft.adapters.shift import Shift
from isaerft.errors import InputError, shown
from isaerft.subjects.cache import CachedRows
from isaerft.subjects.dictionary import Codes

ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class Texts:
    """Mean activations of a behavior's texts and of those it is contrasted with.

    Attributes
    ----------
    activations : (n_texts, d_sae) sparse float64
        Mean activation of each latent over the completion's tokens.
    is_behavior : (n_texts,) bool
    weight : (n_texts,) float
        Sums to 1 over the behavior's texts and to 1 over the others, each group of others weighing the same.
    """

    activations: sparse.csr_array
    is_behavior: np.ndarray
    weight: np.ndarray

    @staticmethod
    def of(behavior: sparse.csr_array, contrast: Sequence[sparse.csr_array]) -> Texts:
        """Join a behavior's texts with the groups of other texts, if any."""
        groups = [behavior, *contrast]
        group_weights = [1.0, *(1 / len(contrast) for _ in contrast)]
        n_rows = [group.shape[0] for group in groups]
        weight = np.concatenate([np.full(n, total / n) for n, total in zip(n_rows, group_weights, strict=True)])
        return Texts(sparse.csr_array(sparse.vstack(groups)), np.arange(sum(n_rows)) < n_rows[0], weight)

    def mean(self, is_behavior: bool) -> np.ndarray:
        """Return the weighted mean of the behavior's texts, or of the others, (d_sae,)."""
        chosen = self.is_behavior == is_behavior
        mean: np.ndarray = self.activations[chosen].T @ self.weight[chosen]
        return mean


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
        # A token belongs to the completion if the token before it predicts the completion.
        inside = torch.zeros_like(batch.predicts)
        inside[1:] = batch.predicts[:-1] & (row_of_token[1:] == row_of_token[:-1])
        codes = batch.codes.rows(inside.nonzero()[:, 0])
        row = row_of_token[inside]
        n_tokens = torch.bincount(row, minlength=len(few)).clamp_min(1)
        entry_row = row[codes.tokens()]
        values = codes.values.double() / n_tokens[entry_row]
        position = (entry_row.numpy(), codes.indices.numpy())
        parts.append(sparse.coo_array((values.numpy(), position), shape=(len(few), codes.d_sae)).tocsr())
    return sparse.csr_array(sparse.vstack(parts))


class Steering(LatentAdapter):
    """f' = f + length * direction at every token; a subclass fits the direction.

    Attributes
    ----------
    direction : (d_sae,) float32
        Fitted direction, in the subclass's units; 0 before.
    length : () float32
        How far activations move along it, found by a search on the training loss.
    threshold : () float32
        A text is classified as the behavior's if its mean activation times the direction exceeds this.
    """

    direction: torch.Tensor
    length: torch.Tensor
    threshold: torch.Tensor

    def __init__(self, d_sae: int) -> None:
        super().__init__(d_sae)
        self.register_buffer("direction", torch.zeros(d_sae))
        self.register_buffer("length", torch.zeros(()))
        self.register_buffer("threshold", torch.zeros(()))

    def direction_of(self, texts: Texts) -> tuple[np.ndarray, float]:
        """Return the direction, (d_sae,), and threshold fitted to some texts."""
        raise NotImplementedError

    def fit(self, texts: Texts) -> None:
        """Set direction and threshold from the training texts."""
        direction, threshold = self.direction_of(texts)
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

    def direction_of(self, texts: Texts) -> tuple[np.ndarray, float]:
        """Return the difference of means, (d_sae,) in the activations' units, and the midpoint between them on it."""
        behavior, contrast = texts.mean(True), texts.mean(False)
        direction = behavior - contrast
        return direction, float((behavior + contrast) @ direction / 2)


REGULARIZATION = 0.01
MAX_ITERATIONS = 2000
TOLERANCE = 1e-6


class Probe(Steering):
    """direction = weights of a logistic probe with an L2 penalty, in log-odds per unit of activation.

    The texts' activations are divided by their root mean square norm before the fit, so that the penalty is comparable
    across SAEs. Latents are not standardized one by one: that would favor those that hardly fire.

    Parameters
    ----------
    regularization : float
        The fit minimizes mean loss + regularization / 2 * ||weights||^2; the behavior's texts and the others weigh
        half each.
    """

    kind = "probe"

    def __init__(self, d_sae: int, *, regularization: float = REGULARIZATION) -> None:
        super().__init__(d_sae)
        if isinstance(regularization, (bool, str)) or not regularization > 0:
            raise InputError(
                f"adapter 'probe': regularization = {shown(regularization)}", allowed="a number greater than 0"
            )
        self.regularization = regularization

    def direction_of(self, texts: Texts) -> tuple[np.ndarray, float]:
        """Return the weights, (d_sae,), and the negative intercept."""
        from sklearn.linear_model import LogisticRegression

        squares = np.asarray(texts.activations.multiply(texts.activations).sum(axis=1)).ravel()
        scale = float(np.sqrt((squares * texts.weight).sum() / texts.weight.sum())) or 1.0
        # The sample weights sum to 2, and scikit-learn's C multiplies the summed loss.
        model = LogisticRegression(C=1 / (2 * self.regularization), tol=TOLERANCE, max_iter=MAX_ITERATIONS)
        model.fit(texts.activations / scale, texts.is_behavior, sample_weight=texts.weight)
        return model.coef_[0] / scale, -float(model.intercept_[0])

    def options(self) -> dict[str, object]:
        """Return the weight of the penalty."""
        return {"regularization": self.regularization}
