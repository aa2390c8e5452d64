"""Correction for multiple testing.

>>> qvalues([0.01, float("nan"), 0.04]).tolist()
[0.02, nan, 0.04]
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
