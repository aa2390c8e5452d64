"""Exchanges of labels between latents that are exchangeable under the null: within strata, whole clusters at a time.

A latent is a block of its own unless `clusters` puts it with others. Two blocks may exchange their labels if they
have the same size and the same strata, that is as many latents in each stratum. (A cluster nearly always lies in one
stratum; see `strata_of`.) Blocks that may exchange form a cell. An exchange permutes the blocks of every cell,
independently and uniformly, and moves each block's labels in order: the first label of a block (its latents sorted
by stratum, then by index) becomes the first of another. So each stratum keeps its labels, and latents that move
together always get labels that came from one cluster. A cluster whose size or strata no other cluster has cannot move.

Tests of statistics that are linear in the labels exchange whole units of about one size instead (`Units`).

>>> import numpy as np
>>> exchange = exchange_within(n=5, strata=np.array([0, 0, 0, 1, 1]))
>>> exchange.n_distinct(np.array([True, False, False, True, False]))
6

Where there are few distinct exchanges, `all_exchanges` enumerates them and the p-value is exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from math import comb, inf

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from isaerft.stats.checks import as_groups

BATCH_BYTES = 2**25
MAX_TABLE_BYTES = 2**27
# Take the first step's chance this many standard deviations low: adding is cheap, an overfull cell is drawn anew.
_UNDERSHOOT = 2.0


@dataclass(frozen=True)
class Cell:
    """Blocks that may exchange labels: positions start to start + n_blocks * size of `Exchange.order`, in turn."""

    start: int
    n_blocks: int
    size: int

    @property
    def stop(self) -> int:
        """The position after the cell's last."""
        return self.start + self.n_blocks * self.size

    def blocks(self, labels: np.ndarray) -> np.ndarray:
        """Return the cell's part of `labels` (n,), given in `Exchange.order`, as (n_blocks, size)."""
        return labels[self.start : self.stop].reshape(self.n_blocks, self.size)


