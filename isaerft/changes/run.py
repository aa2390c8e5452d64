"""Scoring every trained adapter of one (subject, behavior) by every measure of the study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from isaerft import config
from isaerft.adapters.base import load_adapter
from isaerft.changes.base import Trained, write_changes
from isaerft.registry import MEASURES
from isaerft.subjects.cache import read_cache
from isaerft.subjects.load import LoadedSubject


def score_changes(
    study: config.Study,
    subject: LoadedSubject,
    cache: str | Path,
    adapters: str | Path,
    out: str | Path,
    *,
    names: Sequence[str],
    permuted: bool,
) -> None:
    """Score every latent adapter under `adapters`/{adapter}/seed_{k} on the held-out rows and write the table `out`.

    Parameters
    ----------
    names : sequence of str
        The adapters.
    permuted : bool
        Seed k was trained on its own random dictionary.
    """
    heldout = read_cache(cache, "heldout")
    parts = []
    for name, seed in tqdm([(n, s) for n in names for s in range(study.n_seeds)], desc="changes", disable=None):
        used = subject.with_random_dictionary(study.replicate_seed(seed)) if permuted else subject
        adapter = load_adapter(Path(adapters) / name / f"seed_{seed}", used.dictionary.d_sae)
        trained = Trained(used, adapter.to(used.model.device).requires_grad_(False), heldout, study.batch_size)
        for measure in study.measures:
            change = MEASURES[measure](trained).double().cpu().numpy()
            parts.append(
                pd.DataFrame(
                    {
                        "adapter": name,
                        "measure": measure,
                        "seed": seed,
                        "latent_index": range(len(change)),
                        "change": change,
                    }
                )
            )
    write_changes(pd.concat(parts, ignore_index=True), out)
