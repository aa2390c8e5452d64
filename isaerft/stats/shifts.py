"""Thousands of random exchanges at the cost of a few: cyclic shifts of units in random order.

A test needs sum_u y_u l_g(u) for many random permutations g of the units of each cell. Drawn one by one, each costs as
many steps as there are units. Here the units of a cell are put into two random orders, a and b, one for y and one for
l, and l is shifted against y: unit a(i) gets the label of unit b(i + k), where i + k runs around the cell. The sums of
all shifts k of a cell are one circular correlation, which the fast Fourier transform finds at once; an exchange takes
one shift in each cell, independently, and adds up its sums. A pair of orders serves one round of exchanges, a quarter
as many as there are units that can move, for so many of its shifts are about as good as independent permutations.

The p-value stays exact, for it needs neither independent permutations nor a group: of any set of permutations that was
drawn without looking at the labels, one is picked at random, and the others are taken relative to it (Ramdas, Barber,
Candes and Tibshirani 2023, Sankhya A 85:1156). Relative to a member of its own round, a shift is one of a
cell in a single random order; relative to it, the orders of other rounds are as random as before. So one round has the
same order for y and l, and leaves out the shift of 0 everywhere: the observed labels.

>>> from isaerft.stats.exchange import exchange_within
>>> shifts = Shifts.draw(exchange_within(n=100), 5, np.random.default_rng(0))
>>> shifts.sums(np.arange(100.0), np.ones(100)).round(6).tolist()
[4950.0, 4950.0, 4950.0, 4950.0, 4950.0]
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from isaerft.stats.exchange import Cell, Exchange

UNITS_PER_SHIFT = 4
"""Units that can move, per exchange of a round: with fewer, exchanges of one round would be less than independent."""
_MAX_CODES = 2**62


@dataclass(frozen=True)
class Shifts:
    """Random exchanges of labels between units, all of whose cells have blocks of one unit.

    Attributes
    ----------
    cells : tuple of Cell
        Those of at least two units, by size.
    orders : tuple of (n_rounds, n_movable) int64
        Orders a and b of the units of these cells, side by side, round by round; positions of `Exchange.order`.
    rounds : (n_resamples,) int64
        Round of each exchange.
    shifts : (n_cells, n_resamples) int64
        Shift of each cell in each exchange.
    fixed : (n_fixed,) int64
        Positions of the units that are alone in their cells.
    """

    cells: tuple[Cell, ...]
    orders: tuple[np.ndarray, np.ndarray]
    rounds: np.ndarray
    shifts: np.ndarray
    fixed: np.ndarray

    @classmethod
    def draw(cls, exchange: Exchange, n_resamples: int, rng: np.random.Generator) -> Shifts:
        """Draw `n_resamples` exchanges; cells of a single unit keep their label."""
        cells = tuple(sorted((cell for cell in exchange.cells if cell.n_blocks > 1), key=lambda cell: cell.n_blocks))
        fixed = np.array([cell.start for cell in exchange.cells if cell.n_blocks == 1], dtype=np.int64)
        sizes = np.array([cell.n_blocks for cell in cells], dtype=np.int64)
        n_rounds = -(-(n_resamples + 1) // max(1, int(sizes.sum()) // UNITS_PER_SHIFT))
        # Exchange 0 is the observed one: any member of the set, so its round is that of a random member.
        rounds = np.sort(np.arange(n_resamples + 1) % n_rounds)
        own = rounds[rng.integers(n_resamples + 1)]
        places = np.concatenate([np.arange(cell.start, cell.stop) for cell in cells] or [np.empty(0, np.int64)])
        first, second = (exchange.permutations(n_rounds, rng)[:, places] for _ in range(2))
        second[own] = first[own]
        drawn = [
            _distinct_shifts(sizes, int(count), rng, without_zero=index == own)
            for index, count in enumerate(np.bincount(rounds) - (np.arange(n_rounds) == own))
        ]
        rounds = np.repeat(np.arange(n_rounds), [part.shape[1] for part in drawn])
        return cls(cells, (first, second), rounds, np.concatenate(drawn, axis=1), fixed)

    def sums(self, values: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return (n_resamples,) the sum over units of `values` times exchanged `labels`, both (n_units,) float."""
        total = np.full(len(self.rounds), float(values[self.fixed] @ labels[self.fixed]))
        if not self.cells:
            return total
        y, moved = values[self.orders[0]], labels[self.orders[1]]
        by_shift = np.empty_like(y)
        sizes = np.array([cell.n_blocks for cell in self.cells])
        starts = np.cumsum(sizes) - sizes
        for size in np.unique(sizes):
            here = slice(int(starts[sizes == size][0]), int(starts[sizes == size][-1] + size))
            ours = np.fft.rfft(y[:, here].reshape(len(y), -1, size))
            theirs = np.fft.rfft(moved[:, here].reshape(len(y), -1, size))
            by_shift[:, here] = np.fft.irfft(ours.conj() * theirs, size).reshape(len(y), -1)
        flat, row = by_shift.ravel(), self.rounds * by_shift.shape[1]
        for start, shift in zip(starts, self.shifts, strict=True):
            total += flat[row + (start + shift)]
        return total


def _distinct_shifts(sizes: np.ndarray, count: int, rng: np.random.Generator, *, without_zero: bool) -> np.ndarray:
    """Return (n_cells, count) different combinations of shifts 0 to size - 1, not all 0 if `without_zero`."""
    total = prod(sizes.tolist())
    if total > _MAX_CODES:  # two of so many are never alike
        return rng.integers(0, sizes[:, None], size=(len(sizes), count))
    codes = rng.choice(total - without_zero, size=count, replace=False, shuffle=False) + without_zero
    shifts = np.empty((len(sizes), count), dtype=np.int64)
    for cell, size in enumerate(sizes):
        codes, shifts[cell] = np.divmod(codes, size)
    return shifts
