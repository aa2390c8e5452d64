"""The embedded language as data: a reference corpus for the SAE, and rows for each behavior."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np

from isaerft.errors import unknown_name
from isaerft.files import write_text
from isaerft.subjects.corpus import TokenRows, texts_to_rows
from isaerft.subjects.load import LoadedModel
from isaerft.testbed.dialogues import behavior_rows, sample
from isaerft.testbed.language import EOS, STYLES

SHORTEST_DIALOGUE = 10


def corpus_rows(language: LoadedModel, *, n_tokens: int, context_size: int, seed: int) -> TokenRows:
    """Return dialogues of the language as token rows, one dialogue a row, until there are `n_tokens` tokens."""
    dialogues = sample(np.random.default_rng([seed, 1]), n_tokens // SHORTEST_DIALOGUE + 1)
    texts = (f"{item.prompt} {item.completion} {EOS}" for item in dialogues)
    return texts_to_rows(texts, language, n_tokens=n_tokens, context_size=context_size)


def write_behavior_rows(style_name: str, n_rows: int, seed: int, path: str | Path) -> None:
    """Write raw rows (id, prompt, chosen, rejected) of a style as JSONL, atomically.

    Raises
    ------
    InputError
        The language has no such style.
    """
    styles = {style.name: style for style in STYLES}
    if style_name not in styles:
        raise unknown_name("style of the embedded language", style_name, styles)
    rng = np.random.default_rng([seed, 2, zlib.crc32(style_name.encode())])
    rows = behavior_rows(rng, styles[style_name], n_rows)
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
