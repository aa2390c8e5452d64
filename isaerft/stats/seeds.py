"""Seeds are replicates: average changes over them as ranks, and measure how well they agree before trusting a ranking.

>>> import numpy as np
>>> mean_rank(np.array([[0.1, 0.5, 0.9], [2.0, 1.0, 3.0]])).round(3).tolist()
[0.333, 0.333, 0.833]
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln
from scipy.stats import rankdata

from isaerft.errors import InputError
from isaerft.stats.checks import as_finite
from isaerft.stats.ranks import midranks

_MAX_SPLITS = 500


@dataclass(frozen=True)
class Reliability:
    """How far seeds agree on which latents changed; NaN with one seed.

    Parameters
    ----------
    n_seeds : int
        Number of seeds.
    mean_correlation : float
        Mean Spearman correlation between two seeds.
    split_half : float
        Reliability of the mean over all seeds, from the correlation between means of halves of the seeds.
    icc_single : float
        Reliability of one seed: intraclass correlation ICC(C,1) of ranks (McGraw and Wong 1996).
    icc_mean : float
        Reliability of the mean over all seeds: ICC(C,k).
    """

    n_seeds: int
    mean_correlation: float
    split_half: float
    icc_single: float
    icc_mean: float


def scaled_ranks(changes: ArrayLike) -> np.ndarray:
    """Return the rank of each latent within its seed, scaled to (rank - 0.5) / n, ties by midranks.

    `changes` is (n_seeds, n) float without NaN; so is the result.
    """
    array = _as_changes(changes)
    return (midranks(array) - 0.5) / array.shape[1]


def mean_rank(changes: ArrayLike) -> np.ndarray:
    """Return (n,) each latent's scaled rank, 0 to 1, averaged over the seeds of `changes` (n_seeds, n)."""
    return scaled_ranks(changes).mean(axis=0)


def reliability(changes: ArrayLike, *, rng: np.random.Generator | int | None = 0) -> Reliability:
    """Return how reliably seeds rank latents by change.

    Parameters
    ----------
    changes : (n_seeds, n) float
        Change of each latent in each seed. A seed in which all latents changed alike is an `InputError`.
    rng : numpy.random.Generator, int or None
        Draws 500 of the ways to halve the seeds where there are more (from 12 seeds on); otherwise unused.

    Returns
    -------
    Reliability

    Notes
    -----
    With an odd number of seeds the halves differ by one; the Spearman-Brown step then solves for the single-seed
    reliability under parallel seeds (Horst 1951). Reliability counts whatever seeds share, also what training does to
    any behavior.
    """
    ranks = scaled_ranks(changes)
    n_seeds, n = ranks.shape
    if n_seeds == 1:
        return Reliability(1, math.nan, math.nan, math.nan, math.nan)
    if (np.ptp(ranks, axis=1) == 0).any():
        raise InputError(
            f"in seed {int(np.argmin(np.ptp(ranks, axis=1)))} all {n} latents changed alike",
            remedy="leave that seed out and say so",
        )
    correlation = np.corrcoef(ranks)
    latent_means = ranks.mean(axis=0)
    seed_means = ranks.mean(axis=1, keepdims=True)
    between = n_seeds * ((latent_means - ranks.mean()) ** 2).sum() / (n - 1)
    residual = ((ranks - latent_means - seed_means + ranks.mean()) ** 2).sum() / ((n - 1) * (n_seeds - 1))
    return Reliability(
        n_seeds=n_seeds,
        mean_correlation=float(correlation[np.triu_indices(n_seeds, 1)].mean()),
        split_half=_split_half(np.cov(ranks), np.random.default_rng(rng)),
        icc_single=float((between - residual) / (between + (n_seeds - 1) * residual)),
        icc_mean=float((between - residual) / between) if between > 0 else -math.inf,
    )


