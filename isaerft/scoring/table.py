"""The file of one scorer's scores of one source's explanations."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from isaerft.errors import InputError
from isaerft.files import read_parquet, replacing

COLUMNS = ("score", "latent_index", "n_items", "value", "floor")


def write_scores(frame: pd.DataFrame, path: str | Path) -> None:
    """Write scores as Parquet under `path`, atomically."""
    with replacing(path) as temporary:
        frame[list(COLUMNS)].to_parquet(temporary, index=False)


def read_scores(path: str | Path) -> pd.DataFrame:
    """Read scores written by `write_scores`."""
    frame = read_parquet(path, missing=f"scores {str(path)!r} do not exist", remedy="run the rule `score`")
    if set(frame.columns) != set(COLUMNS):
        raise InputError(f"{path} has the columns {', '.join(map(str, frame.columns))}", allowed=", ".join(COLUMNS))
    return frame
