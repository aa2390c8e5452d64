"""Results over several changes or behaviors: pooled controls, mean agreement, and specificity.

Controls are run many times (over random dictionaries, behaviors, shuffles). `pooled_agreement` makes one result of
them: a control has S changes and J expectations, and its estimate is the mean of the S x J agreements. For linear
statistics that mean is sum_i z_i w_i, with z the mean score of the changes and w the mean weight of the expectations.
One exchange of w within strata and clusters applies to all S x J at once and keeps their dependence.

`overall_agreement` and `overall_specificity` summarize a study. Behaviors are few and share their latents. So the null
exchanges explanations for all behaviors at once, the interval is about other behaviors like these, and the range of
estimates without each behavior in turn shows whether a single one carries the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from isaerft.errors import InputError
from isaerft.registry import STATISTICS
from isaerft.stats.agreement import prepare_test
from isaerft.stats.checks import as_count, as_finite, as_groups
from isaerft.stats.confounds import smooth_confounds
from isaerft.stats.exchange import exchange_within
from isaerft.stats.intervals import UNDEFINED, ConfidenceInterval, mean_interval
from isaerft.stats.nulls import exchange_pvalue, linear_mean_null, linear_null
from isaerft.stats.specificity import contrast, contrast_parts, specificity_of
from isaerft.stats.statistics import LinearScorer


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
    changes: ArrayLike,
    expected: ArrayLike,
    *,
    statistic: str = "auroc",
    strata: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    confounds: ArrayLike | None = None,
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
    pools: Sequence[tuple[ArrayLike, ArrayLike]],
    *,
    statistic: str = "auroc",
    strata: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    confounds: ArrayLike | None = None,
    n_resamples: int = 999,
    confidence_level: float = 0.95,
    rng: np.random.Generator | int | None = None,
) -> list[PooledResult]:
    """Answer `pooled_agreement` for many pools (changes (S, n), expected (J, n)) of the same latents.

    All share their exchanges.
    """
    if not STATISTICS.facts(statistic).pooled:
        allowed = ", ".join(name for name in sorted(STATISTICS) if STATISTICS.facts(name).pooled)
        raise InputError(f"pooled statistic {statistic!r}", allowed=allowed)
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
    nulls = linear_null(exchange, smooth, scorers, n_resamples, generator)
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
    """Return scores (S, n), weights (J, n) and an offset with agreement = scores @ weights.T + offset."""
    changes, labels = as_finite("changes", changes, n_dims=2), np.asarray(expected)
    as_finite("expected", labels, n_dims=2)
    bind, one_stratum = STATISTICS[statistic].bind, np.zeros(changes.shape[1], np.int64)
    # A pooled statistic is a product of what changes and what labels give, so one row and one column tell all.
    try:
        by_change = [bind(change, labels[0], one_stratum) for change in changes]
    except ZeroDivisionError:
        raise InputError(f"a constant change has no {statistic}", remedy="leave it out") from None
    by_label = [by_change[0], *(bind(changes[0], label, one_stratum) for label in labels[1:])]
    scores = np.array([scorer.scale * scorer.weights for scorer in by_change])
    weights = np.array([scorer.scale / by_change[0].scale * scorer.labels for scorer in by_label])
    return scores, weights, by_change[0].offset


@dataclass(frozen=True)
class OverallResult:
    """An estimate over behaviors.

    Attributes
    ----------
    statistic : float
        Mean over behaviors.
    pvalue : float
        One-sided (greater); NaN where there is no null (one behavior in a test of specificity).
    confidence_interval : ConfidenceInterval
        Student's t over behaviors; NaN with one.
    leave_one_out : ConfidenceInterval
        Lowest and highest estimate when one behavior is left out; NaN with one (two for specificity).
    per_behavior : (n_behaviors,) float
        What the mean is of.
    """

    statistic: float
    pvalue: float
    confidence_interval: ConfidenceInterval
    leave_one_out: ConfidenceInterval
    per_behavior: np.ndarray = field(repr=False)

    @property
    def n_behaviors(self) -> int:
        """Number of behaviors in the mean."""
        return len(self.per_behavior)


def overall_agreement(
    pairs: Sequence[tuple[ArrayLike, ArrayLike]],
    *,
    statistic: str = "auroc",
    strata: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    confounds: ArrayLike | None = None,
    n_resamples: int = 9999,
    confidence_level: float = 0.95,
    rng: np.random.Generator | int | None = None,
) -> OverallResult:
    """Test the mean agreement over behaviors, one pair (change (n,), expected (n,)) each.

    Every exchange of explanations is applied to all behaviors at once, so that behaviors that expect the same latents
    count for less than as many independent ones.

    Parameters
    ----------
    statistic : {"auroc", "stratified_auroc", "spearman", "precision_at_k"}
        One that is linear in the expectations.
    strata, clusters, confounds, n_resamples, confidence_level, rng
        As in `agreement_test`.

    Raises
    ------
    InputError
        No pair, or one that cannot be tested.
    """
    if not pairs:
        raise InputError("no behavior to take the mean over", remedy="leave the overall result empty")
    n = len(np.atleast_1d(pairs[0][0]))
    groups = as_groups("strata", strata, n), as_groups("clusters", clusters, n)
    exchange = exchange_within(n, *groups)
    tests = [
        prepare_test(change, expected, statistic=statistic, strata=groups[0], clusters=groups[1], exchange=exchange)
        for change, expected in pairs
    ]
    scorers = [test.scorer for test in tests if isinstance(test.scorer, LinearScorer)]
    if len(scorers) < len(tests):
        raise InputError(f"overall statistic {statistic!r}", allowed="one that is linear in the expectations")
    values = np.array([test.value for test in tests])
    n_resamples, generator = as_count("n_resamples", n_resamples), np.random.default_rng(rng)
    smooth = smooth_confounds(confounds, *groups)
    null = linear_mean_null(exchange, smooth, scorers, n_resamples, generator)
    return OverallResult(
        statistic=float(values.mean()),
        pvalue=exchange_pvalue(float(values.mean()), null, "greater", exact=False),
        confidence_interval=mean_interval(values, confidence_level, STATISTICS.facts(statistic).bounds),
        leave_one_out=_range(
            [np.delete(values, left).mean() for left in range(len(values))] if len(values) > 1 else []
        ),
        per_behavior=values,
    )


def overall_specificity(
    matrix: ArrayLike,
    *,
    n_resamples: int = 9999,
    confidence_level: float = 0.95,
    rng: np.random.Generator | int | None = None,
) -> OverallResult:
    """Test whether behaviors agree better with their own expectations than with others' (see `specificity_test`).

    Parameters
    ----------
    matrix : (n_behaviors, n_behaviors) float
        Agreement of changes from training on (row) with expectations for (column).

    Raises
    ------
    InputError
        As `specificity_of`.
    """
    matrix = as_finite("matrix", matrix, n_dims=2)
    result = specificity_of(matrix, n_resamples=n_resamples, rng=rng)
    n = len(matrix)
    left = [np.delete(np.delete(matrix, i, axis=0), i, axis=1) for i in range(n)] if n > 2 else []
    parts = contrast_parts(matrix)
    return OverallResult(
        statistic=result.statistic,
        pvalue=result.pvalue,
        confidence_interval=mean_interval(parts, confidence_level),
        leave_one_out=_range([contrast(part) for part in left]),
        per_behavior=parts,
    )


def _range(values: Sequence[float]) -> ConfidenceInterval:
    return ConfidenceInterval(float(min(values)), float(max(values))) if len(values) else UNDEFINED