def reliability_of_all(correlation: float, a: int, b: int) -> float:
    """Return the reliability of the mean of a + b seeds, from the correlation between means of `a` and of `b` of them.

    Solves c^2 = R(a) R(b) for the reliability r of one seed, R(m) = m r / (1 + (m - 1) r) (Spearman 1910, Brown 1910;
    for unequal parts Horst 1951). Of the sign of the correlation.
    """
    squared = correlation**2
    quadratic, linear = a * b - squared * (a - 1) * (b - 1), squared * (a + b - 2)
    single = (linear + math.sqrt(linear**2 + 4 * quadratic * squared)) / (2 * quadratic)
    single = math.copysign(single, correlation)
    total = a + b
    return total * single / (1 + (total - 1) * single) if single > 0 else single


def stability_pvalue(changes: ArrayLike) -> np.ndarray:
    """Return per latent the chance of a mean rank this high if every seed ranked latents at random, independently.

    Parameters
    ----------
    changes : (n_seeds, n) float
        Change of each latent in each seed.

    Returns
    -------
    (n,) float
        P-values, exact for untied changes and conservative with ties (each tied latent takes its group's lowest
        rank); never 0; NaN with one seed.

    Notes
    -----
    The sum of independent discrete uniform ranks (the Irwin-Hall, for a mean the Bates distribution, on a grid): with
    t = sum_s (n - rank_s), p = sum_j (-1)^j C(S, j) C(t - j n + S, S) / n^S. Small p says that seeds agree on this
    latent, not why: a latent that moves under any training is stable too.
    """
    array = _as_changes(changes)
    n_seeds, n = array.shape
    if n_seeds == 1:
        return np.full(n, np.nan)
    deficit = (n - rankdata(array, method="min", axis=1)).sum(axis=0)
    mirrored = deficit > n_seeds * (n - 1) / 2
    # Above the middle the alternating sum cancels badly; there 1 - P(sum of ranks below) is exact.
    tail = _sum_at_most(np.where(mirrored, n_seeds * (n - 1) - deficit - 1, deficit), n_seeds, n)
    return np.where(mirrored, 1 - tail, tail)


def _sum_at_most(total: np.ndarray, n_terms: int, n: int) -> np.ndarray:
    """Return P(sum of `n_terms` uniforms on 0 .. n - 1 <= total) for each `total`, at most the sum's middle."""
    result = np.zeros(total.shape)
    for j in range(n_terms + 1):
        left = total - j * n
        inside = left >= 0
        if not inside.any():
            break
        choose = gammaln(n_terms + 1) - gammaln(j + 1) - gammaln(n_terms - j + 1)
        spread = np.where(inside, left, 0)
        log_count = gammaln(spread + n_terms + 1) - gammaln(spread + 1) - gammaln(n_terms + 1)
        result += np.where(inside, (-1.0) ** j * np.exp(choose + log_count - n_terms * math.log(n)), 0.0)
    return np.clip(result, 0.0, 1.0)


def _split_half(covariance: np.ndarray, rng: np.random.Generator) -> float:
    """Return the reliability of all seeds, averaged over halvings, from their `covariance` (n_seeds, n_seeds)."""
    n_seeds = len(covariance)
    size = n_seeds // 2
    n_splits = math.comb(n_seeds, size)
    if n_splits <= _MAX_SPLITS:
        halves = [list(half) for half in combinations(range(n_seeds), size)]
    else:
        halves = [rng.permutation(n_seeds)[:size].tolist() for _ in range(_MAX_SPLITS)]
    values = []
    for half in halves:
        first = np.isin(np.arange(n_seeds), half)
        a, b = first / size, ~first / (n_seeds - size)
        scale = math.sqrt((a @ covariance @ a) * (b @ covariance @ b))
        if scale > 0:
            values.append(reliability_of_all((a @ covariance @ b) / scale, size, n_seeds - size))
    return float(np.mean(values)) if values else math.nan


def _as_changes(changes: ArrayLike) -> np.ndarray:
    """Return `changes` as (n_seeds, n) float64 with at least one seed and two latents."""
    array = as_finite("changes", changes, n_dims=2)
    if array.shape[0] < 1 or array.shape[1] < 2:
        raise InputError(
            f"changes has shape {array.shape}", allowed="(n_seeds, n) with at least one seed and two latents"
        )
    return array
