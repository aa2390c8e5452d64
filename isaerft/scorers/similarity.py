"""Scorers that compare two texts at a time, and two of them: an explanation fits an item if the texts are similar."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from isaerft.config import Scorer
from isaerft.judges.embedding import embed
from isaerft.judges.lexical import BLOCK, similarity_of_pairs
from isaerft.scorers.tasks import Task
from isaerft.scorers.windows import Windows

FitOfPairs = Callable[[list[str], np.ndarray, np.ndarray], np.ndarray]
"""`fit(texts, first, second)` takes distinct texts and the indices of pairs, (n_pairs,) int64 each, and returns how
well the first of each pair, read as an explanation, fits the second, (n_pairs,) float."""


def lexical(tasks: Sequence[Task], scorer: Scorer) -> list[np.ndarray]:
    """Score by shared words; see `isaerft.scorers.base.ScorerFunction`.

    The similarity is that of `isaerft.judges.lexical`, but function words count: a latent may fire on just these.
    """
    return fits_of(tasks, similarity_of_pairs)


class Embedding:
    """The scorer that compares sentence embeddings."""

    def __call__(self, tasks: Sequence[Task], scorer: Scorer, *, windows: Windows | None = None) -> list[np.ndarray]:
        """Score by the cosine of sentence embeddings; see `isaerft.scorers.base.ScorerFunction`.

        `scorer.query` comes before each explanation: models that were trained to follow an instruction want one.
        """

        def cosine_of_pairs(texts: list[str], first: np.ndarray, second: np.ndarray) -> np.ndarray:
            asked, place = np.unique(first, return_inverse=True)
            queries = vectors_of([scorer.query + texts[index] for index in asked])
            read, at = np.unique(second, return_inverse=True)
            return _cosines(queries, place, vectors_of([texts[index] for index in read]), at)

        def vectors_of(texts: list[str]) -> np.ndarray:
            own = partial(self.embed, scorer=scorer)
            return own(texts) if windows is None else windows.vectors_of(texts, own)

        return fits_of(tasks, cosine_of_pairs)

    def embed(self, texts: Sequence[str], scorer: Scorer) -> np.ndarray:
        """Return the vectors of texts, (n_texts, d) float64; see `isaerft.scorers.base.EmbeddingScorer`."""
        return embed(list(texts), scorer.model)


embedding = Embedding()


def fits_of(tasks: Sequence[Task], fit: FitOfPairs) -> list[np.ndarray]:
    """Return how well each task's explanation fits the focus of each of its items, (n_items,) float per task.

    Where no explanation is read, every item of a group is read as the explanation of each other item of it, and an
    item's fit is the mean over the others.
    """
    pairs = [list(_pairs(task)) for task in tasks]
    texts = sorted({text for own in pairs for *both, _ in own for text in both})
    place = {text: number for number, text in enumerate(texts)}
    first = np.array([place[pair[0]] for own in pairs for pair in own], dtype=np.int64)
    second = np.array([place[pair[1]] for own in pairs for pair in own], dtype=np.int64)
    ends = np.cumsum([len(own) for own in pairs])
    result = []
    for task, own, found in zip(tasks, pairs, np.split(fit(texts, first, second), ends[:-1]), strict=True):
        items = [pair[2] for pair in own]
        total = np.bincount(items, weights=found, minlength=len(task.items))
        result.append(total / np.maximum(np.bincount(items, minlength=len(task.items)), 1))
    return result


def _pairs(task: Task) -> Iterator[tuple[str, str, int]]:
    """Yield an explanation, a text, and the item that it is the text of."""
    for place, item in enumerate(task.items):
        if task.question.answer == "odd":
            for other, one in enumerate(task.items):
                if other != place and one.group == item.group:
                    yield one.focus, item.focus, place
        else:
            yield task.explanation, item.focus, place


def _cosines(queries: np.ndarray, place: np.ndarray, vectors: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return the cosines of pairs of unit vectors, (n_pairs,), a block of pairs at a time."""
    parts = [
        np.einsum("nd,nd->n", queries[place[start : start + BLOCK]], vectors[at[start : start + BLOCK]])
        for start in range(0, len(place), BLOCK)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)
