"""Tasks as pairs of texts, for matchers that go by how alike two texts are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from isaerft.scoring.base import Task


def fits_of_pairs(
    tasks: Sequence[Task], similarity: Callable[[list[str], np.ndarray, np.ndarray], np.ndarray]
) -> list[np.ndarray]:
    """Return the similarity of each task's explanation with what is in question in each of its items.

    Parameters
    ----------
    similarity : callable
        `similarity(texts, first, second)`: distinct texts in order, and pairs of them by index, (n_pairs,) int64 each,
        to (n_pairs,) float.
    """
    texts = sorted({task.explanation for task in tasks} | {item.focus for task in tasks for item in task.items})
    place = {text: number for number, text in enumerate(texts)}
    first = np.array([place[task.explanation] for task in tasks for _ in task.items], dtype=np.int64)
    second = np.array([place[item.focus] for task in tasks for item in task.items], dtype=np.int64)
    ends = np.cumsum([len(task.items) for task in tasks])
    return np.split(similarity(texts, first, second), ends[:-1])
