"""Enumerate every distinct exchange of a label set, where there are few: then the p-value is exact."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from isaerft.stats.exchange import BATCH_BYTES, Cell, Exchange

MAX_TABLE_BYTES = 2**27


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
