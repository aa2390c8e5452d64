"""The scorers `lexical` and `embedding`: an explanation fits an item if the two texts are similar."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from isaerft.config import Scorer
from isaerft.judges.embedding import embed
from isaerft.judges.lexical import similarity_of_pairs
from isaerft.scorers.tasks import Task


def lexical(tasks: Sequence[Task], scorer: Scorer) -> list[np.ndarray]:
    """Score by shared words; see `isaerft.scorers.base.ScorerFunction`.

    The similarity is that of `isaerft.judges.lexical`, but function words count: a latent may fire on just these.
    """
    return _fits(tasks, similarity_of_pairs)


def embedding(tasks: Sequence[Task], scorer: Scorer) -> list[np.ndarray]:
    """Score by the cosine of sentence embeddings; see `isaerft.scorers.base.ScorerFunction`."""

    def cosine_of_pairs(texts: list[str], first: np.ndarray, second: np.ndarray) -> np.ndarray:
        vectors = embed(texts, scorer.model)
        return np.einsum("nd,nd->n", vectors[first], vectors[second])

    return _fits(tasks, cosine_of_pairs)


def _fits(
    tasks: Sequence[Task], similarity: Callable[[list[str], np.ndarray, np.ndarray], np.ndarray]
) -> list[np.ndarray]:
    """Return the similarity of each task's explanation with the focus of each of its items, (n_items,) per task.

    Parameters
    ----------
    similarity : callable
        `similarity(texts, first, second)` takes sorted distinct texts and the indices of pairs, (n_pairs,) int64,
        and returns (n_pairs,) float.
    """
    texts = sorted({task.explanation for task in tasks} | {item.focus for task in tasks for item in task.items})
    place = {text: number for number, text in enumerate(texts)}
    first = np.array([place[task.explanation] for task in tasks for _ in task.items], dtype=np.int64)
    second = np.array([place[item.focus] for task in tasks for item in task.items], dtype=np.int64)
    ends = np.cumsum([len(task.items) for task in tasks])
    return np.split(similarity(texts, first, second), ends[:-1])
