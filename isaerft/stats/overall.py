"""Results over several changes or behaviors: pooled controls, mean agreement, and specificity.

Controls are run many times (over random dictionaries, behaviors, shuffles). `pooled_agreement` makes one result of
them: a control has S changes and J expectations, and its estimate is the mean of the S x J agreements. For linear
statistics that mean is sum_i z_i w_i, with z the mean score of the changes and w the mean weight of the expectations.
One exchange of w applies to all S x J at once and keeps their dependence.

`overall_agreement` and `overall_specificity` summarize a study. The interval is about other behaviors like these, and
the range of estimates without each behavior in turn shows whether a single one carries the result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from isaerft.errors import InputError
from isaerft.registry import STATISTICS
from isaerft.stats.checks import as_finite, as_groups
from isaerft.stats.exchange import units_within
from isaerft.stats.intervals import UNDEFINED, ConfidenceInterval, mean_interval
from isaerft.stats.nulls import exchange_pvalue, linear_nulls, smooth_for
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
    units, generator = units_within(n, strata, clusters), np.random.default_rng(rng)
    smooth = smooth_for(units, as_groups("strata", strata, n), confounds)
    nulls = linear_nulls(units, [(scorer, smooth) for scorer in scorers], n_resamples, generator)
    return [_result(part, *null, confidence_level) for part, null in zip(pairs, nulls, strict=True)]


def _result(pairs: np.ndarray, null: np.ndarray, exact: bool, confidence_level: float) -> PooledResult:
    """Return the result of agreements (S, J), given the null of their mean, (n_resamples,)."""
    value = float(pairs.mean())
    return PooledResult(
        statistic=value,
        pvalue=exchange_pvalue(value, null, "greater", exact=exact),
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
    """An estimate over behaviors; those of one family count as one.

    Attributes
    ----------
    statistic : float
        Mean over families.
    pvalue : float
        One-sided (greater); NaN where there is no null.
    confidence_interval : ConfidenceInterval
        Student's t over families; NaN with one.
    leave_one_out : ConfidenceInterval
        Lowest and highest estimate when one family is left out; NaN with one (two for specificity).
    per_family : (n_families,) float
        What the mean is of.
    """

    statistic: float
    pvalue: float
    confidence_interval: ConfidenceInterval
    leave_one_out: ConfidenceInterval
    per_family: np.ndarray = field(repr=False)

    @property
    def n_families(self) -> int:
        """Number of families in the mean: independent behaviors."""
        return len(self.per_family)


def overall_agreement(
    values: ArrayLike,
    *,
    families: ArrayLike | None = None,
    confidence_level: float = 0.95,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> OverallResult:
    """Return the mean agreement over behaviors, `values` (n_behaviors,), with its interval over families of them.

    There is no p-value: latents that are said alike move alike, and the value by chance of a mean over behaviors is
    not known without trainings on something else. That question is `overall_specificity`'s.

    Raises
    ------
    InputError
        No behavior, or NaN.
    """
    array = as_finite("values", values, n_dims=1)
    if not array.size:
        raise InputError("no behavior to take the mean over", remedy="leave the overall result empty")
    codes = np.arange(array.size) if families is None else as_groups("families", families, array.size)
    means = np.bincount(codes, weights=array) / np.bincount(codes)
    return OverallResult(
        statistic=float(means.mean()),
        pvalue=math.nan,
        confidence_interval=mean_interval(means, confidence_level, bounds),
        leave_one_out=_range([np.delete(means, left).mean() for left in range(len(means))] if len(means) > 1 else []),
        per_family=means,
    )


def overall_specificity(
    matrix: ArrayLike,
    *,
    families: ArrayLike | None = None,
    n_resamples: int = 9999,
    confidence_level: float = 0.95,
    rng: np.random.Generator | int | None = None,
) -> OverallResult:
    """Test whether behaviors agree better with their own expectations than with others' (see `specificity_test`).

    Parameters
    ----------
    matrix : (n_behaviors, n_behaviors) float
        Agreement of changes from training on (row) with expectations for (column).
    families : (n_behaviors,) int, optional
        Behaviors of one family count as one.

    Raises
    ------
    InputError
        As `specificity_of`.
    """
    result = specificity_of(matrix, families=families, n_resamples=n_resamples, rng=rng)
    own, n = result.matrix, len(result.matrix)
    left = [np.delete(np.delete(own, i, axis=0), i, axis=1) for i in range(n)] if n > 2 else []
    parts = contrast_parts(own)
    return OverallResult(
        statistic=result.statistic,
        pvalue=result.pvalue,
        confidence_interval=mean_interval(parts, confidence_level),
        leave_one_out=_range([contrast(part) for part in left]),
        per_family=parts,
    )


def _range(values: Sequence[float]) -> ConfidenceInterval:
    return ConfidenceInterval(float(min(values)), float(max(values))) if len(values) else UNDEFINED
