"""Audit a data set: which latents and expectations differ between training on it and on a clean one?

Each seed trains on its own random share f of the rows of either set, so the spread over seeds includes the noise of
the rows. K such subsamples estimate the difference on other rows of the same origins (delete-d jackknife,
Shao and Wu 1989, Annals of Statistics 17). With s^2 the variance between seeds of a mean over rows, given the rows,

    Var(mean over seeds) = s^2 (f / (1 - f) + 1 / K)

f / (1 - f) is the noise of the rows, 1 / K that of drawing only K subsamples. If every seed saw all rows (f = 1) the
first part is unknown, and no p-value is given.

With few seeds s^2 itself is uncertain, so the variances of all latents are moderated by each other: the moderated t of
Smyth 2004 (Statistical Applications in Genetics and Molecular Biology 3, 3; limma's eBayes).

>>> import numpy as np
>>> rng = np.random.default_rng(0)
>>> clean, suspect = rng.normal(size=(2, 4, 200))
>>> suspect[:, 0] += 20
>>> found = moderated_means(suspect - clean, variance_factor(0.5, 4))
>>> int(np.argmin(found.pvalue))
0
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import digamma, polygamma
from scipy.stats import t as student

from isaerft.errors import InputError
from isaerft.registry import STATISTICS
from isaerft.stats.checks import as_finite
from isaerft.stats.intervals import ConfidenceInterval
from isaerft.stats.overall import pooled_agreements
from isaerft.stats.statistics import auroc, spearman

_LARGEST_PRIOR = 1e6
_STATISTICS = {"auroc": auroc, "spearman": spearman}


@dataclass(frozen=True)
class ModeratedMeans:
    """Means over seeds with moderated t statistics.

    Parameters
    ----------
    mean : (m,) float
    standard_error : (m,) float
        NaN where it cannot be known: one seed, or seeds that all saw the same rows.
    degrees_of_freedom : float
        Those of the seeds and of the prior together; infinite where all variances are alike.
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


@dataclass(frozen=True)
class Taught:
    """How far the difference between two data sets agrees with what one candidate would do.

    Parameters
    ----------
    estimate : float
        Mean over seeds of the statistic of the difference against the candidate's expectation.
    confidence_interval : ConfidenceInterval
        Over seeds and rows.
    pvalue_rows : float
        Chance of so high an estimate between two draws of rows from one origin, by the spread over subsamples.
    pvalue_exchange : float
        Chance of so high an estimate for exchanged explanations.
    """

    estimate: float
    confidence_interval: ConfidenceInterval
    pvalue_rows: float
    pvalue_exchange: float

    @property
    def pvalue(self) -> float:
        """The larger of the two: both nulls have to fall (intersection-union test, Berger 1982)."""
        return max(self.pvalue_rows, self.pvalue_exchange) if math.isfinite(self.pvalue_rows) else math.nan


def variance_factor(share: float, n_seeds: int) -> float:
    """Return what the variance between seeds is multiplied by to get that of their mean over other rows, too.

    Parameters
    ----------
    share : float
        Share of the rows that each seed saw, 0 to 1.

    Returns
    -------
    float
        share / (1 - share) + 1 / n_seeds; NaN at a share of 1, where seeds know nothing of other rows.
    """
    if not 0 < share <= 1:
        raise InputError(f"share of rows {share!r}", allowed="above 0, at most 1")
    return share / (1 - share) + 1 / n_seeds if share < 1 else math.nan


def moderated_means(values: ArrayLike, factor: float) -> ModeratedMeans:
    """Return the means over seeds with moderated standard errors.

    Parameters
    ----------
    values : (n_seeds, m) float
        One row per seed.
    factor : float
        See `variance_factor`.

    Notes
    -----
    Smyth 2004, section 6.2: with z = log s^2, its variance beyond that of a scaled chi-square with n_seeds - 1 degrees
    of freedom gives the prior's degrees of freedom d0; each variance becomes (d0 s0^2 + d s^2) / (d0 + d). Without two
    positive variances there is no prior, and this is the plain t.
    """
    array = as_finite("values", values, n_dims=2)
    n_seeds = array.shape[0]
    mean = array.mean(axis=0)
    if n_seeds < 2 or not math.isfinite(factor):
        return ModeratedMeans(mean, np.full(mean.shape, math.nan), math.nan)
    variance, own = array.var(axis=0, ddof=1), n_seeds - 1
    prior_df, prior = _prior(variance[variance > 0], own)
    if math.isinf(prior_df):
        moderated = np.full(variance.shape, prior)
    else:
        moderated = (prior_df * prior + own * variance) / (prior_df + own)
    return ModeratedMeans(mean, np.sqrt(factor * moderated), prior_df + own)


def taught_differently(
    clean: ArrayLike,
    suspect: ArrayLike,
    expected: ArrayLike,
    *,
    share: float,
    statistic: str = "auroc",
    strata: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    confounds: ArrayLike | None = None,
    n_resamples: int = 9999,
    confidence_level: float = 0.95,
    rng: np.random.Generator | int | None = None,
) -> list[Taught]:
    """Test for each candidate whether the suspect data teaches more of it than the clean data.

    Parameters
    ----------
    clean, suspect : (n_seeds, n) float
        Changes of the latents; seeds with one number start and order their rows alike and are paired.
    expected : (n_candidates, n) bool for auroc, float for spearman
        What each candidate would change; none may expect all or no latent.
    share : float
        Share of the rows that each seed saw.
    statistic : {"auroc", "spearman"}
    strata, clusters : (n,) int, optional
    confounds : (k, n) float, optional
        As in `agreement_test`.

    Returns
    -------
    list of Taught
        One per candidate; the variances of candidates are moderated together.
    """
    differences = as_finite("suspect", suspect, n_dims=2) - as_finite("clean", clean, n_dims=2)
    labels = np.asarray(expected)
    found = pooled_agreements(
        [(differences, row[None]) for row in labels],
        statistic=statistic,
        strata=strata,
        clusters=clusters,
        confounds=confounds,
        n_resamples=n_resamples,
        rng=rng,
    )
    of_seed, facts = _STATISTICS[statistic], STATISTICS.facts(statistic)
    by_seed = np.array([of_seed(difference, labels) for difference in differences])
    means = moderated_means(by_seed, variance_factor(share, len(differences)))
    ends = means.intervals(confidence_level).clip(*facts.bounds)
    return [
        Taught(result.statistic, ConfidenceInterval(float(low), float(high)), float(rows), result.pvalue)
        for result, (low, high), rows in zip(found, ends, means.above(facts.chance or 0.0), strict=True)
    ]


def _prior(variances: np.ndarray, degrees_of_freedom: int) -> tuple[float, float]:
    """Return the prior's degrees of freedom and variance, from variances (m,) with so many degrees of freedom each."""
    if variances.size < 2:
        return 0.0, 0.0
    half = degrees_of_freedom / 2
    logs = np.log(variances) - digamma(half) + math.log(half)
    excess = float(logs.var(ddof=1) - polygamma(1, half))
    if excess <= polygamma(1, _LARGEST_PRIOR / 2):
        return math.inf, float(np.exp(logs.mean()))
    prior = 2 * brentq(lambda x: polygamma(1, x) - excess, 1e-9, _LARGEST_PRIOR)
    return prior, float(np.exp(logs.mean() + digamma(prior / 2) - math.log(prior / 2)))


def _ratio(mean: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Return mean / error, 0 where both are 0 and infinite where only the error is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((mean == 0) & (error == 0), 0.0, mean / error)
