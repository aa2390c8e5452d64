"""Noise: how far would a number move if seeds were drawn again, and does it separate what is meant to differ?

>>> found = noise_of([0.30, 0.34, 0.32])
>>> round(found.sd, 3), round(found.coefficient_of_variation, 4), round(found.reliable_difference, 3)
(0.02, 0.0625, 0.122)

A number that rests on all seeds together has no replicates of its own; the jackknife over seeds takes their place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import chi2, f, studentized_range, t

from isaerft.stats.checks import as_finite, as_groups
from isaerft.stats.intervals import UNDEFINED, ConfidenceInterval


@dataclass(frozen=True)
class Noise:
    """The noise of one number; with fewer than two replicates NaN, but for mean and count.

    Attributes
    ----------
    n_replicates : int
    mean : float
        Mean of the replicates; of the jackknife the number itself.
    sd : float
        Standard deviation of one replicate; of the jackknife that of the number from all seeds together.
    sd_interval : ConfidenceInterval
        By the chi-squared distribution, for normal replicates.
    coefficient_of_variation : float
        `sd` as a share of the distance of the mean from chance; NaN where the interval of the mean holds chance.
    reliable_difference : float
        See `reliable_difference`; 0 where replicates do not differ.
    """

    n_replicates: int
    mean: float
    sd: float
    sd_interval: ConfidenceInterval
    coefficient_of_variation: float
    reliable_difference: float


def noise_of(values: ArrayLike, *, chance: float | None = 0.0, confidence_level: float = 0.95) -> Noise:
    """Return the noise of a number whose replicates have the `values` (n,); those that are NaN are left out.

    Parameters
    ----------
    values : (n,) float
    chance : float or None
        The value that shows nothing; None where it is not known, and the coefficient of variation with it.
    """
    array = np.asarray(values, dtype=np.float64).ravel()
    array = array[np.isfinite(array)]
    mean = float(array.mean()) if array.size else math.nan
    sd = float(array.std(ddof=1)) if array.size > 1 else math.nan
    return _noise(array.size, mean, sd, sd / math.sqrt(max(array.size, 1)), chance, confidence_level)


def noise_of_all_seeds(
    estimate: float, left_out: ArrayLike, *, chance: float | None = 0.0, confidence_level: float = 0.95
) -> Noise:
    """Return the noise of an estimate from all seeds together, given it without each seed in turn, (n_seeds,).

    Where one of these is NaN, only the number of seeds is known; one seed is what an empty `left_out` means.
    """
    sd = jackknife_sd(left_out)
    return _noise(max(np.size(left_out), 1), float(estimate), sd, sd, chance, confidence_level)


def _noise(n: int, mean: float, sd: float, sd_of_mean: float, chance: float | None, level: float) -> Noise:
    if math.isnan(sd):
        return Noise(n, mean, math.nan, UNDEFINED, math.nan, math.nan)
    low, high = _chi2_ends(n - 1, level)
    variation = math.nan
    if chance is not None and abs(mean - chance) > _quantile(n - 1, level) * sd_of_mean:
        variation = sd / abs(mean - chance)
    return Noise(n, mean, sd, ConfidenceInterval(sd * low, sd * high), variation, _repeatability(sd, n - 1, level))


def jackknife_sd(left_out: ArrayLike) -> float:
    """Return the standard deviation of an estimate from all seeds, given it without each seed in turn, (n_seeds,).

    NaN with fewer than two seeds, or where an estimate is NaN.
    """
    array = np.asarray(left_out, dtype=np.float64)
    n = array.size
    if n < 2 or not np.isfinite(array).all():
        return math.nan
    return math.sqrt((n - 1) / n * float(((array - array.mean()) ** 2).sum()))


def reliable_difference(left_out: ArrayLike, confidence_level: float = 0.95) -> float:
    """Return the smallest difference that repeating all trainings with other seeds does not explain.

    Of two results whose true values are equal, each from trainings of its own, the difference stays below it with a
    chance of `confidence_level`: Student's t times the square root of 2 times the standard deviation of one result (the
    repeatability coefficient of Bland and Altman 1999, Stat Methods Med Res 8:135, with t for few seeds). That standard
    deviation is the jackknife's over seeds, so that it is about the estimate from all seeds together.

    >>> round(reliable_difference([0.70, 0.72, 0.71]), 3)
    0.07

    Parameters
    ----------
    left_out : (n_seeds,) float
        The estimate without each seed in turn.

    Returns
    -------
    float
        NaN with fewer than two seeds, or where an estimate is NaN.
    """
    return _repeatability(jackknife_sd(left_out), np.size(left_out) - 1, confidence_level)


def _repeatability(sd: float, df: int, level: float) -> float:
    return _quantile(df, level) * math.sqrt(2) * sd if math.isfinite(sd) else math.nan


def factor_among(n_results: int, n_seeds: int, confidence_level: float = 0.95) -> float:
    """Return what `reliable_difference` must be multiplied by to separate results from the best of `n_results` of them.

    The best is best by chance, too. Tukey's studentized range says how far the highest and lowest of equal results lie
    apart; 1 for two results.
    """
    if n_results < 3:
        return 1.0
    both = _range_quantile(n_results, n_seeds - 1, confidence_level) / math.sqrt(2)
    return both / _quantile(n_seeds - 1, confidence_level)


@dataclass(frozen=True)
class Margin:
    """How far a difference would move if seeds were drawn again.

    Attributes
    ----------
    least : float
        Smallest difference that this does not explain, at the confidence level; NaN if unknown.
    n_replicates : int
        Replicates behind it; of two independent results the smaller number.
    """

    least: float
    n_replicates: int


def margin_of_paired(left_out: ArrayLike, confidence_level: float = 0.95) -> Margin:
    """Return the margin of a difference, given it without each seed in turn, (n_seeds,): Student's t times its sd."""
    sd, n = jackknife_sd(left_out), max(np.size(left_out), 1)
    return Margin(_quantile(n - 1, confidence_level) * sd if math.isfinite(sd) else math.nan, n)


