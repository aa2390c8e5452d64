"""Read the changes of the primary adapter under placebo trainings."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from isaerft.analysis.readings import by_latent
from isaerft.config import Plan
from isaerft.errors import InputError
from isaerft.io import parquet_parts
from isaerft.layout import Results


def read_placebos(
    plan: Plan, results: Results, subject: str, *, latents: np.ndarray | None = None
) -> Mapping[str, np.ndarray]:
    """Return measure -> changes of a subject's placebos, (n_placebos, n_seeds, d_sae) float; empty if it has none.

    With `latents` (m,) int64 the arrays are of these alone, (n_placebos, n_seeds, m).

    Raises
    ------
    InputError
        The file is missing, or a change is not finite.
    """
    if not plan.has_placebos(subject):
        return {}
    path = results.placebos(subject)
    if not path.is_file():
        raise InputError(f"{path} does not exist", remedy="run `isaerft placebos` first")
    found = {int(placebo) for part in parquet_parts(path, ["placebo"]) for placebo in part.placebo.unique()}
    result = by_latent(path, ["placebo", "seed"], latents)
    for measure, wide in result.items():
        if not np.isfinite(wide).all():
            raise InputError(f"{path}: {measure} holds changes that are not finite")
        result[measure] = wide.reshape(len(found), -1, wide.shape[1])
    return result
