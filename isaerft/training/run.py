"""Making every seed of one (subject, behavior, adapter) in one process."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from isaerft import config
from isaerft.adapters.base import SEED
from isaerft.errors import InputError
from isaerft.files import write_json
from isaerft.registry import ADAPTERS, CONTRASTED
from isaerft.subjects.cache import CachedRows, read_cache
from isaerft.subjects.load import LoadedSubject
from isaerft.training.frozen import frozen_part
from isaerft.training.objective import Rows
from isaerft.training.pairs import read_pairs
from isaerft.training.processes import writing
from isaerft.training.ways import Job, make

RESULTS = "training.json"


def run_adapter(
    study: config.Study,
    subject: LoadedSubject,
    adapter: str,
    cache: str | Path,
    out: str | Path,
    *,
    behavior: str,
    permuted: bool,
    contrast: str | Path | None = None,
) -> None:
    """Make all seeds of an adapter and write seed_0/, seed_1/, ... and training.json under `out`, atomically.

    Parameters
    ----------
    adapter, behavior : str
        Names in the study.
    permuted : bool
        Each seed works on its own random dictionary in place of the subject's.
    contrast : path, optional
        Folder with {behavior}.safetensors for the behaviors that an adapter is fitted against.
    """
    options = study.adapters[adapter]
    with frozen_part(subject, lambda batch: batch.residual, options):
        rows = _read_rows(subject, options, cache, study.batch_size)
    others = _contrast_rows(study, behavior, adapter, cache, contrast)
    kind = options.kind or adapter
    results = []
    with writing(out) as temporary:
        temporary.mkdir()
        for seed in _replicates(study, kind, options.options, permuted):
            started = time.perf_counter()
            job = Job(
                subject=subject.with_random_dictionary(study.replicate_seed(seed)) if permuted else subject,
                kind=kind,
                options=replace(options, options=_filled_in(options.options, behavior=behavior, seed=seed)),
                train=rows[0],
                heldout=rows[1],
                contrast=others,
                seed=study.replicate_seed(seed),
                batch_size=study.batch_size,
                out=temporary / f"{SEED}{seed}",
                description=f"{behavior} {adapter} seed {seed}",
            )
            made = make(job)
            result = {"seed": seed, "n_parameters": made.n_parameters, "objective": made.objective}
            results.append(result | vars(made.training) | {"diagnostics": made.diagnostics})
            if study.record_seconds:
                results[-1]["seconds"] = time.perf_counter() - started
        write_json(temporary / RESULTS, results)


def _read_rows(
    subject: LoadedSubject, options: config.Adapter, cache: str | Path, batch_size: int
) -> tuple[Rows, Rows]:
    """Read the training and held-out rows, as pairs where the objective compares replies."""
    if options.trained_on == "pair":
        return read_pairs(subject, cache, "train", batch_size), read_pairs(subject, cache, "heldout", batch_size)
    return read_cache(cache, "train"), read_cache(cache, "heldout")


def _contrast_rows(
    study: config.Study, behavior: str, adapter: str, cache: str | Path, folder: str | Path | None
) -> list[tuple[CachedRows, CachedRows]]:
    """Return training and held-out rows of each group of text that an adapter is fitted against; most have none."""
    is_contrasted = (study.adapters[adapter].kind or adapter) in CONTRASTED
    if is_contrasted and study.behavior_of(behavior).contrast == config.REJECTED:
        return [(read_cache(cache, "train_rejected"), read_cache(cache, "heldout_rejected"))]
    names = study.contrast_behaviors(behavior, adapter)
    if names and folder is None:
        raise InputError(
            f"adapter {adapter!r} needs the cached activations of {', '.join(names)}",
            remedy="say with --contrast where they are",
        )
    caches = [Path(folder) / f"{name}.safetensors" for name in names]
    return [(read_cache(path, "train"), read_cache(path, "heldout")) for path in caches]


def _replicates(study: config.Study, kind: str, options: dict[str, object], permuted: bool) -> range:
    """Return the seeds to make; what is given is there once, unless its path names a seed or the dictionary varies."""
    is_given = getattr(ADAPTERS[kind], "made", "") in ("given", "saved")
    varies = permuted or any("{seed}" in str(value) for value in options.values())
    return range(study.n_seeds if varies or not is_given else 1)


def _filled_in(options: dict[str, Any], **names: object) -> dict[str, Any]:
    """Return the options with {behavior} and {seed} in their texts filled in."""
    texts = {name: value for name, value in options.items() if isinstance(value, str)}
    for placeholder, value in names.items():
        texts = {name: text.replace(f"{{{placeholder}}}", str(value)) for name, text in texts.items()}
    return options | texts
