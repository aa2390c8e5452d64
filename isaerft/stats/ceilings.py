"""Noise ceilings: the agreement that perfect explanations would reach, given how well seeds know the changes.

Two things keep perfect explanations from a perfect value: noise of the seeds, and the form of the expectation. One that
says yes or no cannot order latents within yes and within no, so its Spearman correlation stays far below 1:

>>> import numpy as np
>>> changes = np.tile(np.arange(1000.0), (3, 1))
>>> round(spearman_ceiling_of_mean(changes, np.arange(1000) < 50), 2)
0.38

A ceiling is that of an oracle: it gives as many latents each expected effect, in the order of the true changes. What
noise leaves of it is seen by leaving one seed out: the mean of the others takes the place of the true changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import ndtri

from isaerft.stats.checks import as_finite
from isaerft.stats.seeds import reliability_of_all, scaled_ranks
from isaerft.stats.statistics import auroc, spearman

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)
_ROUNDING = 1e-12


def auroc_ceiling_of_seed(changes: ArrayLike, n_expected: int) -> float:
    """Return a noise ceiling for the AUROC of one seed's changes, from an oracle that knows the other seeds.

    For each seed the `n_expected` latents that changed most in the mean of the other seeds are called expected, and the
    AUROC of the seed's own change is taken; the mean over seeds is returned. The other seeds are noisy too, so with few
    seeds this is on the low side.

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
    return _of_seed(ranks, _labels(n_expected, ranks.shape[1]), auroc)


def auroc_ceiling_of_mean(changes: ArrayLike, n_expected: int) -> float:
    """Return the noise ceiling for the AUROC of the mean over seeds: that of an oracle that knows the true changes.

    The oracle calls the `n_expected` latents expected that change most in the mean over infinitely many seeds. The
    ceiling is the AUROC of the mean over the given seeds against these labels.

    Parameters
    ----------
    changes : (n_seeds, n) float
    n_expected : int
        How many latents the explanations call expected.

    Returns
    -------
    float
        NaN where `auroc_ceiling_of_seed` is, and where it is at most 0.5: then seeds agree no better than by chance,
        and no ceiling can be estimated.

    Notes
    -----
    Let A(c) be the AUROC of a standard normal value against the top n_expected / n of another one that correlates with
    it at c. The leave-one-out AUROC of `auroc_ceiling_of_seed` is about A(c) with c the correlation between one seed
    and the mean of the k - 1 others. With r the reliability of one seed and R(m) = m r / (1 + (m - 1) r) that of the
    mean of m seeds (Spearman 1910, Brown 1910), c^2 = R(1) R(k - 1). Solving for r gives the ceiling A(sqrt(R(k))).
    Because c comes from the AUROC of the top latents and not from all ranks, changes need not be normal as a whole. The
    ceiling is too high where more latents are expected than truly change.
    """
    ranks = scaled_ranks(changes)
    share = n_expected / ranks.shape[1]

    def perfect(correlation: float) -> float:
        return 0.5 + float(_covariance(correlation, ndtri(np.array([1 - share])))[0]) / (share * (1 - share))

    return _of_mean(auroc_ceiling_of_seed(changes, n_expected), 0.5, perfect, len(ranks))


def spearman_ceiling_of_seed(changes: ArrayLike, effect: ArrayLike) -> float:
    """Return a noise ceiling for the Spearman correlation of one seed's changes, from an oracle that knows the others.

    As `auroc_ceiling_of_seed`; the oracle orders the values of `effect`, (n,) float, as the mean of the other seeds
    orders the latents. NaN with one seed, or if all effects are equal.
    """
    return _of_seed(scaled_ranks(changes), as_finite("effect", effect, n_dims=1), spearman)


def spearman_ceiling_of_mean(changes: ArrayLike, effect: ArrayLike) -> float:
    """Return the noise ceiling for the Spearman correlation of the mean over seeds.

    Parameters
    ----------
    changes : (n_seeds, n) float
    effect : (n,) float
        The expectation whose form (how many latents share each value) a perfect one would have.

    Returns
    -------
    float
        NaN where `spearman_ceiling_of_seed` is, and where it is not positive.

    Notes
    -----
    As `auroc_ceiling_of_mean`, with A(c) the Spearman correlation of a standard normal value with a second one that
    correlates with it at c and is then cut into as many groups, of the same shares, as `effect` has values.
    """
    graded = as_finite("effect", effect, n_dims=1)
    counts = np.unique(graded, return_counts=True)[1] / graded.size
    above = np.cumsum(counts)
    middle = above - counts / 2
    steps, cuts = np.diff(middle), ndtri(above[:-1])
    scale = math.sqrt(float(counts @ (middle - 0.5) ** 2) / 12)

    def perfect(correlation: float) -> float:
        return float(steps @ _covariance(correlation, cuts)) / scale

    return _of_mean(spearman_ceiling_of_seed(changes, graded), 0.0, perfect, len(np.asarray(changes)))


def _labels(n_expected: int, n: int) -> np.ndarray:
    """Return (n,) bool with `n_expected` latents expected."""
    return np.arange(n) < n_expected


def _of_seed(ranks: np.ndarray, effect: np.ndarray, statistic: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> float:
    """Return the mean over seeds of the statistic against an oracle that knows the others' `ranks` (n_seeds, n)."""
    if len(ranks) < 2 or effect.min() == effect.max():
        return math.nan
    values, descending = [], np.sort(effect)[::-1]
    for seed, own in enumerate(ranks):
        oracle = np.empty_like(effect)
        oracle[np.argsort(-np.delete(ranks, seed, axis=0).mean(0), kind="stable")] = descending
        values.append(float(statistic(own, oracle)))
    return float(np.mean(values))


def _of_mean(of_seed: float, chance: float, perfect: Callable[[float], float], n_seeds: int) -> float:
    """Return the ceiling of the mean over seeds, from that of one seed and the ceiling at a correlation."""
    if not of_seed > chance:
        return math.nan
    if of_seed >= perfect(1.0) - _ROUNDING:
        return of_seed
    correlation = float(brentq(lambda c: perfect(c) - of_seed, 0.0, 1.0))
    return perfect(math.sqrt(reliability_of_all(correlation, n_seeds - 1, 1)))


def _covariance(correlation: float, cuts: np.ndarray) -> np.ndarray:
    """Return the covariance of F(X) with Y > cut at each cut (m,), for normal X and Y with this correlation.

    It is P(X > X', Y > cut) - P(Y > cut) / 2 with X' another X: a bivariate normal probability at correlation
    correlation / sqrt 2, whose derivative in the correlation is the density (Plackett 1954, Biometrika 41:351).
    """
    end = math.asin(correlation / math.sqrt(2))
    angles = end * (_NODES + 1) / 2
    return np.exp(-(cuts[:, None] ** 2) / (2 * np.cos(angles) ** 2)) @ _WEIGHTS * end / (4 * math.pi)
