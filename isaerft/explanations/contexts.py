"""Evidence about latents: tokens in context, from contexts.parquet or scored_contexts.parquet.

Columns: latent_index (int), side ("input", "output", "amplified", and those held out for scoring), rank (int, 0 is the
strongest), token, before, after (str) and value (float: the activation, the promotion, or the rise of the
log-probability in nats). Windows held out for scoring also have tokens (list of str) and activations (list of float,
one for each token).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from isaerft.errors import InputError
from isaerft.explanations.base import clean_text
from isaerft.io import read_parquet

COLUMNS = ("latent_index", "side", "rank", "token", "before", "after", "value")
BY_TOKEN = ("tokens", "activations")
MAX_TOKEN = 40
_BREAKS = {"\n": "line break", "\t": "tab", "Ċ": "line break", "ĉ": "tab", "<0x0A>": "line break", "<0x09>": "tab"}


class Context(NamedTuple):
    """A token, the text before and after it, its strength, and the whole token by token, where that is known."""

    token: str
    before: str
    after: str
    value: float = 0.0
    tokens: tuple[str, ...] = ()
    activations: tuple[float, ...] = ()


def read_contexts(path: Path) -> pd.DataFrame:
    """Read contexts.parquet and check its columns; rows by latent, side and rank."""
    contexts = read_parquet(
        path, missing=f"contexts {str(path)!r} do not exist", remedy="make the subject's facts first"
    )
    missing = [column for column in COLUMNS if column not in contexts]
    if missing:
        raise InputError(f"{path} lacks the columns {', '.join(missing)}", allowed=", ".join(COLUMNS))
    for column in ("token", "before", "after"):
        contexts[column] = contexts[column].map(lambda text: text if isinstance(text, str) else "")
    for column in BY_TOKEN:
        if column in contexts:
            parts = contexts[column].tolist()
            contexts[column] = [tuple(own) if isinstance(own, list | np.ndarray) else () for own in parts]
    return contexts.sort_values(["latent_index", "side", "rank"], kind="stable")


def grouped(contexts: pd.DataFrame) -> list[tuple[int, str, list[Context]]]:
    """Return (latent, side, contexts by rank) for contexts sorted by these."""
    groups: list[tuple[int, str, list[Context]]] = []
    shown = ("latent_index", "side", "token", "before", "after", "value")
    known = [name for name in (*shown, *BY_TOKEN) if name in contexts]
    columns = (contexts[name].tolist() for name in known)
    for latent, side, *context in zip(*columns, strict=True):
        if not groups or groups[-1][:2] != (latent, side):
            groups.append((latent, side, []))
        groups[-1][2].append(Context(*context))
    return groups


def clean_token(token: str) -> str:
    """Return a token as a reader would write it: without tokenizer marks, bounded, whitespace named."""
    bare = token.removeprefix("##")
    return _BREAKS.get(bare.strip(" Ġ▁")) or clean_text(without_marks(bare))[:MAX_TOKEN]


def without_marks(text: str) -> str:
    """Turn the marks by which tokenizers write whitespace back into it."""
    for mark, written in (("Ġ", " "), ("▁", " "), ("Ċ", "\n"), ("ĉ", "\t"), (" ##", ""), ("<0x0A>", "\n")):
        text = text.replace(mark, written)
    return text
