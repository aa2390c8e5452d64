"""How well could a perfect explanation do, given that seeds disagree?"""

from __future__ import annotations

from typing import Any

import numpy as np

from isaerft.stats.seeds import scaled_ranks
from isaerft.stats.statistics import auroc


def auroc_ceiling(changes: Any, n_expected: int) -> float:
    """Return the AUROC that an oracle reaches which knows the other seeds' outcome.

    For each seed the `n_expected` latents that changed most in the mean of the other seeds are called expected, and the
    AUROC of the seed's own change is taken; the mean over seeds is returned. It bounds an explanation of one seed, so
    for the mean over all seeds it is on the low side.

    Parameters
    ----------
    changes : (n_seeds, n) float
    n_expected : int
        How many latents the explanations call expected.

    Returns
    -------
    float
        NaN with one seed, or when none or all latents are expected.
    """
    ranks = scaled_ranks(changes)
    n_seeds, n = ranks.shape
    if n_seeds < 2 or not 0 < n_expected < n:
        return float("nan")
    values = []
    for seed in range(n_seeds):
        others = np.delete(ranks, seed, axis=0).mean(0)
        oracle = np.zeros(n, bool)
        oracle[np.argsort(-others, kind="stable")[:n_expected]] = True
        values.append(float(auroc(ranks[seed], oracle)))
    return float(np.mean(values))
