"""How much of an effect remains after part of its cause is taken away: a ratio of two sums over seeds and rows.

>>> import numpy as np
>>> remaining_share(np.array([[1.0, 2.0]]), np.array([[2.0, 4.0]])).estimate
0.5
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from isaerft.errors import InputError
from isaerft.stats.checks import as_finite
from isaerft.stats.intervals import N_BOOTSTRAP, UNDEFINED, ConfidenceInterval


class Share(NamedTuple):
    """A share and its confidence interval; NaN where there was no effect to share."""

    estimate: float
    confidence_interval: ConfidenceInterval


def remaining_share(
    remaining: Any,
    whole: Any,
    *,
    confidence_level: float = 0.95,
    rng: np.random.Generator | None = None,
    n_resamples: int = N_BOOTSTRAP,
) -> Share:
    """Return sum(remaining) / sum(whole), with a percentile interval over resampled seeds and resampled rows.

    Seeds and rows are resampled independently of each other, as every seed meets every row (the pigeonhole bootstrap,
    Owen 2007, whose intervals are on the wide side). With one seed only the rows are.

    Parameters
    ----------
    remaining, whole : (n_seeds, n_rows) float
        The effect on each row after and before part of its cause was taken away, in one unit.
    rng : Generator, optional
        Source of the resamples; seed 0 when not given.

    Returns
    -------
    Share
        Undefined where the whole effect is not positive; so is the interval where that holds in more than one in ten
        resamples.
    """
    parts = [as_finite(name, values, n_dims=2) for name, values in (("remaining", remaining), ("whole", whole))]
    if parts[0].shape != parts[1].shape or not parts[0].size:
        raise InputError(f"remaining has shape {parts[0].shape}, whole {parts[1].shape}", allowed="(n_seeds, n_rows)")
    if not parts[1].sum() > 0:
        return Share(math.nan, UNDEFINED)
    rng = np.random.default_rng(0) if rng is None else rng
    n_seeds, n_rows = parts[0].shape
    seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=n_resamples).astype(float)
    rows = rng.multinomial(n_rows, np.full(n_rows, 1 / n_rows), size=n_resamples).astype(float)
    above, below = (np.einsum("bs,sr,br->b", seeds, part, rows, optimize=True) for part in parts)
    estimate = float(parts[0].sum() / parts[1].sum())
    return Share(estimate, _percentiles(above[below > 0] / below[below > 0], n_resamples, confidence_level))


def median_of_draws(values: Any, *, confidence_level: float = 0.95) -> Share:
    """Return the median of the draws' values, (n_draws,), and the range that holds `confidence_level` of them.

    Draws that are NaN are left out; if more than one in ten is, the range is undefined, and with none left all is.
    """
    given = np.asarray(values, dtype=np.float64)
    known = given[np.isfinite(given)]
    if not known.size:
        return Share(math.nan, UNDEFINED)
    return Share(float(np.median(known)), _percentiles(known, given.size, confidence_level))


def _percentiles(values: np.ndarray, n: int, confidence_level: float) -> ConfidenceInterval:
    """Return the central range of `values`, undefined if fewer than nine in ten of `n` are there."""
    if values.size < 0.9 * n:
        return UNDEFINED
    low, high = np.quantile(values, [(1 - confidence_level) / 2, (1 + confidence_level) / 2])
    return ConfidenceInterval(float(low), float(high))
