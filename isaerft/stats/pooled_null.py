"""One null distribution out of many small ones, each already studentised.

>>> import numpy as np
>>> null = PooledNull.of([np.array([-1.0, 0.0, 1.0]), np.array([-2.0, 2.0])])
>>> null.at_least(np.array([1.5])).round(3).tolist()    # (5 * 0.25 + 1) / (5 + 1)
[0.375]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PooledNull:
    """A null distribution pooled over sets of scores, every set with the same weight.

    Attributes
    ----------
    values : (m,) float
        Ascending.
    cumulative : (m + 1,) float
    n_distinct : int
        Different scores among them: explanations that predict alike are compared on the same latents, and repeat them.
    """

    values: np.ndarray
    cumulative: np.ndarray
    n_distinct: int

    @classmethod
    def of(cls, sets: list[np.ndarray]) -> PooledNull:
        """Return the null of sets of scores, each (k,) float."""
        values = np.concatenate(sets)
        weights = np.concatenate([np.full(len(part), 1 / (len(part) * len(sets))) for part in sets])
        order = np.argsort(values, kind="stable")
        return cls(values[order], np.r_[0.0, np.cumsum(weights[order])], np.unique(values.round(9)).size)

    def at_least(self, scores: np.ndarray) -> np.ndarray:
        """Return the share of the null at or above each score, the score itself added to it."""
        return self._with_own(1 - self.cumulative[np.searchsorted(self.values, scores, side="left")])

    def at_most(self, scores: np.ndarray) -> np.ndarray:
        """Return the share of the null at or below each score, the score itself added to it."""
        return self._with_own(self.cumulative[np.searchsorted(self.values, scores, side="right")])

    def _with_own(self, share: np.ndarray) -> np.ndarray:
        # The (b + 1) / (m + 1) of a permutation test, so that no p-value is below what the null can resolve.
        n = self.n_distinct
        return np.clip((n * share + 1) / (n + 1), 1 / (n + 1), 1.0)

    def quantile(self, share: float) -> float:
        """Return the value below which `share` of the null lies."""
        return float(self.values[min(np.searchsorted(self.cumulative[1:], share), len(self.values) - 1)])
