"""Which latents a source explains: all live ones, or the case-control sample drawn before.

A sample is a table with one row per latent, written before anything is fetched or asked:

| column | meaning |
|---|---|
| latent_index | the latent |
| role | case (among the most changed) or control |
| stratum | group of similar latents; labels are exchanged within it |
| matched_to | the case that a control was drawn for; for a case, the latent itself |
| drawn_for | behavior/adapter for which it (or its case) is among the most changed, separated by commas |
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from isaerft.config import Plan
from isaerft.errors import InputError
from isaerft.io import read_parquet, replacing, typed
from isaerft.layout import Results

CASE_ROLE, CONTROL_ROLE = "case", "control"
_COLUMNS = {
    "latent_index": "int64",
    "role": "str",
    "stratum": "int64",
    "matched_to": "int64",
    "drawn_for": "str",
}


def latents_to_explain(facts: pd.DataFrame, min_firing_rate: float, sample: str | Path | None = None) -> np.ndarray:
    """Return the latents that a source explains, (n,) int64 ascending: those of a sample, or all live ones.

    Parameters
    ----------
    facts : DataFrame
        latent_index and firing_rate of the subject's latents.
    min_firing_rate : float
        Latents that fire less often are dead.
    sample : path, optional
        A sample written by `write_sample`.
    """
    if sample is not None:
        return np.sort(read_sample(sample)["latent_index"].to_numpy())
    return np.sort(facts.loc[facts["firing_rate"] >= min_firing_rate, "latent_index"].to_numpy(np.int64))


def sample_path(plan: Plan, results: str | Path, subject: str, source: str) -> Path | None:
    """Return the file of the sample that a source explains; None if it explains all live latents."""
    return Results(results).design(subject) if plan.design_of(source) == "case_control" else None


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


def _checked(sample: pd.DataFrame, where: str) -> pd.DataFrame:
    """Return the sample with its columns and dtypes, sorted by latent."""
    if set(sample.columns) != set(_COLUMNS):
        raise InputError(f"{where} has the columns {', '.join(map(str, sample.columns))}", allowed=", ".join(_COLUMNS))
    sample = typed(sample, _COLUMNS, where).sort_values("latent_index", ignore_index=True)
    unknown = set(sample["role"]) - {CASE_ROLE, CONTROL_ROLE}
    if unknown:
        raise InputError(
            f"{where} has the roles {', '.join(sorted(map(str, unknown)))}", allowed=f"{CASE_ROLE}, {CONTROL_ROLE}"
        )
    if sample["latent_index"].duplicated().any() or (sample["latent_index"] < 0).any():
        raise InputError(f"{where} has a repeated or negative latent", allowed="each latent once")
    return sample
