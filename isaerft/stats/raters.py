"""Agreement between judges, and what the result would be if the judge made no mistakes.

`agreement_of_judges` compares two judges on which latents a behavior should change, with chance taken into account:

>>> import numpy as np
>>> round(cohen_kappa(Counts(neither=20, only_first=5, only_second=10, both=15)), 3)
0.4

A judge that wrongly calls latents expected, or not expected, pulls every agreement toward chance. Where its error
rates against a reference are known, `corrected_auroc` and `corrected_correlation` undo this, on two assumptions: given
a latent's true kind, errors do not depend on how much it changed, and the rates hold on these latents.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from isaerft.errors import InputError
from isaerft.stats.checks import as_binary, as_finite
from isaerft.stats.intervals import (
    N_BOOTSTRAP,
    UNDEFINED,
    ConfidenceInterval,
    percentile_interval,
    spearman_interval,
)
from isaerft.stats.statistics import spearman

MIN_WRONG = 5
"""Fewest explanations of which a judge expects too much; with fewer its errors are too rare to know how rare."""


class Estimate(NamedTuple):
    """An estimate and its confidence interval; NaN where undefined."""

    estimate: float
    confidence_interval: ConfidenceInterval


class ErrorRates(NamedTuple):
    """How often a judge is right, about what is expected and about what is not.

    Attributes
    ----------
    true_positive_rate, true_negative_rate : float
        Share of the reference's expected items that the judge expects too, and of its unexpected ones that the judge
        does not expect either.
    draws : (n_resamples, 2) float
        Both over resampled explanations; NaN if the judge expected too much of fewer than `MIN_WRONG`.
    """

    true_positive_rate: float
    true_negative_rate: float
    draws: np.ndarray


def attenuation(true_positive_rate: ArrayLike, true_negative_rate: ArrayLike, share_expected: float) -> Any:
    """Return by what a judge's errors shrink an AUROC's distance from 1/2, if it calls `share_expected` expected.

    Labels from a mixture shrink it by positive + negative predictive value - 1 (Menon, van Rooyen, Ong and Williamson
    2015, ICML, corollary 3): a drawn pair is of two truly different latents, in the right order or in the wrong one, or
    of two alike, when it says nothing. With J = true_positive_rate + true_negative_rate - 1, the true share p is
    (share_expected + true_negative_rate - 1) / J (Rogan and Gladen 1978, Am J Epidemiol 107:71), and the factor is
    J p (1 - p) / (share_expected (1 - share_expected)).

    NaN where the judge is no better than chance (J <= 0), or where p is not between 0 and 1: then these rates cannot
    have given these labels.
    """
    positive, negative = np.asarray(true_positive_rate, float), np.asarray(true_negative_rate, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        informed = positive + negative - 1
        true_share = (share_expected + negative - 1) / informed
        factor = informed * true_share * (1 - true_share) / (share_expected * (1 - share_expected))
        return _number(np.where((informed > 0) & (true_share > 0) & (true_share < 1), np.minimum(factor, 1), np.nan))


def corrected_auroc(
    auroc: float,
    rates: ErrorRates,
    share_expected: float,
    interval: ConfidenceInterval = UNDEFINED,
    *,
    confidence_level: float = 0.95,
) -> Estimate:
    """Return the AUROC against true labels, given the one against a judge's labels and its interval.

    Its distance from 1/2 is divided by `attenuation`. The interval counts that the rates are estimates, too. NaN where
    the factor is, or where the result is no AUROC: then an assumption fails, or the rates are too uncertain.
    """
    factor = Estimate(
        attenuation(rates.true_positive_rate, rates.true_negative_rate, share_expected),
        percentile_interval(attenuation(rates.draws[:, 0], rates.draws[:, 1], share_expected), confidence_level),
    )
    return _stretched(auroc, interval, factor, chance=0.5, bounds=(0.0, 1.0))


def corrected_correlation(
    correlation: float, with_reference: Estimate, interval: ConfidenceInterval = UNDEFINED
) -> Estimate:
    """Return the correlation with true effects, given the one with a judge's and the judge's with a reference.

    Spearman (1904, Am J Psychol 15:72), for error in one variable, the reference taken as free of it. Rank
    correlations follow it only about. NaN where the judge does not correlate positively with the reference, or where
    the result is no correlation.
    """
    return _stretched(correlation, interval, with_reference, chance=0.0, bounds=(-1.0, 1.0))


def _stretched(
    estimate: float, interval: ConfidenceInterval, factor: Estimate, *, chance: float, bounds: tuple[float, float]
) -> Estimate:
    """Return an estimate with its distance from chance divided by `factor`; an interval's ends are cut at `bounds`."""
    if not factor.estimate > 0:
        return Estimate(math.nan, UNDEFINED)
    corrected = chance + (estimate - chance) / factor.estimate
    if not bounds[0] <= corrected <= bounds[1]:
        return Estimate(math.nan, UNDEFINED)
    distance = Estimate(estimate - chance, ConfidenceInterval(interval.low - chance, interval.high - chance))
    low, high = (chance + end for end in _ratio_interval(distance, factor))
    if math.isnan(low) or math.isnan(high):
        return Estimate(corrected, UNDEFINED)
    return Estimate(corrected, ConfidenceInterval(max(low, bounds[0]), min(high, bounds[1])))


