"""Null distributions: the statistic under random exchanges of expectations between latents.

All statistics that are linear in the labels, sum_i w_i l_i, are computed under the same exchanges. So results that
share latents keep their dependence, and exchanges are drawn once. Without confounds (`joint_null`) only the positions
where a label differs from the commonest one, c, are needed:

    sum_i w_i l_p(i) = c sum_i w_i + sum_j (l_j - c) w_p'(j)

p' is the inverse of the permutation p, and as likely as p itself.

With confounds (`studentised_null`) the residuals of labels are exchanged against the residuals of weights (see
`isaerft.stats.confounds`). Residuals are less exchangeable than labels: those of labels are small where few latents
are expected, those of changes are small where changes are crowded, and the two can coincide. So each exchange is
studentized by its own spread (DiCiccio and Romano 2017, JASA 112:1211), block by block, because latents of one cluster
move together:

    t = sum_b z_b / sqrt(sum_b z_b^2),    z_b = sum of r_i s_i over block b

r and s are the residuals, centered within cells. The null is given in the unit of the statistic: what confounds
explain, plus t times the standard error at the observed labels.

For a statistic that is not linear, changes are exchanged instead of labels (`freedman_lane_null`; Freedman and Lane
1983, J. Bus. Econ. Stat. 1:292): the part of their ranks that confounds explain stays, the rest is exchanged. Labels
stay in place, with the part of them that confounds explain; where that part is large, the test is conservative.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from isaerft.stats.checks import Alternative
from isaerft.stats.confounds import SmoothConfounds
from isaerft.stats.exchange import Exchange
from isaerft.stats.statistics import LinearScorer, centered_ranks, value_of

# Values this close are ties. Distinct AUROCs differ by at least 1 / (2 n1 n0): 8e-12 at half a million latents.
_TIE = 1e-12
_JOINT_BYTES = 2**25
_GATHERED_BYTES = 2**23
# Few enough exchanges at once to stay in a processor's cache.
_STUDENTISED_BYTES = 2**21
_FREEDMAN_LANE_DRAWS = 256


def exchange_pvalue(value: float, null: np.ndarray, alternative: Alternative, *, exact: bool) -> float:
    """Return the p-value of `value` among the exchanges `null` (n_resamples,), ties counted; never 0.

    `exact` says that the null holds every distinct exchange, the observed one included; otherwise that one is added.
    """
    tie = _TIE * max(1.0, abs(value))
    added = 0 if exact else 1
    total = len(null) + added
    greater = (int(np.count_nonzero(null >= value - tie)) + added) / total
    less = (int(np.count_nonzero(null <= value + tie)) + added) / total
    return {"greater": greater, "less": less, "two-sided": min(1.0, 2 * min(greater, less))}[alternative]


def linear_null(
    exchange: Exchange,
    smooth: SmoothConfounds | None,
    scorers: Sequence[LinearScorer],
    n_resamples: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the null distributions (len(scorers), n_resamples) of linear statistics under the same exchanges.

    Parameters
    ----------
    exchange : Exchange
        Of n latents.
    smooth : SmoothConfounds or None
        What is taken out of labels and weights before labels are exchanged; with at least one term.
    scorers : sequence of LinearScorer
        Labels and weights (n,) in the order of the latents. Scorers with equal labels share their work.
    """
    if smooth is None:
        return joint_null(exchange, scorers, n_resamples, rng)
    return studentised_null(exchange, smooth, scorers, n_resamples, rng)


