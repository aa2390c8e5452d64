"""Strata of latents that are alike in what confounds both change and explanation (firing rate, decoder norm, density).

>>> import numpy as np
>>> np.bincount(strata_of(np.arange(100.0), n_bins=4, min_size=10)).tolist()
[25, 25, 25, 25]
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import rankdata

from isaerft.errors import InputError
from isaerft.stats.checks import as_count, as_finite, as_groups


def strata_of(*confounds: Any, n_bins: int = 10, min_size: int = 20, clusters: Any = None) -> np.ndarray:
    """Cut latents into strata: quantile bins of each confound, crossed, small cells merged into near ones.

    Parameters
    ----------
    *confounds : (n,) float
        One or more quantities per latent; only their ranks count. Equal values share a bin.
    n_bins : int
        Quantile bins per confound. What is left of a confound inside a bin still biases the test: 5 bins remove about
        90 % of a linear bias (Cochran 1968), 10 about 97 %.
    min_size : int
        Smallest stratum; the smallest cell is merged into the one whose mean bin is nearest (in bins, summed over
        confounds; ties: the smaller, then the earlier in bin order) until all are at least this large. Merging
        loosens the control.
    clusters : (n,) int, optional
        Each latent is binned by its cluster's mean rank, so that a cluster never straddles strata.

    Returns
    -------
    (n,) int64
        Stratum of each latent, 0 to n_strata - 1, in bin order (the first confound slowest).

    Raises
    ------
    InputError
        No confound, confounds of different lengths, NaN, or counts below 1.
    """
    n_bins, min_size = as_count("n_bins", n_bins), as_count("min_size", min_size)
    if not confounds:
        raise InputError("strata_of was given no confound", allowed="one or more (n,) arrays, such as firing rates")
    columns = [as_finite(f"confound {index}", values, n_dims=1) for index, values in enumerate(confounds)]
    lengths = [column.size for column in columns]
    if len(set(lengths)) > 1 or lengths[0] == 0:
        raise InputError(f"confounds have lengths {lengths}", allowed="one value per latent in each")
    ranks = [rankdata(column) for column in columns]
    if clusters is not None:
        codes = as_groups("clusters", clusters, lengths[0])
        ranks = [(np.bincount(codes, weights=rank) / np.bincount(codes))[codes] for rank in ranks]
    bins = np.stack([np.floor((rank - 0.5) / rank.size * n_bins) for rank in ranks], axis=1)
    cells, code, sizes = np.unique(bins, axis=0, return_inverse=True, return_counts=True)
    return _merged(cells, sizes, min_size)[code.ravel()]


def _merged(cells: np.ndarray, sizes: np.ndarray, min_size: int) -> np.ndarray:
    """Return the stratum of each cell (n_cells,), merging cells (n_cells, n_confounds) smaller than `min_size`."""
    centre, size, owner = cells.astype(np.float64), sizes.copy(), np.arange(len(cells))
    alive = np.ones(len(cells), dtype=bool)
    while alive.sum() > 1:
        living = np.flatnonzero(alive)
        small = living[np.argmin(size[living])]
        if size[small] >= min_size:
            break
        others = living[living != small]
        distance = np.abs(centre[others] - centre[small]).sum(axis=1)
        target = others[np.lexsort((others, size[others], distance))[0]]
        total = size[small] + size[target]
        centre[target] = (size[small] * centre[small] + size[target] * centre[target]) / total
        size[target], alive[small] = total, False
        owner[owner == small] = target
    # Number strata by their first cell in bin order.
    return np.unique([np.flatnonzero(owner == own)[0] for own in owner], return_inverse=True)[1].astype(np.int64)
