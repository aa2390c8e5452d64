"""Do the components of learned maps recur in other seeds?

A component reads one direction and writes one. Components have no order that seeds share, so each seed's are first
matched one to one with another's, such that the absolute cosines of the matched rank-one maps are largest in sum: the
cosine of read' write with another is the product of the two sides' cosines. Matching finds likeness among random
directions too, so chance is what the same matching finds among these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

N_DRAWS = 1000


@dataclass(frozen=True)
class Recurrence:
    """How alike matched components are.

    Attributes
    ----------
    read, write : (n,) float64 or float
        Absolute cosine of each component with its match, the mean over other seeds; 0 where a seed has no match left.
    """

    read: np.ndarray | float
    write: np.ndarray | float


def recurrence(reads: Sequence[np.ndarray], writes: Sequence[np.ndarray]) -> list[Recurrence]:
    """Return how each seed's components recur in the other seeds; NaN with one seed.

    Parameters
    ----------
    reads, writes : sequence of (n_components, n) float
        Directions of each seed's components; lengths mean nothing.
    """
    found = []
    for seed, (read, write) in enumerate(zip(reads, writes, strict=True)):
        others = [place for place in range(len(reads)) if place != seed]
        sides = [_matched(_cosines(read, reads[other]), _cosines(write, writes[other])) for other in others]
        mean = np.mean(sides, axis=0) if sides else np.full((2, len(read)), np.nan)
        found.append(Recurrence(mean[0], mean[1]))
    return found


def recurrence_by_chance(n_components: int, n_read: int, n_write: int, rng: np.random.Generator) -> Recurrence:
    """Return the mean of the same for components of random directions in `n_read` and `n_write` dimensions."""
    drawn = []
    for _ in range(N_DRAWS):
        read, write = (_random_cosines(n_components, n, rng) for n in (n_read, n_write))
        drawn.append(_matched(read, write).mean(axis=1))
    read_mean, write_mean = np.mean(drawn, axis=0)
    return Recurrence(float(read_mean), float(write_mean))


def _matched(read: np.ndarray, write: np.ndarray) -> np.ndarray:
    """Return the cosines of each row's match on both sides, (2, n_rows)."""
    rows, columns = linear_sum_assignment(read * write, maximize=True)
    found = np.zeros((2, len(read)))
    found[:, rows] = read[rows, columns], write[rows, columns]
    return found


def _cosines(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Return absolute cosines of two sets of directions, (n_ours, n_theirs)."""
    one, other = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (ours, theirs))
    return np.abs(one @ other.T)


def _random_cosines(k: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw absolute cosines of k by k random directions in n dimensions, each as if independent."""
    along = rng.normal(size=(k, k))
    across = rng.chisquare(n - 1, size=(k, k)) if n > 1 else np.zeros((k, k))
    return np.abs(along) / np.sqrt(along**2 + across)
