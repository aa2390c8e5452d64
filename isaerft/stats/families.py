"""Families: behaviors that are variants of one another, and count as one.

A study of eight behaviors that are two behaviors in four wordings has two replicates, not eight. Two behaviors belong
to one family if both their changes and their expectations are alike.

>>> import numpy as np
>>> rng = np.random.default_rng(0)
>>> changes, expected = rng.normal(size=(3, 500)), rng.random((3, 500)) < 0.1
>>> changes[2], expected[2] = changes[0] + 0.1 * rng.normal(size=500), expected[0]
>>> families_of(changes, expected).tolist()
[0, 1, 0]
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse.csgraph import connected_components

from isaerft.errors import InputError
from isaerft.stats.checks import as_finite, as_groups
from isaerft.stats.ranks import midranks

ALIKE_CHANGES, ALIKE_EXPECTATIONS = 0.3, 0.2
"""Least correlations at which two behaviors are variants of one; lower for expectations, of which few are positive."""


def families_of(changes: ArrayLike, expected: ArrayLike, *, declared: ArrayLike | None = None) -> np.ndarray:
    """Return the family of each behavior, (n_behaviors,) int64, numbered by first appearance.

    Parameters
    ----------
    changes : (n_behaviors, n) float
    expected : (n_behaviors, n) bool or float
    declared : (n_behaviors,) int, optional
        Families that are known beforehand; they are joined, too.

    Raises
    ------
    InputError
        Shapes differ, or NaN.

    Notes
    -----
    Two behaviors are variants if the ranks of their changes, less the mean over behaviors (every training moves some
    latents), correlate by `ALIKE_CHANGES`, and their expectations by `ALIKE_EXPECTATIONS`. Only both together break
    the exchange of behaviors: if changes alone are alike, expectations are still exchangeable between them. Families
    are connected components: a-b and b-c make one family of three.
    """
    changed, labels = as_finite("changes", changes, n_dims=2), as_finite("expected", expected, n_dims=2)
    if changed.shape != labels.shape:
        raise InputError(
            f"changes has shape {changed.shape} and expected {labels.shape}", allowed="the same shape, (n_behaviors, n)"
        )
    ranks = midranks(changed)
    alike = _correlations(ranks - ranks.mean(axis=0)) >= ALIKE_CHANGES
    alike &= _correlations(labels) >= ALIKE_EXPECTATIONS
    if declared is not None:
        codes = as_groups("declared", declared, len(changed))
        alike |= codes[:, None] == codes
    label = connected_components(alike, directed=False)[1]
    _, first, code = np.unique(label, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[code].astype(np.int64)


def family_means(matrix: ArrayLike, families: ArrayLike) -> np.ndarray:
    """Return the mean of `matrix` (n_behaviors, n_behaviors) over the cells of each pair of families, (F, F)."""
    values = as_finite("matrix", matrix, n_dims=2)
    codes = as_groups("families", families, len(values))
    member = (codes == np.arange(codes.max() + 1)[:, None]) / np.bincount(codes)[:, None]
    means: np.ndarray = member @ values @ member.T
    return means


def _correlations(rows: np.ndarray) -> np.ndarray:
    """Return the correlations of rows (m, n), (m, m); 0 with a constant row."""
    centered = rows - rows.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(centered, axis=1, keepdims=True)
    unit = centered / np.where(norms > 0, norms, 1)
    found: np.ndarray = unit @ unit.T
    return found
