"""Are two lists of descriptions of the same items, in the same order? Each item must be recognized among the others.

Item i is *recognized* if its two descriptions overlap more than its second description overlaps with any other item's
first. If the lists belong together, most items are; if one list is of other items, or shifted, each of n items is with
probability 1 / n or less, since at most one of n descriptions overlaps most. The thresholds were fixed before any data
were seen:

- *same*: more than `SAME_SHARE` of the items are recognized (exact binomial test at `SAME_LEVEL`).
- *different*: fewer than `DIFFERENT_SHARE` are (exact binomial test at `DIFFERENT_LEVEL`).
- *unclear*: anything between, as if a part of one list were of other items, or too few items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

MIN_ITEMS = 20
SAME_SHARE, SAME_LEVEL = 0.75, 0.01
DIFFERENT_SHARE, DIFFERENT_LEVEL = 0.5, 0.001
N_EXCHANGES = 9999


@dataclass(frozen=True)
class Recognition:
    """How many items were recognized, and what follows.

    Attributes
    ----------
    n_items, n_recognized : int
    p_same : float
        Probability of so many or more if `SAME_SHARE` of the items are recognized.
    p_different : float
        Probability of so few or fewer if `DIFFERENT_SHARE` are.
    p_exchange : float
        Probability of so large a mean overlap if one list is in random order, (b + 1) / (n_exchanges + 1).
    """

    n_items: int
    n_recognized: int
    p_same: float
    p_different: float
    p_exchange: float

    @property
    def verdict(self) -> str:
        """`same`, `different` or `unclear`."""
        if self.n_items < MIN_ITEMS:
            return "unclear"
        if self.p_same <= SAME_LEVEL:
            return "same"
        return "different" if self.p_different <= DIFFERENT_LEVEL else "unclear"


def recognition(overlap: np.ndarray, rng: np.random.Generator, n_exchanges: int = N_EXCHANGES) -> Recognition:
    """Test whether two lists describe the same items in the same order.

    Parameters
    ----------
    overlap : (n, n) float or int
        Overlap of the second list's description of item i with the first list's of item j.
    rng : Generator
        Draws the exchanges.
    n_exchanges : int
        Random orders of the first list.

    Returns
    -------
    Recognition
        With one item or none, nothing can be recognized among others, and every probability is 1.
    """
    overlap = np.asarray(overlap, dtype=np.float64)
    n = len(overlap)
    if n < 2:
        return Recognition(n, 0, 1.0, 1.0, 1.0)
    own = overlap.diagonal()
    others = np.where(np.eye(n, dtype=bool), -np.inf, overlap).max(1)
    recognized = int((own > others).sum())
    orders = rng.permuted(np.tile(np.arange(n), (n_exchanges, 1)), axis=1)
    exchanged = overlap[np.arange(n), orders].sum(1)
    as_large = int((exchanged >= own.sum() - 1e-9).sum())
    return Recognition(
        n,
        recognized,
        float(binom.sf(recognized - 1, n, SAME_SHARE)),
        float(binom.cdf(recognized, n, DIFFERENT_SHARE)),
        (as_large + 1) / (n_exchanges + 1),
    )
