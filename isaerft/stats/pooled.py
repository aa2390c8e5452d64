"""Controls are run many times (over draws, behaviors, shuffles): one agreement for them all, with one null.

A control has S change vectors (random dictionaries, say) and J expectations (other behaviors, say). Its estimate is the
mean of the S x J agreements. For AUROC, Spearman and sign agreement that mean is linear in the latents, sum_i z_i w_i
with z the mean score of the changes and w the mean weight of the expectations, so one exchange of w within strata and
clusters is applied to all S x J at once and their dependence is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from isaerft.errors import InputError
from isaerft.stats.adjustment import smooth_confounds
from isaerft.stats.checks import as_groups
from isaerft.stats.exchange import exchange_within
from isaerft.stats.intervals import ConfidenceInterval, mean_interval
from isaerft.stats.joint import joint_null
from isaerft.stats.question import exchange_pvalue
from isaerft.stats.statistics import LinearScorer
from isaerft.stats.studentised import studentised_null

POOLED = ("auroc", "spearman", "sign_agreement")
"""Statistics whose mean over changes and expectations is linear in the latents."""


@dataclass(frozen=True)
class PooledResult:
    """The mean agreement of several changes with several expectations.

    Attributes
    ----------
    statistic : float
        Mean over all pairs.
    pvalue : float
        One-sided (greater), (b + 1) / (n_resamples + 1).
    confidence_interval : ConfidenceInterval
        Student's t over the replicates: changes where there are several, else expectations. NaN with one of each.
    null_mean, null_sd : float
        Of the exchanges.
    """

    statistic: float
    pvalue: float
    confidence_interval: ConfidenceInterval
    null_mean: float
    null_sd: float
    n_resamples: int


def pooled_agreement(
    changes: Any,
    expected: Any,
    *,
    statistic: str = "auroc",
    strata: Any = None,
    clusters: Any = None,
    confounds: Any = None,
    n_resamples: int = 999,
    confidence_level: float = 0.95,
    rng: np.random.Generator | int | None = None,
) -> PooledResult:
    """Test the mean agreement of changes (S, n) with expectations (J, n), exchanging all expectations together.

    Parameters
    ----------
    changes : (S, n) float
    expected : (J, n) bool for auroc, float for the others
    statistic : {"auroc", "spearman", "sign_agreement"}
    strata, clusters : (n,) int, optional
    confounds : (k, n) float, optional
        As in `agreement_test`.

    Raises
    ------
    InputError
        Another statistic; a change or expectation that is constant; NaN.
    """
    return pooled_agreements(
        [(changes, expected)],
        statistic=statistic,
        strata=strata,
        clusters=clusters,
        confounds=confounds,
        n_resamples=n_resamples,
        confidence_level=confidence_level,
        rng=rng,
    )[0]


def pooled_agreements(
    pools: Sequence[tuple[Any, Any]],
    *,
    statistic: str = "auroc",
    strata: Any = None,
    clusters: Any = None,
    confounds: Any = None,
    n_resamples: int = 999,
    confidence_level: float = 0.95,
    rng: np.random.Generator | int | None = None,
) -> list[PooledResult]:
    """Answer `pooled_agreement` for many pools (changes (S, n), expected (J, n)) of the same latents.

    All share their exchanges.
    """
    if statistic not in POOLED:
        raise InputError(f"pooled statistic {statistic!r}", allowed=", ".join(POOLED))
    if not pools:
        return []
    pairs, scorers = [], []
    for changes, expected in pools:
        scores, weights, offset = _linear(np.atleast_2d(changes), np.atleast_2d(expected), statistic)
        pairs.append(scores @ weights.T + offset)
        scorers.append(LinearScorer(weights.mean(0), scores.mean(0), 1.0, offset))
    n = len(scorers[0].weights)
    exchange, generator = exchange_within(n, strata, clusters), np.random.default_rng(rng)
    smooth = smooth_confounds(confounds, as_groups("strata", strata, n), as_groups("clusters", clusters, n))
    if smooth is None:
        nulls = joint_null(exchange, scorers, n_resamples, generator)
    else:
        nulls = studentised_null(exchange, smooth, scorers, n_resamples, generator)
    return [_result(part, null, confidence_level) for part, null in zip(pairs, nulls, strict=True)]


def _result(pairs: np.ndarray, null: np.ndarray, confidence_level: float) -> PooledResult:
    """Return the result of agreements (S, J), given the null of their mean, (n_resamples,)."""
    value = float(pairs.mean())
    return PooledResult(
        statistic=value,
        pvalue=exchange_pvalue(value, null, "greater", exact=False),
        confidence_interval=mean_interval(pairs.mean(1) if len(pairs) > 1 else pairs[0], confidence_level),
        null_mean=float(null.mean()),
        null_sd=float(null.std()),
        n_resamples=len(null),
    )


def _linear(changes: np.ndarray, expected: np.ndarray, statistic: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Return scores (S, n), weights (J, n) and an offset with agreement = scores @ weights + offset."""
    changes = np.asarray(changes, float)
    if np.isnan(changes).any() or np.isnan(np.asarray(expected, float)).any():
        raise InputError("changes or expectations hold NaN", remedy="leave undefined latents out")
    if statistic == "spearman":
        n = changes.shape[1]
        return _standardised(changes), _standardised(np.asarray(expected, float)) / n, 0.0
    if statistic == "sign_agreement":
        signs = np.sign(np.asarray(expected, float))
        directed = np.abs(signs).sum(1, keepdims=True)
        if (directed == 0).any():
            raise InputError("an expectation without any direction", remedy="leave that behavior out")
        return np.sign(changes), signs / directed, 0.0
    labels = np.asarray(expected, bool)
    positives = labels.sum(1, keepdims=True)
    negatives = labels.shape[1] - positives
    if (positives == 0).any() or (negatives == 0).any():
        raise InputError("an expectation that calls all or none expected", remedy="leave that behavior out")
    ranks = rankdata(changes, axis=1) - (changes.shape[1] + 1) / 2
    # Mann-Whitney: AUROC = (sum of positives' ranks - n1 (n1 + 1) / 2) / (n1 n0), here with centred ranks.
    return ranks, labels / (positives * negatives), 0.5


def _standardised(rows: np.ndarray) -> np.ndarray:
    ranks = rankdata(rows, axis=1)
    centred = ranks - ranks.mean(1, keepdims=True)
    spread = np.sqrt((centred**2).mean(1, keepdims=True))
    if (spread == 0).any():
        raise InputError("a constant change or expectation has no rank correlation", remedy="leave it out")
    return centred / spread