def _ratio_interval(above: Estimate, below: Estimate) -> ConfidenceInterval:
    """Return the interval of the ratio of two independent estimates from their intervals, `below` being positive.

    Recovered variances (MOVER; Donner and Zou 2012, Stat Methods Med Res 21:347): the end of the ratio is where the
    difference of numerator and ratio times denominator has 0 as its own end. Undefined where the denominator may be 0
    or could not be estimated.
    """
    product = above.estimate * below.estimate

    def end(own: float, sign: int) -> float:
        # A ratio of this end's sign is farthest out with a small denominator outward, with a large one inward.
        other = below.confidence_interval.low if own * sign >= 0 else below.confidence_interval.high
        scale = other * (2 * below.estimate - other)
        if not (below.confidence_interval.low > 0 and scale > 0):
            return math.nan
        under_root = product**2 - own * (2 * above.estimate - own) * scale
        return (product + sign * math.sqrt(max(under_root, 0.0))) / scale

    return ConfidenceInterval(end(above.confidence_interval.low, -1), end(above.confidence_interval.high, 1))


class Counts(NamedTuple):
    """Pairs of explanation and behavior by what two judges expect; numbers, or arrays of one shape."""

    neither: Any
    only_first: Any
    only_second: Any
    both: Any


def cohen_kappa(counts: Counts) -> Any:
    """Return Cohen's kappa (1960, Educ Psychol Meas 20:37): agreement beyond what the judges' shares give by chance.

    NaN where both judges expect everything, or both nothing.
    """
    neither, first, second, both = (np.asarray(count, float) for count in counts)
    total = neither + first + second + both
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = (neither + both) / total
        by_chance = ((both + first) * (both + second) + (neither + first) * (neither + second)) / total**2
        return _number(np.where(by_chance < 1, (observed - by_chance) / (1 - by_chance), np.nan))


def matthews_correlation(counts: Counts) -> Any:
    """Return Matthews' correlation (1975, Biochim Biophys Acta 405:442), the correlation of two yes-or-no judges.

    NaN where a judge expects everything or nothing.
    """
    neither, first, second, both = (np.asarray(count, float) for count in counts)
    scale = np.sqrt((both + first) * (both + second) * (neither + first) * (neither + second))
    with np.errstate(divide="ignore", invalid="ignore"):
        return _number(np.where(scale > 0, (neither * both - first * second) / scale, np.nan))


def true_positive_rate(counts: Counts) -> Any:
    """Return the share of the second judge's expected items that the first expects too; NaN if there are none."""
    return _share(counts.both, counts.only_second)


def true_negative_rate(counts: Counts) -> Any:
    """Return the share of the second judge's unexpected items that the first does not expect; NaN if there are none."""
    return _share(counts.neither, counts.only_first)


STATISTICS = {
    "kappa": cohen_kappa,
    "mcc": matthews_correlation,
    "true_positive_rate": true_positive_rate,
    "true_negative_rate": true_negative_rate,
}


