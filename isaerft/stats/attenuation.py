"""What agreement would be if the judge made no mistakes, given how often it makes which.

A judge that calls some latents wrongly expected, or wrongly not, pulls every agreement towards chance. Where its rates
of error are known against a reference, the pull can be taken back, on two assumptions: the errors have nothing to do
with how much a latent changed once its true kind is given, and the rates hold on these latents.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from isaerft.stats.intervals import UNDEFINED as NO_INTERVAL
from isaerft.stats.intervals import ConfidenceInterval


class PredictiveValues(NamedTuple):
    """Share of those called expected that truly are, and of those not called so that truly are not."""

    positive: float
    negative: float


class Corrected(NamedTuple):
    """A corrected estimate and its interval, which takes the judge's rates as known exactly; NaN where undefined."""

    estimate: float
    confidence_interval: ConfidenceInterval


UNDEFINED = PredictiveValues(math.nan, math.nan)


def predictive_values(sensitivity: float, specificity: float, share_expected: float) -> PredictiveValues:
    """Return how far a judge's labels can be trusted, where it calls `share_expected` of the latents expected.

    The true share is that of Rogan and Gladen (1978, Am J Epidemiol 107:71):
    (share_expected + specificity - 1) / (sensitivity + specificity - 1). NaN where the judge is no better than chance
    (sensitivity + specificity <= 1), or where that share is not between 0 and 1: then these rates cannot have given
    these labels.
    """
    informed = sensitivity + specificity - 1
    if not (informed > 0 and 0 < share_expected < 1):
        return UNDEFINED
    true_share = (share_expected + specificity - 1) / informed
    if not 0 < true_share < 1:
        return UNDEFINED
    positive = sensitivity * true_share / share_expected
    negative = specificity * (1 - true_share) / (1 - share_expected)
    return PredictiveValues(min(positive, 1.0), min(negative, 1.0))


def corrected_auroc(auroc: float, values: PredictiveValues, interval: ConfidenceInterval = NO_INTERVAL) -> Corrected:
    """Return the AUROC against true labels, given the one against a judge's and its interval.

    With labels from a mixture, the AUROC's distance from 1/2 shrinks by positive + negative - 1 (Menon, van Rooyen, Ong
    and Williamson 2015, ICML, corollary 3): a drawn pair is of two truly different latents, in the right order or in
    the wrong one, or of two alike, when it says nothing. NaN where that factor is not above 0, or where the result is
    no AUROC: then an assumption fails, or the rates are too uncertain.
    """
    return _stretched(auroc, interval, values.positive + values.negative - 1, chance=0.5, bounds=(0.0, 1.0))


def corrected_correlation(
    correlation: float, with_reference: float, interval: ConfidenceInterval = NO_INTERVAL
) -> Corrected:
    """Return the correlation with true effects, given the one with a judge's and the judge's with a reference.

    Spearman (1904, Am J Psychol 15:72), for error in one variable, the reference taken as free of it. Rank
    correlations follow it only about. NaN where the judge does not correlate positively with the reference, or where
    the result is no correlation.
    """
    return _stretched(correlation, interval, with_reference, chance=0.0, bounds=(-1.0, 1.0))


def _stretched(
    estimate: float, interval: ConfidenceInterval, factor: float, *, chance: float, bounds: tuple[float, float]
) -> Corrected:
    """Return an estimate with its distance from chance divided by `factor`; an interval's ends are cut at `bounds`."""
    if not factor > 0:
        return Corrected(math.nan, NO_INTERVAL)
    corrected, low, high = (chance + (value - chance) / factor for value in (estimate, *interval))
    if not bounds[0] <= corrected <= bounds[1]:
        return Corrected(math.nan, NO_INTERVAL)
    return Corrected(corrected, ConfidenceInterval(max(low, bounds[0]), min(high, bounds[1])))
