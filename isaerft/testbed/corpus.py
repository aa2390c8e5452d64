"""The reference corpus of the embedded subject: dialogues of its language."""

from __future__ import annotations

import numpy as np

from isaerft.subjects.corpus import TokenRows, texts_to_rows
from isaerft.subjects.load import LoadedModel
from isaerft.testbed.dialogues import sample
from isaerft.testbed.language import EOS

SHORTEST_DIALOGUE = 10


def corpus_rows(language: LoadedModel, *, n_tokens: int, context_size: int, seed: int) -> TokenRows:
    """Return dialogues of the language as token rows, one dialogue a row, until there are `n_tokens` tokens."""
    dialogues = sample(np.random.default_rng([seed, 1]), n_tokens // SHORTEST_DIALOGUE + 1)
    texts = (f"{item.prompt} {item.completion} {EOS}" for item in dialogues)
    return texts_to_rows(texts, language, n_tokens=n_tokens, context_size=context_size)
