"""Influence of each latent on a statistic: how far it moves the estimate away from the truth, to first order.

For a smooth statistic T of the sample, estimate - truth is about sum_i influence_i, so its variance is about the sum
of squares of the clusters' sums (the infinitesimal jackknife). For the AUROC this is the variance of DeLong et al.
(1988, Biometrics 44:837), with clusters that of Obuchowski (1997, Biometrics 53:567). One sort instead of a thousand
resamples.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata


def auroc_influence(change: np.ndarray, expected: np.ndarray, strata: np.ndarray | None = None) -> np.ndarray:
    """Return (n,) influences on the AUROC, or with `strata` (n,) int64 codes on the AUROC over within-stratum pairs.

    `change` is (n,) float, `expected` (n,) bool. Source: the Hajek projection of the Mann-Whitney statistic.
    """
    codes = np.zeros(change.size, dtype=np.int64) if strata is None else strata
    # Wins of a latent over its own and over the other kind, as ranks within the stratum and within the kind.
    joint, own = _ranks_within(change, codes), _ranks_within(change, 2 * codes + expected)
    n_expected = np.bincount(codes, weights=expected)[codes]
    n_other = np.where(expected, np.bincount(codes)[codes] - n_expected, n_expected)
    below = joint - own
    wins = np.where(expected, below, n_other - below)
    n_pairs = n_other[expected].sum()
    estimate = wins[expected].sum() / n_pairs
    return (wins - estimate * n_other) / n_pairs


def _ranks_within(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return midranks (n,) of `values` (n,) within each of `groups` (n,) int."""
    codes = np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(codes)
    dense = rankdata(values, method="dense") - 1
    return rankdata(codes * (dense.max() + 1) + dense) - (np.cumsum(sizes) - sizes)[codes]


def spearman_influence(change: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return (n,) influences on Spearman's correlation with midranks; `change` and `expected` are (n,) float.

    The correlation is C / sqrt(V_x V_y) of the mid-distribution functions F(x) and G(y); each part is a functional of
    the joint distribution whose influence also counts what a latent does to the ranks of the others (Croux and Dehon
    2010).
    """
    n = change.size
    x, y = ((rankdata(values) - 0.5) / n for values in (change, expected))
    covariance, var_x, var_y = (x * y).mean() - 0.25, (x * x).mean() - 0.25, (y * y).mean() - 0.25
    in_covariance = x * y + _mean_above(change, y) + _mean_above(expected, x) - 3 * (x * y).mean()
    in_var_x = x * x + 2 * _mean_above(change, x) - 3 * (x * x).mean()
    in_var_y = y * y + 2 * _mean_above(expected, y) - 3 * (y * y).mean()
    scale = np.sqrt(var_x * var_y)
    return (in_covariance / scale - covariance / scale / 2 * (in_var_x / var_x + in_var_y / var_y)) / n


def _mean_above(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return (n,) the mean over all latents j of weights_j where values_j is larger, and half of it where equal."""
    _, codes = np.unique(values, return_inverse=True)
    totals = np.bincount(codes, weights=weights)
    from_here = np.cumsum(totals[::-1])[::-1]
    return (from_here - totals / 2)[codes] / values.size
