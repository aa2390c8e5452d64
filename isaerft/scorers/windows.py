"""What an embedding scorer makes of the windows that it reads, kept for the explanations of all sources."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from isaerft.io import read_parquet, replacing
from isaerft.scorers.tasks import Question, tasks_of


@dataclass(frozen=True)
class Windows:
    """Texts and their vectors.

    Attributes
    ----------
    place : mapping
        Text -> its row.
    vectors : (n_texts, d) float32
        As the scorer makes them.
    """

    place: Mapping[str, int]
    vectors: np.ndarray

    def vectors_of(self, texts: Sequence[str], embed: Callable[[Sequence[str]], np.ndarray]) -> np.ndarray:
        """Return the vectors of texts, (n_texts, d) float64; `embed` makes those that are not kept."""
        known = np.array([text in self.place for text in texts], dtype=bool)
        vectors = np.empty((len(texts), self.vectors.shape[1]))
        vectors[known] = self.vectors[[self.place[text] for text in texts if text in self.place]]
        if not known.all():
            vectors[~known] = embed([text for text in texts if text not in self.place])
        return vectors


def texts_of(contexts: pd.DataFrame, latents: np.ndarray, questions: Sequence[Question], seed: int) -> list[str]:
    """Return the texts that a scorer reads of these latents, sorted, whatever their explanations say.

    Parameters
    ----------
    contexts : DataFrame
        As `isaerft.scorers.tasks_of` takes them, and `questions` and `seed` too.
    latents : (n,) int
        Latents that may be explained.
    """
    unread = pd.DataFrame({"latent_index": latents, "explanation": "", "side": ""})
    return sorted({item.focus for task in tasks_of(contexts, unread, questions, seed) for item in task.items})


def write_windows(texts: Sequence[str], vectors: np.ndarray, path: str | Path) -> None:
    """Write texts and their vectors, (n_texts, d), as Parquet under `path`, atomically."""
    frame = pd.DataFrame({"text": list(texts), "vector": list(vectors.astype(np.float32))})
    with replacing(path) as temporary:
        frame.to_parquet(temporary, index=False)


def read_windows(path: str | Path) -> Windows:
    """Read what `write_windows` wrote."""
    frame = read_parquet(path, missing=f"windows {str(path)!r} do not exist", remedy="run the rule `embed_windows`")
    return Windows({text: row for row, text in enumerate(frame["text"])}, np.stack(frame["vector"].tolist()))
