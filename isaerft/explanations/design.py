"""Which latents a source is asked for: those that are alive, or a sample that was drawn and written down before.

A sample is a table with one row per latent, written before anything is fetched:

| column | what |
|---|---|
| latent_index | the latent |
| role | case (among the most changed) or control |
| stratum | of which latents alike it is one; explanations are exchanged within it |
| matched_to | the case that a control was drawn for; the latent itself for a case |
| drawn_for | behavior/adapter of which it (or its case) is among the most changed, with commas between |
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from isaerft.config import Study
from isaerft.errors import InputError
from isaerft.files import read_parquet, replacing

CASE, CONTROL = "case", "control"
_COLUMNS = {
    "latent_index": "int64",
    "role": "str",
    "stratum": "int64",
    "matched_to": "int64",
    "drawn_for": "str",
}


def latents_asked(facts: pd.DataFrame, min_firing_rate: float, sample: str | Path | None = None) -> np.ndarray:
    """Return the latents that a source is asked for, (n,) int64 ascending: a sample's, or all that are alive.

    Parameters
    ----------
    facts : DataFrame
        latent_index and firing_rate of the subject's latents.
    min_firing_rate : float
        Those that fire less often are dead.
    sample : path, optional
        The sample, as `write_sample` wrote it.
    """
    if sample is not None:
        return np.sort(read_sample(sample)["latent_index"].to_numpy())
    return np.sort(facts.loc[facts["firing_rate"] >= min_firing_rate, "latent_index"].to_numpy(np.int64))


def sample_path(study: Study, results: str | Path, subject: str, source: str) -> Path | None:
    """Return where the sample lies that a source is asked for; None where it is asked for all latents."""
    return Path(results) / "design" / f"{subject}.parquet" if study.design_of(source) == "case_control" else None


def write_sample(sample: pd.DataFrame, path: str | Path) -> None:
    """Check a sample and write it as Parquet under `path`, atomically."""
    checked = _checked(sample, "the sample")
    with replacing(path) as temporary:
        checked.to_parquet(temporary, index=False)


def read_sample(path: str | Path) -> pd.DataFrame:
    """Read a sample written by `write_sample` and check it again."""
    sample = read_parquet(
        path, missing=f"sample of latents {str(path)!r} does not exist", remedy="run the rule `design`"
    )
    return _checked(sample, str(path))


def _checked(sample: pd.DataFrame, place: str) -> pd.DataFrame:
    """Return the sample in its columns and types, by latent."""
    if set(sample.columns) != set(_COLUMNS):
        raise InputError(f"{place} has the columns {', '.join(map(str, sample.columns))}", allowed=", ".join(_COLUMNS))
    sample = sample[list(_COLUMNS)].astype(_COLUMNS).sort_values("latent_index", ignore_index=True)
    unknown = set(sample["role"]) - {CASE, CONTROL}
    if unknown:
        raise InputError(f"{place} has the roles {', '.join(sorted(unknown))}", allowed=f"{CASE}, {CONTROL}")
    if sample["latent_index"].duplicated().any() or (sample["latent_index"] < 0).any():
        raise InputError(f"{place} holds a latent twice, or one below 0", allowed="each latent once")
    return sample