def margin_of_independent(sds: Sequence[float], ns: Sequence[int], confidence_level: float = 0.95) -> Margin:
    """Return the margin of the difference of two results with standard deviations `sds`, each known from `ns` seeds.

    Student's t with the degrees of freedom of Welch (1947, Biometrika 34:28).
    """
    variances = np.square(np.asarray(sds, dtype=np.float64))
    n = int(min(ns))
    if n < 2 or not np.isfinite(variances).all():
        return Margin(math.nan, n)
    total = float(variances.sum())
    if not total > 0:
        return Margin(0.0, n)
    df = total**2 / float((variances**2 / (np.asarray(ns) - 1)).sum())
    return Margin(float(t.ppf((1 + confidence_level) / 2, df)) * math.sqrt(total), n)


@dataclass(frozen=True)
class Discriminability:
    """Whether a number separates groups of replicates.

    Attributes
    ----------
    f, pvalue : float
        One-way analysis of variance: mean square between groups over that within, and its p-value.
    icc : float
        Share of the variance that lies between groups: ICC(1), below 0 where groups differ less than replicates do.
    icc_interval : ConfidenceInterval
        From the F distribution; for groups of unequal size approximate.
    n_pairs, n_pairs_apart : int
        Pairs of groups, and those whose means lie further apart than noise explains (Tukey and Kramer).
    """

    f: float
    pvalue: float
    icc: float
    icc_interval: ConfidenceInterval
    n_pairs: int
    n_pairs_apart: int | None


def discriminability(values: ArrayLike, groups: ArrayLike, confidence_level: float = 0.95) -> Discriminability:
    """Return whether a number separates groups: variance between groups against variance within them.

    Parameters
    ----------
    values : (n,) float
    groups : (n,) int
        Group of each replicate.

    Returns
    -------
    Discriminability
        NaN and None with one group, where no group has two replicates, or where replicates do not differ at all.

    Raises
    ------
    InputError
        A value is not finite, or `groups` has another length.

    Notes
    -----
    ICC(1) and its interval: Shrout and Fleiss (1979, Psychol Bull 86:420), with n0 = (N - sum n_i^2 / N) / (k - 1) in
    place of the group size. Pairs: Kramer (1956, Biometrics 12:307).
    """
    array = as_finite("values", values, n_dims=1)
    codes = as_groups("groups", groups, array.size)
    sizes = np.bincount(codes).astype(np.float64)
    k, n = sizes.size, array.size
    n_pairs = k * (k - 1) // 2
    undefined = Discriminability(math.nan, math.nan, math.nan, UNDEFINED, n_pairs, None)
    if k < 2 or n - k < 1:
        return undefined
    means = np.bincount(codes, weights=array) / sizes
    within = float(((array - means[codes]) ** 2).sum()) / (n - k)
    between = float((sizes * (means - array.mean()) ** 2).sum()) / (k - 1)
    if not within > 1e-24 * float((array**2).max()):
        return undefined
    ratio, size = between / within, (n - float((sizes**2).sum()) / n) / (k - 1)
    quantile = (1 + confidence_level) / 2
    low, high = ratio / f.ppf(quantile, k - 1, n - k), ratio * f.ppf(quantile, n - k, k - 1)
    reach = _range_quantile(k, n - k, confidence_level) / math.sqrt(2) * math.sqrt(within)
    i, j = np.triu_indices(k, 1)
    apart = np.abs(means[i] - means[j]) > reach * np.sqrt(1 / sizes[i] + 1 / sizes[j])
    return Discriminability(
        f=ratio,
        pvalue=float(f.sf(ratio, k - 1, n - k)),
        icc=_icc(ratio, size),
        icc_interval=ConfidenceInterval(_icc(float(low), size), _icc(float(high), size)),
        n_pairs=n_pairs,
        n_pairs_apart=int(apart.sum()),
    )


def _icc(ratio: float, size: float) -> float:
    return (ratio - 1) / (ratio - 1 + size)


@lru_cache(maxsize=256)
def _quantile(df: int, level: float) -> float:
    return float(t.ppf((1 + level) / 2, df))


@lru_cache(maxsize=256)
def _range_quantile(k: int, df: int, level: float) -> float:
    return float(studentized_range.ppf(level, k, df))


@lru_cache(maxsize=256)
def _chi2_ends(df: int, level: float) -> tuple[float, float]:
    """Return what a standard deviation is multiplied by to have the ends of its interval."""
    ends = (math.sqrt(df / float(chi2.ppf(share, df))) for share in ((1 + level) / 2, (1 - level) / 2))
    low, high = ends
    return low, high
