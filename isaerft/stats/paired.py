"""A mean before and after, on the same units, and how far their difference is known.

>>> paired_means([0.0, 0.0, 1.0], [1.0, 1.0, 1.0]).difference
0.6666666666666666
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from isaerft.errors import InputError
from isaerft.stats.checks import as_finite
from isaerft.stats.intervals import N_BOOTSTRAP, UNDEFINED, ConfidenceInterval


class PairedMeans(NamedTuple):
    """Mean before, mean after, their difference, and its confidence interval."""

    before: float
    after: float
    difference: float
    confidence_interval: ConfidenceInterval


def paired_means(
    before: Any,
    after: Any,
    *,
    confidence_level: float = 0.95,
    rng: np.random.Generator | None = None,
    n_resamples: int = N_BOOTSTRAP,
) -> PairedMeans:
    """Compare means on the same units, with the percentile interval of their difference over resampled units.

    Parameters
    ----------
    before, after : (n,) float
        One value per unit, in one order.
    rng : Generator, optional
        Source of the resamples; seed 0 when not given.

    Returns
    -------
    PairedMeans
        The interval is undefined for a single unit.

    Raises
    ------
    InputError
        The lengths differ or are 0, or a value is not finite.
    """
    first, second = (as_finite(name, values, n_dims=1) for name, values in (("before", before), ("after", after)))
    if first.size != second.size or not first.size:
        raise InputError(f"before has {first.size} values, after {second.size}", allowed="as many, at least one")
    difference = second - first
    interval = UNDEFINED
    if difference.size > 1:
        rng = np.random.default_rng(0) if rng is None else rng
        means = difference[rng.integers(difference.size, size=(n_resamples, difference.size))].mean(1)
        low, high = np.quantile(means, [(1 - confidence_level) / 2, (1 + confidence_level) / 2])
        interval = ConfidenceInterval(float(low), float(high))
    return PairedMeans(float(first.mean()), float(second.mean()), float(difference.mean()), interval)
