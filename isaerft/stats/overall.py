"""One answer for a whole study: the mean agreement over behaviors, and how specific it is to them.

Behaviors are few and share their latents. So the null exchanges explanations for all behaviors at once, the interval
is about other behaviors like these, and the range without each behavior in turn shows whether one of them carries the
result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from isaerft.errors import InputError
from isaerft.stats.adjustment import smooth_confounds
from isaerft.stats.checks import as_count, as_finite, as_groups
from isaerft.stats.exchange import exchange_within
from isaerft.stats.intervals import UNDEFINED, ConfidenceInterval, mean_interval
from isaerft.stats.joint import joint_null
from isaerft.stats.question import ask, exchange_pvalue
from isaerft.stats.specificity import contrast, contrast_parts, specificity_of
from isaerft.stats.statistics import LinearScorer
from isaerft.stats.studentised import studentised_mean_null

BOUNDS = {"auroc": (0.0, 1.0), "stratified_auroc": (0.0, 1.0), "precision_at_k": (0.0, 1.0)}
"""What a statistic can be, where that is not -1 to 1."""


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
    pairs: Sequence[tuple[Any, Any]],
    *,
    statistic: str = "auroc",
    strata: Any = None,
    clusters: Any = None,
    confounds: Any = None,
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
    n = len(pairs[0][0])
    groups = as_groups("strata", strata, n), as_groups("clusters", clusters, n)
    exchange = exchange_within(n, *groups)
    questions = [
        ask(change, expected, statistic=statistic, strata=groups[0], clusters=groups[1], exchange=exchange)
        for change, expected in pairs
    ]
    scorers = [question.scorer for question in questions]
    if not all(isinstance(scorer, LinearScorer) for scorer in scorers):
        raise InputError(f"overall statistic {statistic!r}", allowed="one that is linear in the expectations")
    values = np.array([question.value for question in questions])
    n_resamples, generator = as_count("n_resamples", n_resamples), np.random.default_rng(rng)
    smooth = smooth_confounds(confounds, *groups)
    if smooth is None:
        null = joint_null(exchange, scorers, n_resamples, generator).mean(axis=0)
    else:
        null = studentised_mean_null(exchange, smooth, scorers, n_resamples, generator)
    return OverallResult(
        statistic=float(values.mean()),
        pvalue=exchange_pvalue(float(values.mean()), null, "greater", exact=False),
        confidence_interval=mean_interval(values, confidence_level, BOUNDS.get(statistic, (-1.0, 1.0))),
        leave_one_out=_range(
            [np.delete(values, left).mean() for left in range(len(values))] if len(values) > 1 else []
        ),
        per_behavior=values,
    )


def overall_specificity(
    matrix: Any,
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
