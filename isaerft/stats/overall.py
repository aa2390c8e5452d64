"""Results over several behaviors: mean agreement, and specificity.

`overall_agreement` and `overall_specificity` summarize a study. The interval is about other behaviors like these, and
the range of estimates without each behavior in turn shows whether a single one carries the result.
`isaerft.stats.noise` is about other seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from isaerft.errors import InputError
from isaerft.stats.checks import as_finite, as_groups
from isaerft.stats.families import family_means
from isaerft.stats.intervals import UNDEFINED, ConfidenceInterval, mean_interval
from isaerft.stats.specificity import contrast, contrast_parts, specificity_of


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
    bounds: tuple[float, float] = (-math.inf, math.inf),
    rng: np.random.Generator | int | None = None,
) -> OverallResult:
    """Test whether behaviors agree better with their own expectations than with others' (see `specificity_test`).

    Parameters
    ----------
    matrix : (n_behaviors, n_behaviors) float
        Agreement of changes from training on (row) with expectations for (column).
    families : (n_behaviors,) int, optional
        Behaviors of one family count as one.
    bounds : (float, float)
        Least and largest value that an agreement can have; the interval ends at their largest difference.

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
        confidence_interval=mean_interval(parts, confidence_level, (bounds[0] - bounds[1], bounds[1] - bounds[0])),
        leave_one_out=_range([contrast(part) for part in left]),
        per_family=parts,
    )


def specificity_estimate(matrix: ArrayLike, families: ArrayLike) -> float:
    """Return the statistic of `overall_specificity` alone; NaN with one family, or where a value is undefined."""
    array = np.asarray(matrix, dtype=np.float64)
    if len(np.unique(np.asarray(families))) < 2 or not np.isfinite(array).all():
        return math.nan
    return float(contrast(family_means(array, families)))


def _range(values: Sequence[float]) -> ConfidenceInterval:
    return ConfidenceInterval(float(min(values)), float(max(values))) if len(values) else UNDEFINED
