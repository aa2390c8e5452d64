"""The null of an agreement when what confounds explain is taken out of changes and labels: a studentised exchange.

Residuals (see `isaerft.stats.adjustment`) are not exchangeable as labels are: where few latents are expected the
residuals of labels are small, where changes are crowded theirs are, and the two can go together. So each exchange is
studentised by its own spread before it is compared (DiCiccio and Romano 2017, JASA 112:1211), block by block, for
latents of one cluster move together:

    t = sum_b z_b / sqrt(sum_b z_b^2),    z_b = sum of r_i s_i over block b,

r and s centred within cells. The null is given in the statistic's own unit: what confounds explain, plus t times the
standard error of the labels as given.

The nulls of questions that have smooth confounds.

A statistic that is linear in the labels is exchanged as `isaerft.stats.studentised` says. For another one the changes
are exchanged instead: what confounds explain of their ranks stays where it is, and the rest is exchanged between
latents (Freedman and Lane 1983, J. Bus. Econ. Stat. 1:292). There the labels, and so what confounds explain of them,
stay: where that is much, the null is wider than need be, and the test conservative.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from isaerft.stats.confounds import SmoothConfounds
from isaerft.stats.exchange import Exchange
from isaerft.stats.question import Question
from isaerft.stats.statistics import LinearScorer, centred_ranks

# So few exchanges at once that they stay in a processor's cache.
BATCH_BYTES = 2**21


def studentised_null(
    exchange: Exchange,
    smooth: SmoothConfounds,
    scorers: Sequence[LinearScorer],
    n_resamples: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the null distributions (len(scorers), n_resamples) of linear statistics under the same exchanges.

    Parameters
    ----------
    exchange : Exchange
        Of n latents.
    smooth : SmoothConfounds
        With at least one term.
    scorers : sequence of LinearScorer
        Labels and weights (n,) in the order of the latents. Those with equal labels share their work.
    """
    result = np.empty((len(scorers), n_resamples))
    blocks, groups = _Blocks(exchange), {}
    for place, scorer in enumerate(scorers):
        groups.setdefault(scorer.labels.astype(np.float64).tobytes(), []).append(place)
    parts = [(places, _SameLabels([scorers[i] for i in places], blocks, smooth)) for places in groups.values()]
    for start, drawn in _drawn(exchange, n_resamples, rng):
        for places, part in parts:
            result[places, start : start + len(drawn)] = part.values(drawn)
    return result


