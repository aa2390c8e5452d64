"""The embedding matcher: an explanation fits an item when a sentence embedding model finds the two alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isaerft.config import Scorer
from isaerft.registry import MATCHERS
from isaerft.relevance.embedding import embed
from isaerft.scoring.base import Task
from isaerft.scoring.pairs import fits_of_pairs


@MATCHERS("embedding")
def embedding(tasks: Sequence[Task], scorer: Scorer) -> list[np.ndarray]:
    """Match by the cosine of sentence embeddings; see `isaerft.scoring.base.Matcher`."""

    def cosine_of_pairs(texts: list[str], first: np.ndarray, second: np.ndarray) -> np.ndarray:
        vectors = embed(texts, scorer.model)
        return np.einsum("nd,nd->n", vectors[first], vectors[second])

    return fits_of_pairs(tasks, cosine_of_pairs)
