"""Confounds: strata of similar latents, clusters of near-duplicates, and smooth functions of confounds.

Firing rate, decoder norm and density confound both changes and explanations. `strata_of` cuts latents into strata in
which they are about equal:

>>> import numpy as np
>>> np.bincount(strata_of(np.arange(100.0), n_bins=4, min_size=10)).tolist()
[25, 25, 25, 25]

Latents whose vectors point almost the same way move together in training. `clusters_of` finds them:

>>> clusters_of(np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.01]]), threshold=0.9).tolist()
[0, 1, 0]

Strata leave a remainder: within a bin, latents that fire more still change more and are still expected more. So
`SmoothConfounds` also regresses out smooth functions of the confounds, with a level for each stratum. For a statistic
that is linear in the labels this changes only its null, not its value. With Q an orthonormal basis of these functions,
w = QQ'w + r the weights (ranks of the changes) and l = QQ'l + s the labels,

    sum_i w_i l_i = sum_i (QQ'w)_i l_i + sum_i r_i s_i

because r and s are both orthogonal to Q. The first sum is what confounds alone explain, and stays; in the second,
the residuals s are exchanged against r (Kennedy 1995, J. Educ. Behav. Stat. 20:79; for exchanges in linear models see
Winkler et al. 2014, NeuroImage 92:381). The mean of r s is 0 without agreement if Q captures how either the changes or
the labels depend on the confounds, so the test errs only where it captures neither. `isaerft.stats.nulls` studentizes
the second sum.

>>> rate = np.random.default_rng(0).normal(size=400)
>>> smooth = SmoothConfounds.of(rate[None], np.zeros(400, int), n_blocks=400)
>>> smooth.n_terms, float(np.abs(rate**2 - smooth.fitted(rate**2)).mean().round(2))
(3, 0.15)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import norm

from isaerft.errors import InputError
from isaerft.stats.checks import as_count, as_finite, as_groups, as_share
from isaerft.stats.ranks import midranks

BLOCK_ROWS = 1024
MAX_PAIRS = 20_000_000
MAX_DEGREE = 3
MIN_CONTROLS = 3
_DEPENDENT = 1e-8
BLOCKS_PER_TERM = 20
"""Fewest blocks that exchange labels (latents, or clusters) per function fitted; otherwise the degree is lower."""


def strata_of(
    *confounds: ArrayLike, n_bins: int = 10, min_size: int = 20, clusters: ArrayLike | None = None
) -> np.ndarray:
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
    ranks = [midranks(column) for column in columns]
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


def clusters_of(vectors: ArrayLike, threshold: float, *, max_size: int = 64) -> np.ndarray:
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
        free, and so on, so every member is within `threshold` of its star's center.

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


@dataclass(frozen=True)
class SmoothConfounds:
    """Smooth functions of confounds, in addition to a level for each stratum.

    Attributes
    ----------
    basis : (n, n_strata + n_terms) float
        Orthonormal columns that span the strata's levels and the polynomials of the confounds' normal scores.
    n_terms : int
        Functions fitted besides the levels; 0 where there are too few latents to fit any.
    n_blocks : int
        Latents or clusters that exchange labels.
    """

    basis: np.ndarray
    n_terms: int
    n_blocks: int

    @property
    def inflation(self) -> float:
        """Ratio of the errors' spread to the residuals', due to the fit's degrees of freedom (HC1).

        Those of the levels don't count: every exchange is within strata, too.
        """
        return float(np.sqrt((self.n_blocks - 1) / (self.n_blocks - 1 - self.n_terms)))

    @classmethod
    def of_strata(cls, strata: np.ndarray) -> SmoothConfounds:
        """Return a level for each stratum, and no function besides; strata (n,) int are codes from 0."""
        levels = (strata == np.arange(strata.max() + 1)[:, None]).astype(np.float64)
        return cls((levels / np.sqrt(levels.sum(axis=1, keepdims=True))).T, 0, len(strata))

    @classmethod
    def of(cls, confounds: ArrayLike, strata: np.ndarray, *, n_blocks: int) -> SmoothConfounds:
        """Return all polynomials up to the third degree, or as many degrees as the number of blocks allows.

        Parameters
        ----------
        confounds : (k, n) float
            Only ranks count.
        strata : (n,) int
            Codes from 0.
        n_blocks : int
            Latents or clusters that exchange labels.

        Raises
        ------
        InputError
            NaN, or not two-dimensional.
        """
        values, codes = as_finite("confounds", confounds, n_dims=2), np.asarray(strata, dtype=np.int64)
        degree = n_terms = 0
        while degree < MAX_DEGREE:
            n_terms += math.comb(len(values) + degree, degree + 1)
            if BLOCKS_PER_TERM * n_terms > n_blocks:
                break
            degree += 1
        basis = _basis(values.tobytes(), codes.tobytes(), len(values), degree)
        return cls(basis, basis.shape[1] - int(codes.max()) - 1, n_blocks)

    def fitted(self, values: np.ndarray) -> np.ndarray:
        """Return what strata and confounds explain of `values` (..., n)."""
        return (values @ self.basis) @ self.basis.T

    def with_controls(self, columns: ArrayLike) -> SmoothConfounds:
        """Return the same with further functions to take out, `columns` (m, n), such as `negative_controls`."""
        further = as_finite("controls", columns, n_dims=2)
        rest = further - self.fitted(further)
        # What the basis already explains leaves rounding errors, which are no further direction.
        kept = np.linalg.norm(rest, axis=1) > _DEPENDENT * np.linalg.norm(further, axis=1)
        if not kept.any():
            return self
        basis = np.hstack([self.basis, _orthonormal(rest[kept].T)])
        n_terms = self.n_terms + basis.shape[1] - self.basis.shape[1]
        return SmoothConfounds(basis, n_terms, self.n_blocks)


# Every matrix of a reading, its placebos and its exchanges have the same confounds; a basis can take 100 MB.
@lru_cache(maxsize=2)
def _basis(confounds: bytes, strata: bytes, n_confounds: int, max_degree: int) -> np.ndarray:
    """Return the basis of strata (n,) int64 and of polynomials of confounds (n_confounds, n) float64; not writable."""
    values, codes = np.frombuffer(confounds).reshape(n_confounds, -1), np.frombuffer(strata, dtype=np.int64)
    scores = norm.ppf((midranks(values) - 0.5) / values.shape[1])
    levels = (codes == np.arange(codes.max() + 1)[:, None]).astype(np.float64)
    terms = [
        scores[list(factors)].prod(axis=0)
        for degree in range(1, max_degree + 1)
        for factors in combinations_with_replacement(range(n_confounds), degree)
    ]
    basis = _orthonormal(np.stack([*levels, *terms], axis=1))
    basis.setflags(write=False)
    return basis


def smooth_confounds(confounds: ArrayLike | None, strata: np.ndarray, clusters: np.ndarray) -> SmoothConfounds | None:
    """Return the smooth functions of `confounds` (k, n), given strata (n,) and the clusters (n,) that exchange labels.

    None where no confounds are given, or too few latents to fit any function of them.

    Raises
    ------
    InputError
        Confounds are not (k, n) finite numbers.
    """
    if confounds is None:
        return None
    values = as_finite("confounds", confounds, n_dims=2)
    if values.shape[1] != len(clusters):
        raise InputError(f"confounds have shape {values.shape}", allowed=f"(k, {len(clusters)})")
    smooth = SmoothConfounds.of(values, strata, n_blocks=len(np.unique(clusters)))
    return smooth if smooth.n_terms else None


def negative_controls(changes: ArrayLike, expected: ArrayLike) -> np.ndarray | None:
    """Return what other trainings say about the confounds of each latent, known or not, as columns to take out.

    Parameters
    ----------
    changes : (n_others, n) float
        Changes from training on other behaviors; only ranks within each count.
    expected : (n_others, n) bool or float
        Expectations for those behaviors.

    Returns
    -------
    (6, n) float or None
        With m the normal scores of the mean change and g the standardized mean expectation: m, m^2, m^3, g, g^2, mg.
        None with fewer than 3 others, whose means are hardly known.

    Notes
    -----
    The other behaviors' trainings and expectations are negative controls (Lipsitch et al. 2010, Epidemiology 21:383;
    in genomics RUV, Gagnon-Bartsch and Speed 2012, Biostatistics 13:539): what moves a latent under any training, and
    what makes its explanation fit any behavior, shows there, whether or not it was measured.
    """
    changed, labels = as_finite("changes", changes, n_dims=2), as_finite("expected", expected, n_dims=2)
    if len(changed) < MIN_CONTROLS:
        return None
    mean_rank = midranks(changed).mean(axis=0)
    moved = norm.ppf((midranks(mean_rank) - 0.5) / mean_rank.size)
    said = labels.mean(axis=0)
    said = (said - said.mean()) / (said.std() or 1.0)
    return np.array([moved, moved**2, moved**3, said, said**2, moved * said])


def _orthonormal(columns: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis of the span of the columns (n, p); what depends on others, or is 0, adds nothing."""
    norms = np.linalg.norm(columns, axis=0)
    left, sizes, _ = np.linalg.svd(columns[:, norms > 0] / norms[norms > 0], full_matrices=False)
    return left[:, sizes > _DEPENDENT * sizes[0]]