def studentised_mean_null(
    exchange: Exchange,
    smooth: SmoothConfounds,
    scorers: Sequence[LinearScorer],
    n_resamples: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the null distribution (n_resamples,) of the mean of linear statistics, each exchange applied to all."""
    blocks, count = _Blocks(exchange), len(scorers)
    labels = blocks.residuals(smooth, [scorer.labels for scorer in scorers])
    weights = blocks.residuals(smooth, [scorer.scale * scorer.weights for scorer in scorers])
    own = blocks.sums((weights * labels).sum(axis=0, keepdims=True))[0]
    value = np.mean([_value(scorer) for scorer in scorers])
    unit = smooth.inflation * np.sqrt((own**2).sum()) / count
    result, gather = np.empty(n_resamples), _Gather()
    for start, drawn in _drawn(exchange, n_resamples, rng):
        moved = np.zeros(drawn.shape)
        for one, other in zip(weights, labels, strict=True):
            part = gather(other, drawn)
            part *= one
            moved += part
        found = blocks.sums(moved)
        result[start : start + len(drawn)] = found.sum(axis=1) / _root((found**2).sum(axis=1))
    return value - own.sum() / count + unit * result


class _Blocks:
    """The blocks of an exchange, all positions in its order."""

    def __init__(self, exchange: Exchange) -> None:
        self.order = exchange.order
        # Cell by cell, the place within its block.
        first = np.cumsum([0, *(cell.size for cell in exchange.cells)])
        self.places = np.concatenate(
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
        """Return what `smooth` leaves of each of `values` (n,), given by latent, centred over the blocks of each cell.

        The result is (len(values), n), in the exchange's order.
        """
        given = np.array(values, dtype=np.float64)
        result = (given - smooth.fitted(given))[:, self.order]
        means = np.array([np.bincount(self.places, weights=row) for row in result]) / np.bincount(self.places)
        return result - means[:, self.places]


class _Gather:
    """Values at places, into the same memory each time: fresh memory costs several times what the reading does."""

    def __init__(self) -> None:
        self._memory = np.empty(0)

    def __call__(self, values: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Return `values` (n,) float64 at `places` (m, k), as an array that the next call overwrites."""
        if self._memory.size < places.size:
            self._memory = np.empty(places.size)
        out = self._memory[: places.size].reshape(places.shape)
        # `clip` writes to `out` without a copy; places are never out of bounds.
        return np.take(values, places, out=out, mode="clip")


class _SameLabels:
    """Linear statistics with the same labels (n,) and different weights (a, n)."""

    def __init__(self, scorers: Sequence[LinearScorer], blocks: _Blocks, smooth: SmoothConfounds) -> None:
        self.blocks, self.labels = blocks, blocks.residuals(smooth, [scorers[0].labels])[0]
        self.weights = blocks.residuals(smooth, [scorer.weights for scorer in scorers])
        self.squares = self.weights**2
        self.gather = _Gather()
        self.products = 2 * self.weights[:, blocks.first] * self.weights[:, blocks.second]
        scale = np.array([scorer.scale for scorer in scorers])
        own, spread = self._sums(self.labels[None].copy())
        self.unit = scale * smooth.inflation * np.sqrt(spread[:, 0])
        self.start = np.array([_value(scorer) for scorer in scorers]) - scale * own[:, 0]

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


def _value(scorer: LinearScorer) -> float:
    return float(scorer(scorer.labels[None])[0])


def _root(spread: np.ndarray) -> np.ndarray:
    """Return the square root; infinity where the spread is 0, for then the sum is 0, too."""
    return np.where(spread > 0, np.sqrt(np.maximum(spread, 0)), np.inf)


def _drawn(exchange: Exchange, n_resamples: int, rng: np.random.Generator) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first exchange, exchanges (m, n))."""
    size = max(16, BATCH_BYTES // (8 * max(1, len(exchange.order))))
    for start in range(0, n_resamples, size):
        yield start, exchange.permutations(min(size, n_resamples - start), rng)


BATCH = 256


def adjusted_nulls(questions: Sequence[Question], n_resamples: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return the null distribution (n_resamples,) of each question; all have the same exchange and confounds."""
    nulls: dict[int, np.ndarray] = {}
    linear = [place for place, question in enumerate(questions) if isinstance(question.scorer, LinearScorer)]
    if linear:
        first, scorers = questions[linear[0]], [questions[place].scorer for place in linear]
        found = studentised_null(first.exchange, first.smooth, scorers, n_resamples, rng)
        nulls |= dict(zip(linear, found, strict=True))
    return [
        nulls[place] if place in nulls else freedman_lane_null(question, n_resamples, rng)
        for place, question in enumerate(questions)
    ]


def freedman_lane_null(question: Question, n_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return the null distribution (n_resamples,) of one question, exchanging what is left of its changes."""
    order = question.exchange.order
    ranks = centred_ranks(question.change)
    explained = question.smooth.fitted(ranks)
    fitted, rest = explained[order], (ranks - explained)[order]
    labels, strata = question.labels[order], question.strata[order]
    null = []
    for start in range(0, n_resamples, BATCH):
        for places in question.exchange.permutations(min(BATCH, n_resamples - start), rng):
            scorer = question.kind.bind(fitted + rest[places], labels, strata)
            null.append(float(scorer(scorer.labels[None])[0]))
    return np.array(null)
