"""Audit a data set: which latents and expectations differ between training on it and on a clean one?

Each seed trains on its own random share f of the rows of either set, so the spread over seeds includes the noise of
the rows. K such subsamples estimate the difference on other rows of the same origins (delete-d jackknife,
Shao and Wu 1989, Annals of Statistics 17). With s^2 the variance between seeds of a mean over rows, given the rows,

    Var(mean over seeds) = s^2 (f / (1 - f) + 1 / K)

f / (1 - f) is the noise of the rows, 1 / K that of drawing only K subsamples. If every seed saw all rows (f = 1) the
first part is unknown, and no p-value is given; nor is it with fewer than `MIN_SEEDS` seeds, which hardly know s^2.

Two sets of rows from one origin are exchangeable, so by chance a statistic has its value without agreement, whatever
moves latents together; nothing is assumed of latents. A statistic near its bounds varies less than one in the middle,
so candidates are tested on its logit scale. They share the noise of the rows and overlap, so each has the plain t;
latents moderate the variances of each other (`isaerft.stats.moderated`).

>>> round(variance_factor(0.5, 4), 2)
1.25
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from isaerft.errors import InputError
from isaerft.registry import STATISTICS
from isaerft.stats.checks import as_finite
from isaerft.stats.intervals import ConfidenceInterval
from isaerft.stats.moderated import moderated_means
from isaerft.stats.specificity import specificity_matrix

MIN_SEEDS = 4
"""Fewest seeds whose spread is taken for that of other rows."""


@dataclass(frozen=True)
class Taught:
    """How far the difference between two data sets agrees with what one candidate would do.

    Parameters
    ----------
    estimate : float
        Mean over seeds of the statistic of the difference against the candidate's expectation.
    confidence_interval : ConfidenceInterval
        Over seeds and rows.
    pvalue : float
        Chance of so high an estimate between two draws of rows from one origin, by the spread over subsamples; NaN
        where that is not known.
    """

    estimate: float
    confidence_interval: ConfidenceInterval
    pvalue: float


def variance_factor(share: float, n_seeds: int) -> float:
    """Return what the variance between seeds is multiplied by to get that of their mean over other rows, too.

    Parameters
    ----------
    share : float
        Share of the rows that each seed saw, 0 to 1.

    Returns
    -------
    float
        share / (1 - share) + 1 / n_seeds; NaN at a share of 1, where seeds know nothing of other rows, and with fewer
        than `MIN_SEEDS`.
    """
    if not 0 < share <= 1:
        raise InputError(f"share of rows {share!r}", allowed="above 0, at most 1")
    return share / (1 - share) + 1 / n_seeds if share < 1 and n_seeds >= MIN_SEEDS else math.nan


def taught_differently(
    clean: ArrayLike,
    suspect: ArrayLike,
    expected: ArrayLike,
    *,
    share: float,
    statistic: str = "auroc",
    strata: ArrayLike | None = None,
    confidence_level: float = 0.95,
) -> list[Taught]:
    """Test for each candidate whether the suspect data teaches more of it than the clean data.

    Parameters
    ----------
    clean, suspect : (n_seeds, n) float
        Changes of the latents; seeds with one number start and order their rows alike and are paired.
    expected : (n_candidates, n) bool, or float for a graded statistic
        What each candidate would change; none may expect all or no latent.
    share : float
        Share of the rows that each seed saw.
    statistic : str
        A registered statistic whose value by chance is known.
    strata : (n,) int, optional
        As in `agreement_test`.

    Returns
    -------
    list of Taught
        One per candidate.

    Raises
    ------
    InputError
        NaN, or a seed in which both sets moved all latents alike.

    Notes
    -----
    A small p-value says that the suspect data, not a draw of its rows, moved the candidate's latents up. It does not
    say that the candidate is what the data teaches: latents of related candidates rise as well.
    """
    differences = as_finite("suspect", suspect, n_dims=2) - as_finite("clean", clean, n_dims=2)
    by_seed = specificity_matrix(differences, expected, statistic=statistic, strata=strata)
    facts = STATISTICS.facts(statistic)
    scale = _Scale(*facts.bounds, resolution=1 / (2 * differences.shape[1]))
    means = moderated_means(scale.of(by_seed), variance_factor(share, len(differences)), moderate=False)
    above = means.above(float(scale.of(np.array(facts.chance or 0.0))))
    ends = scale.back(means.intervals(confidence_level))
    # The mean on the logit scale is not the estimate, which near a bound may lie outside; taking it in costs nothing.
    estimates = by_seed.mean(axis=0)
    low, high = np.minimum(ends[:, 0], estimates), np.maximum(ends[:, 1], estimates)
    return [
        Taught(float(estimate), ConfidenceInterval(float(first), float(last)), float(pvalue))
        for estimate, first, last, pvalue in zip(estimates, low, high, above, strict=True)
    ]


@dataclass(frozen=True)
class _Scale:
    """The logit scale of a statistic between two bounds; the statistic itself where these are infinite."""

    low: float
    high: float
    resolution: float
    """How near a bound, as a share of the range, a value can be told from it."""

    def of(self, values: np.ndarray) -> np.ndarray:
        if not math.isfinite(self.high - self.low):
            return values
        share = ((values - self.low) / (self.high - self.low)).clip(self.resolution, 1 - self.resolution)
        return np.log(share / (1 - share))

    def back(self, values: np.ndarray) -> np.ndarray:
        return self.low + (self.high - self.low) * expit(values) if math.isfinite(self.high - self.low) else values
