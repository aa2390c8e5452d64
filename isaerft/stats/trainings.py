"""The test of one behavior: does its training agree with its expectations better than other trainings do?

Latents of one meaning move together, so labels cannot be exchanged between latents as if each moved on its own: on a
real dictionary such a test rejects two to four times too many true nulls. Trainings can be compared. The statistic of
the behavior's own training is held against the statistic of the *same* expectations under trainings on other
behaviors. Whatever the latents' geometry makes of a training that has nothing to do with these expectations is in that
distribution: the value by chance (which need not be 0.5 for an AUROC), and the spread.

>>> result = against_others(0.80, [0.52, 0.45, 0.61, 0.38, 0.50, 0.47, 0.55])
>>> round(result.null_mean, 2), round(result.pvalue, 4)
(0.5, 0.0043)

With few other trainings this is the t-test of one new observation against n others (Student's t with n - 1 degrees of
freedom; Sokal and Rohlf, Biometry, section 9.6; in neuropsychology Crawford and Howell 1998).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import nct
from scipy.stats import t as student

from isaerft.errors import InputError
from isaerft.stats.checks import as_finite, as_groups, as_share
from isaerft.stats.intervals import UNDEFINED, ConfidenceInterval

MIN_OTHERS = 4
"""Fewest other trainings: with 3, p < 0.01 needs 8 standard deviations, and their spread is hardly known."""


@dataclass(frozen=True)
class TrainingsResult:
    """Result of `against_others`.

    Parameters
    ----------
    statistic : float
        Of the behavior's own training.
    pvalue : float
        One-sided (greater): chance of so high a statistic if the training were one more of the others. NaN with fewer
        than `MIN_OTHERS`.
    confidence_interval : ConfidenceInterval
        Of the statistic over trainings on this behavior, if they spread as the others do; NaN with too few.
    null_mean, null_sd : float
        Mean and standard deviation (n_others - 1) of the statistic over the other trainings.
    n_others : int
        Other trainings; those of one family are one.
    """

    statistic: float
    pvalue: float
    confidence_interval: ConfidenceInterval
    null_mean: float
    null_sd: float
    n_others: int

    def minimum_detectable_effect(self, power: float = 0.8, level: float = 0.05) -> float:
        """Return the true value of the statistic that reaches p < `level` with chance `power`; NaN with too few others.

        From the noncentral t distribution, at the spread that was found.
        """
        if self.n_others < MIN_OTHERS:
            return math.nan
        noncentrality = _detectable(self.n_others - 1, power, as_share("level", level))
        return self.null_mean + noncentrality * self.null_sd * math.sqrt(1 + 1 / self.n_others)


@lru_cache
def _detectable(df: int, power: float, level: float) -> float:
    """Return the noncentrality at which a one-sided t-test of `df` degrees of freedom has the given power."""
    critical = float(student.isf(level, df))
    low, high = 0.0, 1.0
    while nct.sf(critical, df, high) < power:
        low, high = high, 2 * high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if nct.sf(critical, df, middle) < power else (low, middle)
    return high


def against_others(
    own: float,
    others: ArrayLike,
    *,
    confidence_level: float = 0.95,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> TrainingsResult:
    """Compare the statistic of a training with that of other trainings, for the same expectations.

    Parameters
    ----------
    own : float
    others : (n_others,) float
        One value per independent training; those of one family are averaged first (see `others_of`).
    bounds : (float, float)
        Lowest and highest possible value of the statistic, at which the interval ends.

    Raises
    ------
    InputError
        NaN.
    """
    as_share("confidence_level", confidence_level)
    values = as_finite("others", others, n_dims=1)
    n = len(values)
    mean = float(values.mean()) if n else math.nan
    if n < MIN_OTHERS:
        return TrainingsResult(own, math.nan, UNDEFINED, mean, math.nan, n)
    sd = float(values.std(ddof=1))
    error = sd * math.sqrt(1 + 1 / n)
    excess = own - mean
    statistic = excess / error if error > 0 else math.copysign(math.inf, excess) if excess else 0.0
    reach = float(student.ppf((1 + confidence_level) / 2, n - 1)) * sd
    low, high = max(own - reach, bounds[0]), min(own + reach, bounds[1])
    return TrainingsResult(own, float(student.sf(statistic, n - 1)), ConfidenceInterval(low, high), mean, sd, n)


def others_of(column: ArrayLike, own: int, families: ArrayLike | None = None) -> np.ndarray:
    """Return one value per other family of trainings, (n_others,): the mean of its trainings' values.

    Parameters
    ----------
    column : (n_trainings,) float
        The statistic of every training for the same expectations; NaN where it is undefined, which is left out.
    own : int
        Position of the behavior's own training.
    families : (n_trainings,) int, optional
        Trainings of one family are variants of one behavior. Default: each is one of its own.
    """
    values = np.asarray(column, dtype=np.float64)
    if values.ndim != 1:
        raise InputError(f"column has shape {values.shape}", allowed="(n_trainings,)")
    family = np.arange(values.size) if families is None else as_groups("families", families, values.size)
    used = np.isfinite(values) & (family != family[own])
    return np.array([values[used & (family == code)].mean() for code in np.unique(family[used])])


def placebo_pvalue(own: float, placebos: ArrayLike) -> float:
    """Return (b + 1) / (m + 1), b of m placebo trainings having a statistic of at least `own`; NaN without any.

    A placebo training is one on neutral completions: what fine-tuning does to these latents whatever is taught.
    """
    values = as_finite("placebos", placebos, n_dims=1)
    return (int(np.count_nonzero(values >= own)) + 1) / (len(values) + 1) if len(values) else math.nan