@dataclass(frozen=True)
class Exchange:
    """Which labels may change places.

    Parameters
    ----------
    order : (n,) int64
        The latents, cell by cell and block by block. All functions below take and return labels in this order.
    cells : tuple of Cell
        The cells, side by side, covering all n positions.
    """

    order: np.ndarray
    cells: tuple[Cell, ...]

    def movable(self, labels: np.ndarray) -> tuple[Cell, ...]:
        """Return the cells in which an exchange can change `labels` (n,): at least two blocks that differ."""
        return tuple(cell for cell in self.cells if (cell.blocks(labels) != cell.blocks(labels)[0]).any())

    def n_distinct(self, labels: np.ndarray, limit: float = inf) -> int:
        """Return the number of distinct, equally likely label sets that exchanges of `labels` (n,) make.

        Counting stops at some number above `limit`: the factorial of 65,536 takes seconds to multiply out.
        """
        total = 1
        for cell in self.movable(labels):
            left = cell.n_blocks
            for count in np.unique(cell.blocks(labels), axis=0, return_counts=True)[1]:
                total *= comb(left, int(count))
                left -= int(count)
                if total > limit:
                    return total
        return total

    def draw(self, labels: np.ndarray, n_draws: int, rng: np.random.Generator) -> np.ndarray:
        """Return (n_draws, n) labels of the dtype of `labels` (n,), each row an independent random exchange."""
        drawn = np.empty((n_draws, len(labels)), dtype=labels.dtype)
        drawn[:] = labels
        cells = self.movable(labels)
        if labels.dtype == bool:
            single = [cell for cell in cells if cell.size == 1]
            _draw_yes_no(drawn, labels, single, rng)
            cells = tuple(cell for cell in cells if cell.size > 1)
        for cell in cells:
            here = slice(cell.start, cell.stop)
            if cell.size == 1:
                rng.permuted(drawn[:, here], axis=1, out=drawn[:, here])
            else:
                moved = rng.permuted(np.tile(np.arange(cell.n_blocks), (n_draws, 1)), axis=1)
                drawn[:, here] = cell.blocks(labels)[moved].reshape(n_draws, -1)
        return drawn

    def permutations(self, n_draws: int, rng: np.random.Generator) -> np.ndarray:
        """Return (n_draws, n) int64 positions: in exchange i, position j gets the label that was at [i, j].

        One permutation applied to the labels of all behaviors keeps their dependence.
        """
        drawn = np.tile(np.arange(len(self.order)), (n_draws, 1))
        for cell in self.cells:
            here = drawn[:, cell.start : cell.stop]
            if cell.size == 1:
                rng.permuted(here, axis=1, out=here)
                continue
            moved = rng.permuted(np.tile(np.arange(cell.n_blocks), (n_draws, 1)), axis=1)
            here[:] = cell.start + (moved[:, :, None] * cell.size + np.arange(cell.size)).reshape(n_draws, -1)
        return drawn

    def batches(
        self, labels: np.ndarray, n_resamples: int, rng: np.random.Generator, *, max_bytes: int = BATCH_BYTES
    ) -> Iterator[np.ndarray]:
        """Yield `n_resamples` random exchanges of `labels` (n,) in batches (m, n) of about `max_bytes` of memory."""
        size = max(1, max_bytes // (len(labels) * (8 * labels.dtype.itemsize)))
        for start in range(0, n_resamples, size):
            yield self.draw(labels, min(size, n_resamples - start), rng)


def exchange_within(n: int, strata: ArrayLike | None = None, clusters: ArrayLike | None = None) -> Exchange:
    """Return the exchange of labels between `n` latents within `strata` and by `clusters`.

    Parameters
    ----------
    n : int
        Number of latents.
    strata : (n,) int, optional
        Labels are exchanged only within a stratum. Default: one stratum.
    clusters : (n,) int, optional
        Latents of one cluster are exchanged together. Default: each latent alone.

    Raises
    ------
    InputError
        Strata or clusters are not (n,) integers.
    """
    stratum, cluster = as_groups("strata", strata, n), as_groups("clusters", clusters, n)
    order = np.lexsort((np.arange(n), stratum, cluster))
    starts = np.flatnonzero(np.diff(cluster[order], prepend=-1))
    sizes = np.diff(starts, append=n)
    kinds: dict[tuple[int, ...], list[np.ndarray]] = {}
    alone = order[starts[sizes == 1]]
    alone = alone[np.lexsort((alone, stratum[alone]))]
    for start, size in zip(starts[sizes > 1], sizes[sizes > 1], strict=True):
        members = order[start : start + size]
        kinds.setdefault(tuple(stratum[members].tolist()), []).append(members)
    parts, cells, position = [alone], [], 0
    for size in np.bincount(stratum[alone])[np.unique(stratum[alone])] if alone.size else ():
        cells.append(Cell(position, int(size), 1))
        position += int(size)
    for kind in sorted(kinds, key=lambda kind: (len(kind), kind)):
        parts.extend(kinds[kind])
        cells.append(Cell(position, len(kinds[kind]), len(kind)))
        position += len(kinds[kind]) * len(kind)
    return Exchange(np.concatenate(parts), tuple(cells))


MIN_CELL = 5
"""Fewest units that exchange labels among themselves; smaller cells are joined."""


@dataclass(frozen=True)
class Units:
    """Units of latents that get their labels together, and which of them may exchange labels.

    Parameters
    ----------
    codes : (n,) int64
        Unit of each latent, from 0.
    exchange : Exchange
        Of the units: within cells of about one size and one stratum.
    """

    codes: np.ndarray
    exchange: Exchange

    @property
    def sizes(self) -> np.ndarray:
        """Latents in each unit, (n_units,)."""
        return np.bincount(self.codes)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of `values` (n,) over each unit, (n_units,)."""
        return np.bincount(self.codes, weights=values)

    def means(self, values: np.ndarray) -> np.ndarray:
        """Return the mean of `values` (n,) over each unit, (n_units,)."""
        return self.sums(values) / self.sizes


def units_within(n: int, strata: ArrayLike | None = None, clusters: ArrayLike | None = None) -> Units:
    """Return the units of `n` latents that exchange labels.

    Parameters
    ----------
    strata : (n,) int, optional
        A unit belongs to the stratum of most of its latents.
    clusters : (n,) int, optional
        Latents of one cluster are a unit. Default: each latent alone.

    Notes
    -----
    Units of 1, 2 to 3, 4 to 7, ... latents exchange labels among themselves, because the sum over a larger unit varies
    more; a size with fewer than `MIN_CELL` units joins the next smaller. Single latents do so within strata. Larger
    units are fewer: they do so within strata only if every stratum with any of a size has at least `MIN_CELL`.
    """
    stratum, codes = as_groups("strata", strata, n), as_groups("clusters", clusters, n)
    if n == 0:
        return Units(codes, Exchange(codes, ()))
    sizes = np.bincount(codes)
    share = np.zeros((len(sizes), int(stratum.max()) + 1), dtype=np.int64)
    np.add.at(share, (codes, stratum), 1)
    main, scale = share.argmax(axis=1), np.floor(np.log2(sizes)).astype(np.int64)
    for size in range(int(scale.max()), 0, -1):
        if 0 < np.count_nonzero(scale == size) < MIN_CELL and (scale < size).any():
            scale[scale == size] = scale[scale < size].max()
    cell = scale * (int(main.max()) + 1) + main
    rare = (np.bincount(cell)[cell] < MIN_CELL) & (scale > 0)
    # Where a stratum has too few large units, all large units of that size exchange across strata.
    crossing = (scale > 0) & np.isin(scale, scale[rare])
    cell[crossing] = int(cell.max()) + 1 + scale[crossing]
    return Units(codes, exchange_within(len(sizes), np.unique(cell, return_inverse=True)[1]))


def joined(*groups: ArrayLike) -> np.ndarray:
    """Return (n,) int64 codes of latents that are linked by sharing a code in any of `groups`, each (n,) int."""
    n = len(np.asarray(groups[0]))
    links, offset = [], n
    for index, group in enumerate(groups):
        codes = as_groups(f"group {index}", group, n)
        links.append((np.arange(n), codes + offset))
        offset += int(codes.max()) + 1
    rows, columns = np.concatenate([row for row, _ in links]), np.concatenate([column for _, column in links])
    graph = coo_array((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(offset, offset))
    label = connected_components(graph, directed=False)[1][:n]
    return as_groups("units", label, n)


def is_enumerable(exchange: Exchange, labels: np.ndarray, n_resamples: int) -> bool:
    """Tell whether the distinct exchanges of `labels` (n,) are at most `n_resamples` and fit in bounded memory."""
    n_distinct = exchange.n_distinct(labels, n_resamples)
    widest = max((cell.n_blocks for cell in exchange.movable(labels)), default=0)
    return n_distinct <= n_resamples and n_distinct * widest <= MAX_TABLE_BYTES


def all_exchanges(exchange: Exchange, labels: np.ndarray, *, max_bytes: int = BATCH_BYTES) -> Iterator[np.ndarray]:
    """Yield every distinct exchange of `labels` (n,) once, the observed one among them, in batches (m, n)."""
    cells = exchange.movable(labels)
    tables = [_arrangements(cell, labels) for cell in cells]
    shape = tuple(len(arranged) for arranged, _ in tables)
    total, size = int(np.prod(shape, dtype=object)), max(1, max_bytes // (8 * labels.nbytes))
    for start in range(0, total, size):
        picks = np.unravel_index(np.arange(start, min(start + size, total)), shape) if shape else ()
        batch = np.empty((min(size, total - start), len(labels)), dtype=labels.dtype)
        batch[:] = labels
        for cell, (arranged, patterns), pick in zip(cells, tables, picks, strict=True):
            batch[:, cell.start : cell.stop] = patterns[arranged[pick]].reshape(len(batch), -1)
        yield batch


def _arrangements(cell: Cell, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a cell's arrangements (n_arrangements, n_blocks) of its patterns, and those (n_patterns, size)."""
    patterns, counts = np.unique(cell.blocks(labels), axis=0, return_counts=True)
    # The commonest pattern fills what the others leave, so that only the rare ones are placed.
    rank = np.argsort(-counts, kind="stable")
    patterns, counts = patterns[rank], counts[rank]
    arranged = np.zeros((1, cell.n_blocks), dtype=np.uint8)
    for code in range(1, len(patterns)):
        rows = []
        for row in arranged:
            free = np.flatnonzero(row == 0)
            for places in combinations(free, int(counts[code])):
                new = row.copy()
                new[list(places)] = code
                rows.append(new)
        arranged = np.array(rows)
    return arranged, patterns


def _draw_yes_no(drawn: np.ndarray, labels: np.ndarray, cells: list[Cell], rng: np.random.Generator) -> None:
    """Exchange the bool labels of single-latent `cells`, in place."""
    if not cells:
        return
    sizes = np.array([cell.n_blocks for cell in cells])
    chosen = np.array([np.count_nonzero(cell.blocks(labels)) for cell in cells])
    mask = draw_subsets(sizes, chosen, len(drawn), rng)
    if mask.shape[1] == drawn.shape[1]:
        drawn[:] = mask
    else:
        drawn[:, np.concatenate([np.arange(cell.start, cell.stop) for cell in cells])] = mask


def draw_subsets(sizes: np.ndarray, chosen: np.ndarray, n_draws: int, rng: np.random.Generator) -> np.ndarray:
    """Draw from each cell a uniform random subset, `n_draws` times.

    Parameters
    ----------
    sizes : (n_cells,) int64
        Elements in each cell, at least 1; cells lie side by side.
    chosen : (n_cells,) int64
        How many to choose from each, 0 to its size.
    n_draws : int
        Number of draws.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    (n_draws, sizes.sum()) bool
        True at the chosen elements.

    Notes
    -----
    A shuffle of n labels costs n random bounded integers. Here each element is first taken independently with a chance
    a little below its cell's share (one random byte per element, compared in bulk), then the few that are missing are
    added by rejection. Both steps treat all elements of a cell alike, so given its final size each subset of a cell is
    equally likely: the draw is exact, whatever the chance in the first step. It is about ten times faster than
    `Generator.permuted`.
    """
    inverted = 2 * chosen > sizes
    target = np.where(inverted, sizes - chosen, chosen)
    share = target / sizes
    low = share - _UNDERSHOOT * np.sqrt(share * (1 - share) / sizes)
    threshold = np.repeat(np.clip(256 * low, 0, 255).astype(np.uint8), sizes)
    n = len(threshold)
    words = rng.integers(0, 2**64 - 1, size=-(-n_draws * n // 8), dtype=np.uint64, endpoint=True)
    mask = words.view(np.uint8)[: n_draws * n].reshape(n_draws, n) < threshold
    starts = np.cumsum(sizes) - sizes
    # The narrowest type that holds a cell's count: adding bytes into it is many times faster than into int64.
    narrow = np.uint16 if sizes.max() < 2**16 else np.uint32
    missing = target - np.add.reduceat(mask.view(np.uint8), starts, axis=1, dtype=narrow).astype(np.int64)
    for row, cell in zip(*np.nonzero(missing < 0), strict=True):
        mask[row, starts[cell] : starts[cell] + sizes[cell]] = False
        missing[row, cell] = target[cell]
    _add_missing(mask, missing, starts, sizes, rng)
    if inverted.any():
        mask ^= np.repeat(inverted, sizes)
    return mask


def _add_missing(
    mask: np.ndarray, missing: np.ndarray, starts: np.ndarray, sizes: np.ndarray, rng: np.random.Generator
) -> None:
    """Add `missing` (n_draws, n_cells) uniformly chosen unmarked elements to each cell of `mask`, in place."""
    marked, wanted = mask.reshape(-1), missing.reshape(-1)
    first = (np.arange(len(mask))[:, None] * mask.shape[1] + starts).reshape(-1)
    width = np.tile(sizes, len(mask))
    claim = np.empty(marked.size, dtype=np.int32)
    pending = np.flatnonzero(wanted)
    while pending.size:
        times = wanted[pending]
        pair = np.repeat(pending, times)
        element = (rng.random(pair.size) * np.repeat(width[pending], times)).astype(np.int64)
        element += np.repeat(first[pending], times)
        # A proposal for a marked element, or for one proposed twice in this round, is thrown away and made again.
        ids = np.arange(pair.size, dtype=np.int32)
        claim[element] = ids
        taken = ~marked[element] & (claim[element] == ids)
        marked[element[taken]] = True
        wanted -= np.bincount(pair[taken], minlength=wanted.size)
        pending = pending[wanted[pending] > 0]
