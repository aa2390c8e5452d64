"""Confidence intervals for agreement: the latents (or clusters of them) are a sample from those an SAE might have.

Coverage is asymptotic in the number of clusters, and assumes that clusters are independent of each other. The
interval is about the statistic as it stands, confounding included: a stratified null does not move it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm, t

from isaerft.errors import InputError
from isaerft.stats.influence import auroc_influence, spearman_influence
from isaerft.stats.power import hanley_mcneil_sd

N_BOOTSTRAP = 999
_EXTREME = 1e-12


class ConfidenceInterval(NamedTuple):
    """The two ends of a confidence interval; both NaN where it is undefined."""

    low: float
    high: float


UNDEFINED = ConfidenceInterval(math.nan, math.nan)


def cluster_sd(influence: np.ndarray, clusters: np.ndarray, n_independent: int) -> float:
    """Return the standard error from influences (n,) summed by `clusters` (n,), given `n_independent` of them."""
    if n_independent < 2:
        return math.nan
    sums = np.bincount(clusters, weights=influence)
    return math.sqrt(float(sums @ sums) * n_independent / (n_independent - 1))


def auroc_interval(
    estimate: float,
    change: np.ndarray,
    expected: np.ndarray,
    clusters: np.ndarray,
    confidence_level: float,
    strata: np.ndarray | None = None,
) -> ConfidenceInterval:
    """Return the interval of an AUROC (of within-stratum pairs if `strata` is given), on the logit scale.

    DeLong's variance, by clusters that of Obuchowski (1997), with Student's t at as many degrees of freedom as the
    rarer kind has clusters, less one. Where the estimate is 0 or 1 and that variance vanishes, the interval is the
    set of values whose own Hanley-McNeil standard deviation reaches the estimate (Newcombe 2006, method 5), with
    clusters in place of latents.
    """
    n_with, n_without = (len(np.unique(clusters[expected == kind])) for kind in (True, False))
    influence = auroc_influence(change, expected, strata)
    sd = cluster_sd(influence, clusters, min(n_with, n_without))
    quantile = (1 + confidence_level) / 2
    if estimate * (1 - estimate) < _EXTREME:
        return _extreme_auroc_interval(round(estimate), n_with, n_without, float(norm.ppf(quantile)))
    if not sd > 0:
        return UNDEFINED
    half = t.ppf(quantile, min(n_with, n_without) - 1) * sd / (estimate * (1 - estimate))
    logit = math.log(estimate / (1 - estimate))
    return ConfidenceInterval(float(_expit(logit - half)), float(_expit(logit + half)))


def spearman_interval(
    estimate: float, change: np.ndarray, expected: np.ndarray, clusters: np.ndarray, confidence_level: float
) -> ConfidenceInterval:
    """Return the interval of a Spearman correlation: infinitesimal jackknife by clusters, on Fisher's z scale."""
    n_clusters = int(clusters.max()) + 1
    sd = cluster_sd(spearman_influence(change, expected), clusters, n_clusters)
    if not sd > 0 or 1 - abs(estimate) < _EXTREME:
        return UNDEFINED
    half = t.ppf((1 + confidence_level) / 2, n_clusters - 1) * sd / (1 - estimate**2)
    centre = math.atanh(estimate)
    return ConfidenceInterval(math.tanh(centre - half), math.tanh(centre + half))


def bootstrap_interval(
    value_of: Callable[[np.ndarray], float],
    clusters: np.ndarray,
    confidence_level: float,
    rng: np.random.Generator,
    n_resamples: int = N_BOOTSTRAP,
) -> ConfidenceInterval:
    """Return the percentile interval of `value_of(indices)` over resampled `clusters` (n,) of latents.

    A resample in which the statistic is undefined (`InputError`) is left out; if more than one in ten is, so is the
    interval.
    """
    order = np.argsort(clusters, kind="stable")
    sizes = np.bincount(clusters)
    starts = np.cumsum(sizes) - sizes
    values = []
    for _ in range(n_resamples):
        drawn = rng.integers(0, len(sizes), size=len(sizes))
        within = np.arange(sizes[drawn].sum()) - np.repeat(np.cumsum(sizes[drawn]) - sizes[drawn], sizes[drawn])
        try:
            values.append(value_of(order[np.repeat(starts[drawn], sizes[drawn]) + within]))
        except InputError:
            continue
    if len(values) < 0.9 * n_resamples:
        return UNDEFINED
    low, high = np.quantile(values, [(1 - confidence_level) / 2, (1 + confidence_level) / 2])
    return ConfidenceInterval(float(low), float(high))


def mean_interval(
    values: np.ndarray, confidence_level: float, bounds: tuple[float, float] = (-math.inf, math.inf)
) -> ConfidenceInterval:
    """Return Student's t interval of the mean of independent `values` (k,); NaN with fewer than two.

    It ends at the `bounds` of what the mean can be, which takes nothing from its coverage.
    """
    k = len(values)
    if k < 2:
        return UNDEFINED
    half = float(t.ppf((1 + confidence_level) / 2, k - 1) * values.std(ddof=1) / math.sqrt(k))
    low, high = bounds
    return ConfidenceInterval(max(low, float(values.mean()) - half), min(high, float(values.mean()) + half))


def _extreme_auroc_interval(estimate: float, n_with: int, n_without: int, z: float) -> ConfidenceInterval:
    """Return the interval of an AUROC of exactly 0 or 1."""

    def excess(auroc: float) -> float:
        return abs(estimate - auroc) - z * hanley_mcneil_sd(auroc, n_with, n_without)

    other = float(brentq(excess, 1e-12, 1 - 1e-12))
    return ConfidenceInterval(other, 1.0) if estimate == 1 else ConfidenceInterval(0.0, other)


def _expit(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value > -700 else 0.0
