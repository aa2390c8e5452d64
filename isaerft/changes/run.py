"""Scoring every trained adapter of one (subject, behavior) by every measure of the study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from isaerft import config
from isaerft.adapters.base import SEED
from isaerft.changes.load import loaded, seed_folders
from isaerft.changes.measures import write_changes
from isaerft.registry import MEASURES
from isaerft.subjects.cache import read_cache
from isaerft.subjects.load import LoadedSubject


def score_changes(
    plan: config.Plan,
    subject: LoadedSubject,
    cache: str | Path,
    adapters: str | Path,
    out: str | Path,
    *,
    names: Sequence[str],
    permuted: bool,
) -> None:
    """Score adapters under `adapters`/{adapter}/seed_{k} on the held-out rows and write the table `out`.

    Parameters
    ----------
    names : sequence of str
        The adapters.
    permuted : bool
        Seed k was trained on its own random dictionary.
    """
    heldout = read_cache(cache, "heldout")
    parts = []
    folders = [(name, folder) for name in names for folder in seed_folders(Path(adapters) / name)]
    for name, folder in tqdm(folders, desc="changes", disable=None):
        seed = int(folder.name.removeprefix(SEED))
        used = subject.with_random_dictionary(plan.replicate_seed(seed)) if permuted else subject
        with loaded(folder, used, heldout, plan.study.batch_size) as trained:
            for measure in plan.study.measures:
                change = MEASURES[measure](trained).double().cpu().numpy()
                columns = {"adapter": name, "measure": measure, "seed": seed, "latent_index": range(len(change))}
                parts.append(pd.DataFrame(columns | {"change": change}))
    write_changes(pd.concat(parts, ignore_index=True), out)
