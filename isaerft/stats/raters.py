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


class PredictiveValues(NamedTuple):
    """Share of those called expected that truly are, and of those not called so that truly are not."""

    positive: float
    negative: float


class Estimate(NamedTuple):
    """An estimate and its confidence interval; NaN where undefined."""

    estimate: float
    confidence_interval: ConfidenceInterval


NO_VALUES = PredictiveValues(math.nan, math.nan)


def predictive_values(sensitivity: float, specificity: float, share_expected: float) -> PredictiveValues:
    """Return the reliability of a judge's labels when it calls `share_expected` of the latents expected.

    The true share is that of Rogan and Gladen (1978, Am J Epidemiol 107:71):
    (share_expected + specificity - 1) / (sensitivity + specificity - 1). NaN where the judge is no better than chance
    (sensitivity + specificity <= 1), or where that share is not between 0 and 1: then these rates cannot have given
    these labels.
    """
    informed = sensitivity + specificity - 1
    if not (informed > 0 and 0 < share_expected < 1):
        return NO_VALUES
    true_share = (share_expected + specificity - 1) / informed
    if not 0 < true_share < 1:
        return NO_VALUES
    positive = sensitivity * true_share / share_expected
    negative = specificity * (1 - true_share) / (1 - share_expected)
    return PredictiveValues(min(positive, 1.0), min(negative, 1.0))


def corrected_auroc(auroc: float, values: PredictiveValues, interval: ConfidenceInterval = UNDEFINED) -> Estimate:
    """Return the AUROC against true labels, given the one against a judge's and its interval.

    With labels from a mixture, the AUROC's distance from 1/2 shrinks by positive + negative - 1 (Menon, van Rooyen, Ong
    and Williamson 2015, ICML, corollary 3): a drawn pair is of two truly different latents, in the right order or in
    the wrong one, or of two alike, when it says nothing. NaN where that factor is not above 0, or where the result is
    no AUROC: then an assumption fails, or the rates are too uncertain.
    """
    return _stretched(auroc, interval, values.positive + values.negative - 1, chance=0.5, bounds=(0.0, 1.0))


def corrected_correlation(
    correlation: float, with_reference: float, interval: ConfidenceInterval = UNDEFINED
) -> Estimate:
    """Return the correlation with true effects, given the one with a judge's and the judge's with a reference.

    Spearman (1904, Am J Psychol 15:72), for error in one variable, the reference taken as free of it. Rank
    correlations follow it only about. NaN where the judge does not correlate positively with the reference, or where
    the result is no correlation.
    """
    return _stretched(correlation, interval, with_reference, chance=0.0, bounds=(-1.0, 1.0))


def _stretched(
    estimate: float, interval: ConfidenceInterval, factor: float, *, chance: float, bounds: tuple[float, float]
) -> Estimate:
    """Return an estimate with its distance from chance divided by `factor`; an interval's ends are cut at `bounds`."""
    if not factor > 0:
        return Estimate(math.nan, UNDEFINED)
    corrected, low, high = (chance + (value - chance) / factor for value in (estimate, *interval))
    if not bounds[0] <= corrected <= bounds[1]:
        return Estimate(math.nan, UNDEFINED)
    return Estimate(corrected, ConfidenceInterval(max(low, bounds[0]), min(high, bounds[1])))


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


def sensitivity(counts: Counts) -> Any:
    """Return the share of the second judge's expected items that the first expects too; NaN if there are none."""
    return _share(counts.both, counts.only_second)


def specificity(counts: Counts) -> Any:
    """Return the share of the second judge's unexpected items that the first does not expect; NaN if there are none."""
    return _share(counts.neither, counts.only_first)


STATISTICS = {
    "kappa": cohen_kappa,
    "mcc": matthews_correlation,
    "sensitivity": sensitivity,
    "specificity": specificity,
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
    """Return kappa, mcc, sensitivity and specificity of `first` against `second`, with their intervals.

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
    draws = np.empty((n_resamples, 4))
    for draw in draws:
        times = np.bincount(generator.integers(n_clusters, size=n_clusters), minlength=n_clusters)
        draw[:] = times @ kinds
    whole, drawn = Counts(*kinds.sum(axis=0)), Counts(*draws.T)
    return {
        name: Estimate(
            statistic(whole),
            percentile_interval(statistic(drawn), confidence_level) if n_clusters > 1 else UNDEFINED,
        )
        for name, statistic in STATISTICS.items()
    }


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
