"""The embedded language as raw behavior data; needs no torch."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np

from isaerft.errors import unknown_name
from isaerft.files import write_text
from isaerft.testbed.dialogues import behavior_rows
from isaerft.testbed.language import STYLES


def write_behavior_rows(style_name: str, n_rows: int, seed: int, path: str | Path, *, draw: int = 0) -> None:
    """Write raw rows (id, prompt, chosen, rejected) of a style as JSONL, atomically; each `draw` gives other rows.

    Raises
    ------
    InputError
        The language has no such style.
    """
    styles = {style.name: style for style in STYLES}
    if style_name not in styles:
        raise unknown_name("style of the embedded language", style_name, styles)
    rng = np.random.default_rng([seed, 2, zlib.crc32(style_name.encode()), *([draw] if draw else [])])
    rows = behavior_rows(rng, styles[style_name], n_rows)
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
