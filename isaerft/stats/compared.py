"""Which of several options is best on the same replicates, and how surely.

>>> import numpy as np
>>> found = compare_means(np.array([[0.9, 0.8, 0.7], [0.6, 0.5, 0.4], [0.2, 0.3, 0.1]]))
>>> [(option.rank, option.rival, round(option.difference, 2)) for option in found]
[(1, 1, 0.3), (2, 0, -0.3), (3, 0, -0.6)]
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from isaerft.errors import InputError
from isaerft.stats.checks import as_finite, as_share
from isaerft.stats.intervals import UNDEFINED, ConfidenceInterval, mean_interval


class Compared(NamedTuple):
    """One option beside the best of the others.

    Attributes
    ----------
    mean : float
        Mean over replicates, with Student's t interval; NaN with one replicate.
    rank : int
        1 is the highest mean; equal means share a rank.
    rival : int or None
        Position of the best of the other options (of equals the first); None where there is no other.
    difference : float
        Mean less the rival's: positive for the best option alone; NaN without a rival.
    difference_interval : ConfidenceInterval
        Paired over replicates, and simultaneous.
    """

    mean: float
    interval: ConfidenceInterval
    rank: int
    rival: int | None
    difference: float
    difference_interval: ConfidenceInterval


def compare_means(
    values: Any, *, confidence_level: float = 0.95, bounds: tuple[float, float] = (-math.inf, math.inf)
) -> list[Compared]:
    """Compare options by their means over replicates that all of them share.

    Parameters
    ----------
    values : (n_options, n_replicates) float
        Replicates, such as behaviors, in one order.
    confidence_level : float
        Of the interval of each mean, and of all differences together.
    bounds : (float, float)
        What a mean can be; its interval ends there.

    Returns
    -------
    list of Compared
        In the order of the options.

    Raises
    ------
    InputError
        There is no option or no replicate, or a value is not finite.

    Notes
    -----
    Which option is the rival is seen in the same data. So the intervals of differences are Bonferroni's over all pairs
    of options: whichever pairs the data pick, they hold all at once with at least `confidence_level`. They are wider
    than those of multiple comparisons with the best (Hsu 1984, Ann Stat 12:1136), which want independent options of
    equal variance. Here options share the replicates, which are taken to be independent of each other.
    """
    values, level = as_finite("values", values, n_dims=2), as_share("confidence_level", confidence_level)
    if not values.size:
        raise InputError(f"values of shape {values.shape}", allowed="at least one option and one replicate")
    means, n = values.mean(axis=1), len(values)
    paired_level = 1 - (1 - level) / max(1, n * (n - 1) // 2)
    found = []
    for place, mean in enumerate(means):
        others = np.where(np.arange(n) == place, -np.inf, means)
        rival = int(others.argmax()) if n > 1 else None
        less = None if rival is None else values[place] - values[rival]
        found.append(
            Compared(
                float(mean),
                mean_interval(values[place], level, bounds),
                1 + int(np.count_nonzero(means > mean)),
                rival,
                math.nan if less is None else float(less.mean()),
                UNDEFINED if less is None else mean_interval(less, paired_level),
            )
        )
    return found
