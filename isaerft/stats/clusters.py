"""Clusters of near-duplicate latents: those whose vectors point almost the same way move together in training.

>>> import numpy as np
>>> clusters_of(np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.01]]), threshold=0.9).tolist()
[0, 1, 0]
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from isaerft.errors import InputError
from isaerft.stats.checks import as_count, as_finite, as_share

BLOCK_ROWS = 1024
MAX_PAIRS = 20_000_000


def clusters_of(vectors: Any, threshold: float, *, max_size: int = 64) -> np.ndarray:
    """Group latents whose `vectors` have a cosine of at least `threshold`.

    Parameters
    ----------
    vectors : (n, d) float
        One vector per latent, such as its decoder row; lengths don't count. A zero vector is a cluster of its own.
    threshold : float
        Smallest cosine, between 0 and 1, at which two latents are near-duplicates.
    max_size : int
        Largest cluster made by chaining alone. Connected components chain: a-b and b-c are close, a-c need not be. A
        component larger than this is cut into stars: the latent with most near-duplicates takes those of them still
        free, and so on, so every member is within `threshold` of its star's centre.

    Returns
    -------
    (n,) int64
        Cluster of each latent, numbered by first appearance.

    Raises
    ------
    InputError
        NaN, a threshold outside (0, 1), or more than 20 million near-duplicate pairs.

    Notes
    -----
    Cosines are computed in blocks of 1,024 rows in float32: memory is n x d x 4 bytes and 1,024 x n x 4 bytes, time
    n^2 d multiplications. Cutting a component leaves some dependence between its stars; a higher threshold avoids it.
    """
    threshold, max_size = as_share("threshold", threshold), as_count("max_size", max_size)
    unit = _unit(as_finite("vectors", vectors, n_dims=2))
    n = len(unit)
    rows, columns, n_pairs = [], [], 0
    for start in range(0, n, BLOCK_ROWS):
        row, column = np.nonzero(unit[start : start + BLOCK_ROWS] @ unit[start:].T >= threshold)
        keep = column > row
        rows.append(row[keep] + start)
        columns.append(column[keep] + start)
        n_pairs += int(np.count_nonzero(keep))
        if n_pairs > MAX_PAIRS:
            raise InputError(
                f"threshold {threshold:g} makes more than {MAX_PAIRS:,} near-duplicate pairs among {n} latents",
                remedy="raise the threshold",
            )
    row, column = np.concatenate(rows), np.concatenate(columns)
    graph = coo_array(
        (np.ones(2 * n_pairs, dtype=bool), (np.r_[row, column], np.r_[column, row])), shape=(n, n)
    ).tocsr()
    label = connected_components(graph, directed=False)[1].astype(np.int64)
    for component in np.flatnonzero(np.bincount(label) > max_size):
        _cut_into_stars(label, np.flatnonzero(label == component), graph)
    _, first, code = np.unique(label, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[code].astype(np.int64)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Return `vectors` (n, d) scaled to length 1, as float32; zero vectors stay zero."""
    if len(vectors) == 0:
        raise InputError("vectors holds no latent", allowed="(n, d) with n at least 1")
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)


def _cut_into_stars(label: np.ndarray, members: np.ndarray, graph: csr_array) -> None:
    """Relabel the latents of one component (`members`) by star, in place; the busiest latent, then the first, leads."""
    free = np.zeros(len(label), dtype=bool)
    free[members] = True
    degree = np.diff(graph.indptr)[members]
    fresh = int(label.max()) + 1
    for leader in members[np.lexsort((members, -degree))]:
        if free[leader]:
            neighbours = graph.indices[graph.indptr[leader] : graph.indptr[leader + 1]]
            star = np.append(neighbours[free[neighbours]], leader)
            label[star], fresh = fresh, fresh + 1
            free[star] = False