def agreement_of_judges(
    first: ArrayLike,
    second: ArrayLike,
    clusters: ArrayLike,
    *,
    confidence_level: float = 0.95,
    n_resamples: int = N_BOOTSTRAP,
    rng: np.random.Generator | int | None = 0,
) -> dict[str, Estimate]:
    """Return kappa, mcc, true-positive and true-negative rate of `first` against `second`, with their intervals.

    Parameters
    ----------
    first, second : (n,) bool
        Whether each judge expects the pair of latent and behavior.
    clusters : (n,) int
        The explanation that a pair belongs to. An explanation is judged once, for all behaviors and all latents that
        have it, so explanations are what the percentile bootstrap draws.
    confidence_level : float
        Level of the intervals; a statistic that is undefined in more than one in ten draws has none.
    n_resamples : int
        Draws.
    rng : numpy.random.Generator, int or None
        Where the draws come from.
    """
    whole, drawn = _counted(first, second, clusters, n_resamples, rng)
    return {
        name: Estimate(statistic(whole), percentile_interval(statistic(drawn), confidence_level))
        for name, statistic in STATISTICS.items()
    }


def error_rates(
    judge: ArrayLike,
    reference: ArrayLike,
    clusters: ArrayLike,
    *,
    n_resamples: int = N_BOOTSTRAP,
    rng: np.random.Generator | int | None = 0,
) -> ErrorRates:
    """Return how often a judge is right about a reference; parameters as in `agreement_of_judges`."""
    whole, drawn = _counted(judge, reference, clusters, n_resamples, rng)
    draws = np.stack([true_positive_rate(drawn), true_negative_rate(drawn)], axis=1)
    wrong = np.unique(np.asarray(clusters)[np.asarray(judge, bool) & ~np.asarray(reference, bool)])
    if len(wrong) < MIN_WRONG:
        draws[:] = np.nan
    return ErrorRates(true_positive_rate(whole), true_negative_rate(whole), draws)


def _counted(
    first: ArrayLike,
    second: ArrayLike,
    clusters: ArrayLike,
    n_resamples: int,
    rng: np.random.Generator | int | None,
) -> tuple[Counts, Counts]:
    """Return the counts of all pairs, and those of every resample of clusters; NaN in these with a single cluster."""
    first, second = _as_labels("first", first), _as_labels("second", second)
    if first.shape != second.shape or np.shape(clusters) != first.shape:
        raise InputError(
            f"judgements of shapes {first.shape} and {second.shape}, clusters of {np.shape(clusters)}",
            allowed="one length for all",
        )
    codes = np.unique(clusters, return_inverse=True)[1]
    kinds = np.zeros((int(codes.max()) + 1, 4))
    np.add.at(kinds, (codes, first.astype(int) + 2 * second.astype(int)), 1)
    generator, n_clusters = np.random.default_rng(rng), len(kinds)
    draws = np.full((n_resamples, 4), np.nan)
    if n_clusters > 1:
        for draw in draws:
            times = np.bincount(generator.integers(n_clusters, size=n_clusters), minlength=n_clusters)
            draw[:] = times @ kinds
    return Counts(*kinds.sum(axis=0)), Counts(*draws.T)


def rank_agreement(
    first: ArrayLike, second: ArrayLike, clusters: ArrayLike, *, confidence_level: float = 0.95
) -> Estimate:
    """Return Spearman's correlation of two judges' expected effects, (n,) float each, with its interval.

    The interval is the infinitesimal jackknife over `clusters` (n,), explanations as in `agreement_of_judges`. NaN
    where a judge gives every pair the same effect.
    """
    first, second = as_finite("first", first, n_dims=1), as_finite("second", second, n_dims=1)
    if not (np.ptp(first) > 0 and np.ptp(second) > 0):
        return Estimate(math.nan, UNDEFINED)
    estimate = float(spearman(first, second))
    codes = np.unique(clusters, return_inverse=True)[1]
    if codes.max() < 1:
        return Estimate(estimate, UNDEFINED)
    return Estimate(estimate, spearman_interval(estimate, first, second, codes, confidence_level))


def _share(part: ArrayLike, rest: ArrayLike) -> Any:
    part, rest = np.asarray(part, float), np.asarray(rest, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _number(part / (part + rest))


def _number(value: np.ndarray) -> Any:
    """Return a single value as a float, several as they are."""
    return float(value) if np.ndim(value) == 0 else value


def _as_labels(name: str, labels: ArrayLike) -> np.ndarray:
    if np.ndim(labels) != 1 or not np.size(labels):
        raise InputError(f"{name} has shape {np.shape(labels)}", allowed="(n,) with at least one judgement")
    return as_binary(labels, np.size(labels))
