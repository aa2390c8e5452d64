"""Correction for multiple testing, within one family of tests or over several.

>>> qvalues([0.01, float("nan"), 0.04]).tolist()
[0.02, nan, 0.04]
>>> family_qvalues([0.01, 0.04, 0.9, 0.8], ["a", "a", "b", "b"]).tolist()
[0.04, 0.08, 0.9, 0.9]
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import false_discovery_control

from isaerft.errors import InputError


def qvalues(pvalues: ArrayLike) -> np.ndarray:
    """Return Benjamini-Hochberg q-values: the smallest false discovery rate at which each test is still rejected.

    Parameters
    ----------
    pvalues : array_like of float
        P-values, any shape; NaN (no test was possible) stays NaN and is not counted among the tests.

    Returns
    -------
    numpy.ndarray of float64
        Q-values, same shape.

    Raises
    ------
    InputError
        A value lies outside [0, 1].

    Notes
    -----
    Benjamini and Hochberg (1995); holds for independent or positively dependent tests.
    """
    given = np.asarray(pvalues, dtype=np.float64)
    result = np.full(given.shape, np.nan)
    defined = ~np.isnan(given)
    bad = given[defined & ((given < 0) | (given > 1))]
    if bad.size:
        raise InputError(f"{bad.size} p-values lie outside 0 to 1, such as {bad[0]:g}", allowed="0 to 1, or NaN")
    if defined.any():
        result[defined] = false_discovery_control(given[defined])
    return result


def family_qvalues(pvalues: ArrayLike, families: ArrayLike) -> np.ndarray:
    """Return q-values of tests in families, for a reader who looks through all families for what is significant.

    Parameters
    ----------
    pvalues : (n,) float
        NaN stays NaN; a family of nothing else is not counted.
    families : (n,)
        The family of each test, of any type that can be sorted.

    Returns
    -------
    (n,) float64
        The smallest level at which the test is rejected: if all with q <= 0.05 are called findings, the false discovery
        rate within a family, averaged over the families that have any, is at most 0.05.

    Notes
    -----
    Benjamini and Bogomolov (2014, JRSS B 76:297): families are selected by Benjamini and Hochberg at level a on their
    smallest Benjamini-Hochberg q-values (Simes); with R of m selected, tests within each are rejected at level a R / m.
    One family of all tests would not do: findings in one part of it lend their level to chance results in another.
    """
    given, codes = np.asarray(pvalues, dtype=np.float64), np.unique(families, return_inverse=True)[1]
    if given.ndim != 1 or given.shape != codes.shape:
        raise InputError(f"p-values of shape {given.shape}, families of {np.shape(families)}", allowed="(n,) for both")
    within = np.full(given.shape, np.nan)
    smallest = []
    for code in range(codes.max(initial=-1) + 1):
        own = codes == code
        within[own] = qvalues(given[own])
        if not np.isnan(within[own]).all():
            smallest.append(np.nanmin(within[own]))
    n_families, defined = len(smallest), ~np.isnan(within)
    if not n_families:
        return within
    # From level[r - 1] on, at least r families are selected. With r of them, a test is rejected from within m / r on.
    level, count = np.sort(qvalues(smallest)), np.arange(1, n_families + 1)
    place = np.searchsorted(level * count / n_families, within[defined])
    by_fewer = within[defined] * n_families / np.maximum(place, 1)
    by_fewer[place == 0] = np.inf
    by_more = np.append(level, np.inf)[place]
    within[defined] = np.minimum(np.minimum(by_fewer, by_more), 1.0)
    return within