def joint_null(
    exchange: Exchange, scorers: Sequence[LinearScorer], n_resamples: int, rng: np.random.Generator
) -> np.ndarray:
    """Return `linear_null` without confounds."""
    parts = [
        (positions, _ExchangedSums([scorers[i] for i in positions], exchange.order))
        for positions in _with_equal_labels(scorers)
    ]
    size = max(1, _JOINT_BYTES // (8 * max(1, len(exchange.order))))
    result = _filled(len(scorers), parts, _permutations(exchange, n_resamples, size, rng), n_resamples)
    scale = np.array([scorer.scale for scorer in scorers])
    offset = np.array([scorer.offset for scorer in scorers])
    return offset[:, None] + scale[:, None] * result if len(scorers) else result


def studentised_null(
    exchange: Exchange,
    smooth: SmoothConfounds,
    scorers: Sequence[LinearScorer],
    n_resamples: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return `linear_null` with confounds."""
    blocks = _Blocks(exchange)
    parts = [
        (positions, _StudentisedSums([scorers[i] for i in positions], blocks, smooth))
        for positions in _with_equal_labels(scorers)
    ]
    return _filled(len(scorers), parts, _small_permutations(exchange, n_resamples, rng), n_resamples)


def linear_mean_null(
    exchange: Exchange,
    smooth: SmoothConfounds | None,
    scorers: Sequence[LinearScorer],
    n_resamples: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the null distribution (n_resamples,) of the mean of linear statistics, each exchange applied to all.

    Parameters are those of `linear_null`.
    """
    if smooth is None:
        return joint_null(exchange, scorers, n_resamples, rng).mean(axis=0)
    return studentised_mean_null(exchange, smooth, scorers, n_resamples, rng)


def studentised_mean_null(
    exchange: Exchange,
    smooth: SmoothConfounds,
    scorers: Sequence[LinearScorer],
    n_resamples: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return `linear_mean_null` with confounds: the mean is studentized, instead of each statistic."""
    blocks, count = _Blocks(exchange), len(scorers)
    labels = blocks.residuals(smooth, [scorer.labels for scorer in scorers])
    weights = blocks.residuals(smooth, [scorer.scale * scorer.weights for scorer in scorers])
    own = blocks.sums((weights * labels).sum(axis=0, keepdims=True))[0]
    value = np.mean([value_of(scorer) for scorer in scorers])
    unit = smooth.inflation * np.sqrt((own**2).sum()) / count
    result, gather = np.empty(n_resamples), _Gather()
    for start, drawn in _small_permutations(exchange, n_resamples, rng):
        moved = np.zeros(drawn.shape)
        for one, other in zip(weights, labels, strict=True):
            part = gather(other, drawn)
            part *= one
            moved += part
        found = blocks.sums(moved)
        result[start : start + len(drawn)] = found.sum(axis=1) / _root((found**2).sum(axis=1))
    return value - own.sum() / count + unit * result


def freedman_lane_null(
    exchange: Exchange,
    smooth: SmoothConfounds,
    change: np.ndarray,
    statistic_of: Callable[[np.ndarray], float],
    n_resamples: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the null distribution (n_resamples,) of any statistic, exchanging the residuals of the change's ranks.

    Parameters
    ----------
    exchange : Exchange
        Of n latents.
    smooth : SmoothConfounds
    change : (n,) float
        In the order of the latents.
    statistic_of : callable
        Returns the statistic of changes (n,) that are given in the exchange's order.
    """
    ranks = centered_ranks(change)
    explained = smooth.fitted(ranks)
    fitted, rest = explained[exchange.order], (ranks - explained)[exchange.order]
    return np.array(
        [
            statistic_of(fitted + rest[positions])
            for _, drawn in _permutations(exchange, n_resamples, _FREEDMAN_LANE_DRAWS, rng)
            for positions in drawn
        ]
    )


class _Statistics(Protocol):
    """Linear statistics, a of them, with the same labels."""

    def values(self, drawn: np.ndarray) -> np.ndarray:
        """Return (a, m) of m exchanges `drawn` (m, n)."""


class _ExchangedSums:
    """Sums of weights (a, n) times the same exchanged labels (n,), in the exchange's order."""

    def __init__(self, scorers: Sequence[LinearScorer], order: np.ndarray) -> None:
        self.labels = scorers[0].labels.astype(np.float64)[order]
        self.weights = np.array([scorer.weights[order] for scorer in scorers], dtype=np.float64)
        kinds, counts = np.unique(self.labels, return_counts=True)
        self.commonest = kinds[np.argmax(counts)]
        self.positions = np.flatnonzero(self.labels != self.commonest)

    def values(self, drawn: np.ndarray) -> np.ndarray:
        """Return (a, m) of m exchanges `drawn` (m, n)."""
        n_statistics, n = self.weights.shape
        is_sparse = n_statistics * len(self.positions) < n
        moved = drawn[:, self.positions] if is_sparse else drawn
        size = max(1, _GATHERED_BYTES // (8 * max(1, moved.shape[1])))
        parts = [moved[start : start + size] for start in range(0, len(moved), size)]
        return np.concatenate(
            [self._sparse(part) if is_sparse else self.weights @ self.labels[part].T for part in parts], axis=1
        )

    def _sparse(self, moved: np.ndarray) -> np.ndarray:
        excess = self.labels[self.positions] - self.commonest
        gathered = np.stack([weights[moved] @ excess for weights in self.weights])
        return gathered + self.commonest * self.weights.sum(axis=1, keepdims=True)


class _StudentisedSums:
    """Studentised statistics with the same labels (n,) and different weights (a, n)."""

    def __init__(self, scorers: Sequence[LinearScorer], blocks: _Blocks, smooth: SmoothConfounds) -> None:
        self.blocks, self.labels = blocks, blocks.residuals(smooth, [scorers[0].labels])[0]
        self.weights = blocks.residuals(smooth, [scorer.weights for scorer in scorers])
        self.squares = self.weights**2
        self.gather = _Gather()
        self.products = 2 * self.weights[:, blocks.first] * self.weights[:, blocks.second]
        scale = np.array([scorer.scale for scorer in scorers])
        own, spread = self._sums(self.labels[None].copy())
        self.unit = scale * smooth.inflation * np.sqrt(spread[:, 0])
        self.start = np.array([value_of(scorer) for scorer in scorers]) - scale * own[:, 0]

    def values(self, drawn: np.ndarray) -> np.ndarray:
        """Return (a, m) of m exchanges `drawn` (m, n)."""
        found, spread = self._sums(self.gather(self.labels, drawn))
        return self.start[:, None] + self.unit[:, None] * found / _root(spread)

    def _sums(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return sum_b z_b and sum_b z_b^2, each (a, m), for label sets (m, n), which are overwritten."""
        found = self.weights @ labels.T
        within = labels[:, self.blocks.first] * labels[:, self.blocks.second]
        spread = self.squares @ np.square(labels, out=labels).T
        return found, spread + self.products @ within.T if within.size else spread


class _Blocks:
    """The blocks of an exchange, all positions in its order."""

    def __init__(self, exchange: Exchange) -> None:
        self.order = exchange.order
        # Numbers the positions within the blocks of each cell, cell after cell.
        first = np.cumsum([0, *(cell.size for cell in exchange.cells)])
        self.positions = np.concatenate(
            [
                np.tile(np.arange(cell.size), cell.n_blocks) + start
                for cell, start in zip(exchange.cells, first, strict=False)
            ]
        )
        self.starts = np.concatenate([np.arange(cell.start, cell.stop, cell.size) for cell in exchange.cells])
        pairs = [
            cell.start
            + np.arange(cell.n_blocks)[:, None] * cell.size
            + np.stack(np.triu_indices(cell.size, 1))[:, None]
            for cell in exchange.cells
            if cell.size > 1
        ]
        joined = np.concatenate([part.reshape(2, -1) for part in pairs], axis=1) if pairs else np.empty((2, 0), int)
        self.first, self.second = joined

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of `values` (m, n) over each block, (m, n_blocks)."""
        return np.add.reduceat(values, self.starts, axis=1)

    def residuals(self, smooth: SmoothConfounds, values: Sequence[np.ndarray]) -> np.ndarray:
        """Return the residuals of `values`, each (n,) by latent, centered over the blocks of each cell.

        The result is (len(values), n), in the exchange's order.
        """
        rows = np.array(values, dtype=np.float64)
        result = (rows - smooth.fitted(rows))[:, self.order]
        means = np.array([np.bincount(self.positions, weights=row) for row in result]) / np.bincount(self.positions)
        return result - means[:, self.positions]


class _Gather:
    """Values at positions, into the same memory each time: fresh memory costs several times what the reading does."""

    def __init__(self) -> None:
        self._memory = np.empty(0)

    def __call__(self, values: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Return `values` (n,) float64 at `positions` (m, k), as an array that the next call overwrites."""
        if self._memory.size < positions.size:
            self._memory = np.empty(positions.size)
        out = self._memory[: positions.size].reshape(positions.shape)
        # `clip` writes to `out` without a copy; positions are never out of bounds.
        return np.take(values, positions, out=out, mode="clip")


def _with_equal_labels(scorers: Sequence[LinearScorer]) -> list[list[int]]:
    """Return the positions of the scorers in groups that have the same labels."""
    groups: dict[bytes, list[int]] = {}
    for position, scorer in enumerate(scorers):
        groups.setdefault(scorer.labels.astype(np.float64).tobytes(), []).append(position)
    return list(groups.values())


def _permutations(
    exchange: Exchange, n_resamples: int, size: int, rng: np.random.Generator
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the number of exchanges before a batch, and the batch (m, n), m at most `size`."""
    for start in range(0, n_resamples, size):
        yield start, exchange.permutations(min(size, n_resamples - start), rng)


def _small_permutations(
    exchange: Exchange, n_resamples: int, rng: np.random.Generator
) -> Iterator[tuple[int, np.ndarray]]:
    size = max(16, _STUDENTISED_BYTES // (8 * max(1, len(exchange.order))))
    return _permutations(exchange, n_resamples, size, rng)


def _filled(
    n_scorers: int,
    parts: Sequence[tuple[list[int], _Statistics]],
    batches: Iterator[tuple[int, np.ndarray]],
    n_resamples: int,
) -> np.ndarray:
    """Return (n_scorers, n_resamples) the values of all parts, each at its scorers' positions."""
    result = np.empty((n_scorers, n_resamples))
    for start, drawn in batches:
        for positions, statistics in parts:
            result[positions, start : start + len(drawn)] = statistics.values(drawn)
    return result


def _root(spread: np.ndarray) -> np.ndarray:
    """Return the square root; infinity where the spread is 0, because then the sum is 0, too."""
    return np.where(spread > 0, np.sqrt(np.maximum(spread, 0)), np.inf)
