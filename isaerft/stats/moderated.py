"""The moderated t: variances of many units, each from few replicates, lend each other strength.

Each variance is drawn toward a prior that is estimated from all of them (Smyth 2004, Statistical Applications in
Genetics and Molecular Biology 3, 3; limma's eBayes). The prior's degrees of freedom are themselves an estimate, and one
that takes the units as independent. From few units it is often infinite by chance, and the test then rejects too often;
so fewer than `MIN_MODERATED` units keep their own variances, which gives the plain t.

>>> import numpy as np
>>> values = np.random.default_rng(0).normal(size=(4, 200))
>>> values[:, 0] += 20
>>> int(np.argmin(moderated_means(values, 1 / 4).pvalue))
0
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import digamma, polygamma
from scipy.stats import t as student

from isaerft.stats.checks import as_finite

MIN_MODERATED = 8
"""Fewest units whose variances are moderated by each other."""
_LARGEST_PRIOR = 1e6


class VariancePrior(NamedTuple):
    """What is known of a variance before its own replicates are seen.

    Attributes
    ----------
    degrees_of_freedom : float
        How many degrees of freedom of data it is worth: 0 for no prior, infinite where all variances are alike.
    variance : float
    """

    degrees_of_freedom: float
    variance: float

    def moderate(self, variances: np.ndarray, degrees_of_freedom: int) -> np.ndarray:
        """Return `variances` (m,), each from so many degrees of freedom, drawn toward the prior."""
        if math.isinf(self.degrees_of_freedom):
            return np.full(variances.shape, self.variance)
        total = self.degrees_of_freedom + degrees_of_freedom
        return (self.degrees_of_freedom * self.variance + degrees_of_freedom * variances) / total


NO_PRIOR = VariancePrior(0.0, 0.0)


def variance_prior(variances: np.ndarray, degrees_of_freedom: int) -> VariancePrior:
    """Estimate the prior from variances (m,) of independent units, each with so many degrees of freedom.

    Notes
    -----
    Smyth 2004, section 6.2: with z = log s^2, its variance beyond that of a scaled chi-square gives the prior's degrees
    of freedom, its mean the prior's variance. Variances of 0 say nothing of the prior and are left out; fewer than
    `MIN_MODERATED` others give no prior.
    """
    positive = variances[variances > 0]
    if positive.size < MIN_MODERATED:
        return NO_PRIOR
    half = degrees_of_freedom / 2
    logs = np.log(positive) - digamma(half) + math.log(half)
    excess = float(logs.var(ddof=1) - polygamma(1, half))
    if excess <= polygamma(1, _LARGEST_PRIOR / 2):
        return VariancePrior(math.inf, float(np.exp(logs.mean())))
    prior = 2 * brentq(lambda x: polygamma(1, x) - excess, 1e-9, _LARGEST_PRIOR)
    return VariancePrior(prior, float(np.exp(logs.mean() + digamma(prior / 2) - math.log(prior / 2))))


@dataclass(frozen=True)
class ModeratedMeans:
    """Means over replicates with moderated t statistics.

    Parameters
    ----------
    mean : (m,) float
    standard_error : (m,) float
        NaN where it cannot be known.
    degrees_of_freedom : float
        Those of the replicates and of the prior together; infinite where all variances are alike.
    """

    mean: np.ndarray
    standard_error: np.ndarray
    degrees_of_freedom: float

    @property
    def statistic(self) -> np.ndarray:
        """Moderated t, (m,); 0 where the mean is 0, whatever its error."""
        return _ratio(self.mean, self.standard_error)

    @property
    def pvalue(self) -> np.ndarray:
        """Two-sided p-values, (m,)."""
        return 2 * student.sf(np.abs(self.statistic), self.degrees_of_freedom)

    def above(self, value: float) -> np.ndarray:
        """Return one-sided p-values, (m,): that the true mean is no larger than `value`."""
        return student.sf(_ratio(self.mean - value, self.standard_error), self.degrees_of_freedom)

    def intervals(self, confidence_level: float) -> np.ndarray:
        """Return the ends of confidence intervals, (m, 2)."""
        reach = student.ppf((1 + confidence_level) / 2, self.degrees_of_freedom) * self.standard_error
        return np.stack([self.mean - reach, self.mean + reach], axis=1)


def moderated_means(values: ArrayLike, factor: float, *, moderate: bool = True) -> ModeratedMeans:
    """Return the means over replicates with moderated standard errors.

    Parameters
    ----------
    values : (n_replicates, m) float
        One row per replicate; m units whose errors are independent of each other.
    factor : float
        What the variance between replicates is multiplied by to get that of their mean: 1 / n_replicates where they
        are independent. NaN where that is unknown; then so are the standard errors.
    moderate : bool
        False for units that share their errors: the plain t.
    """
    array = as_finite("values", values, n_dims=2)
    n_replicates = array.shape[0]
    mean = array.mean(axis=0)
    if n_replicates < 2 or not math.isfinite(factor):
        return ModeratedMeans(mean, np.full(mean.shape, math.nan), math.nan)
    variance, own = array.var(axis=0, ddof=1), n_replicates - 1
    prior = variance_prior(variance, own) if moderate else NO_PRIOR
    return ModeratedMeans(mean, np.sqrt(factor * prior.moderate(variance, own)), prior.degrees_of_freedom + own)


def _ratio(mean: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Return mean / error, 0 where both are 0 and infinite where only the error is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((mean == 0) & (error == 0), 0.0, mean / error)
