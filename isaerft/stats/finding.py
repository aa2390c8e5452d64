"""How well scores of explanations find the wrong ones, over worlds in which it is known which these are.

>>> import numpy as np
>>> wrong = np.array([True, True, False, False])
>>> auroc_of_wrong([0.1, 0.2, 0.8, 0.9], wrong)
1.0
>>> auroc_of_wrong([0.1, np.nan, 0.8, 0.9], wrong)
0.75
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import ttest_1samp

from isaerft.errors import InputError, shown
from isaerft.stats.checks import as_binary, as_finite, as_share
from isaerft.stats.intervals import ConfidenceInterval, mean_interval
from isaerft.stats.ranks import midranks
from isaerft.stats.statistics import auroc


class OverWorlds(NamedTuple):
    """A mean over worlds.

    Attributes
    ----------
    n_worlds : int
    mean : float
    confidence_interval : ConfidenceInterval
        Student's t over worlds; NaN with one.
    pvalue : float
        Two-sided one-sample t test of a mean of 0; NaN with one world.
    """

    n_worlds: int
    mean: float
    confidence_interval: ConfidenceInterval
    pvalue: float


def auroc_of_wrong(values: ArrayLike, wrong: ArrayLike) -> float:
    """Return P(a wrong explanation scores lower than a right one) + P(equal) / 2.

    Parameters
    ----------
    values : (n,) float
        Larger is better. An explanation without a score (NaN) is in no pair told apart: its pairs count half.
    wrong : (n,) bool

    Returns
    -------
    float
        NaN without wrong explanations, or without right ones.

    Raises
    ------
    InputError
        Lengths differ, a value is infinite, or no array of numbers is given.
    """
    scores = np.asarray(values, dtype=np.float64)
    labels = as_binary(wrong, len(scores))
    known = ~np.isnan(scores)
    as_finite("values", scores[known], n_dims=1)
    n_pairs = int(labels.sum()) * int((~labels).sum())
    if not n_pairs:
        return math.nan
    told = int((labels & known).sum()) * int((~labels & known).sum())
    if not told or np.ptp(scores[known]) == 0:
        return 0.5
    return 0.5 + (float(auroc(-scores[known], labels[known])) - 0.5) * told / n_pairs


def mean_of_ranks(scores: Sequence[ArrayLike]) -> np.ndarray:
    """Return the mean over scores of each explanation's rank, from 0 to 1; without a score (NaN) it is in the middle.

    Nothing is fitted, so scores can be combined on the explanations that they are tested on.

    Parameters
    ----------
    scores : sequence of (n,) float

    Returns
    -------
    (n,) float64
    """
    ranks = []
    for values in scores:
        own = np.asarray(values, dtype=np.float64)
        known, rank = ~np.isnan(own), np.full(own.shape, 0.5)
        if known.any():
            rank[known] = (midranks(own[known]) - 0.5) / known.sum()
        ranks.append(rank)
    return np.asarray(np.mean(ranks, axis=0))


def over_worlds(
    values: ArrayLike, *, confidence_level: float = 0.95, bounds: tuple[float, float] = (-math.inf, math.inf)
) -> OverWorlds:
    """Return the mean of one number per world, such as an AUROC or a paired difference of two.

    Parameters
    ----------
    values : (n_worlds,) float
    confidence_level : float
    bounds : (float, float)
        What the mean can be; its interval ends there.

    Raises
    ------
    InputError
        There is no world, or a value is not finite.
    """
    array, level = as_finite("values", values, n_dims=1), as_share("confidence_level", confidence_level)
    if not array.size:
        raise InputError(f"values {shown(values)}", allowed="one number for each of one or more worlds")
    pvalue = math.nan
    if array.size > 1:
        # Where all worlds agree to the last digit there is no spread to test against.
        spread = float(np.ptp(array))
        pvalue = float(ttest_1samp(array, 0).pvalue) if spread else float(array[0] == 0)
    return OverWorlds(len(array), float(array.mean()), mean_interval(array, level, bounds), pvalue)
