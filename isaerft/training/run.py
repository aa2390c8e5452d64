"""Training every seed of one (subject, behavior, adapter) in one process."""

from __future__ import annotations

import time
from pathlib import Path

from torch import nn

from isaerft import config
from isaerft.adapters.base import make_adapter, save_adapter
from isaerft.adapters.sparsity import not_sparse, sparsity
from isaerft.files import replacing, write_json
from isaerft.subjects.cache import read_cache
from isaerft.subjects.load import LoadedSubject
from isaerft.training.frozen import frozen_part
from isaerft.training.loop import Training, train
from isaerft.training.objective import Rows
from isaerft.training.pairs import read_pairs
from isaerft.training.row_space import trainable

RESULTS = "training.json"


def run_adapter(
    study: config.Study,
    subject: LoadedSubject,
    adapter_name: str,
    cache: str | Path,
    out: str | Path,
    *,
    permuted: bool,
    description: str,
) -> None:
    """Train all seeds and write seed_0/, seed_1/, ... and training.json under `out`, atomically.

    Parameters
    ----------
    permuted : bool
        Each seed works on its own random dictionary in place of the subject's.
    """
    options = study.adapters[adapter_name]
    with frozen_part(subject, lambda batch: batch.residual, options):
        rows = _read_rows(subject, options, cache, study.batch_size)
    results = []
    with replacing(out) as temporary:
        temporary.mkdir()
        for seed in range(study.n_seeds):
            started = time.perf_counter()
            used = subject.with_random_dictionary(study.replicate_seed(seed)) if permuted else subject
            trained, n_parameters = _train_one(
                study, used, options, adapter_name, rows, seed, temporary / f"seed_{seed}", f"{description} seed {seed}"
            )
            results.append({"seed": seed, "n_parameters": n_parameters, "objective": options.objective} | vars(trained))
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


def _train_one(
    study: config.Study,
    subject: LoadedSubject,
    options: config.Adapter,
    name: str,
    rows: tuple[Rows, Rows],
    seed: int,
    out: Path,
    description: str,
) -> tuple[Training, int]:
    settings = {"seed": study.replicate_seed(seed), "batch_size": study.batch_size, "description": description}
    if (options.kind or name) == "lora":
        if options.sparsity is not None:
            raise not_sparse(options.kind or name)
        from isaerft.training.lora import RANK, add_lora, remove_lora, save_lora

        rank = int(options.options.get("rank", RANK))
        block = add_lora(subject, rank=rank, seed=settings["seed"])
        try:
            trained = train(subject, block, lambda batch: batch.residual, *rows, options, **settings)
            save_lora(block, out, rank)
            return trained, _n_trainable(block)
        finally:
            remove_lora(block)
    adapter = make_adapter(options.kind or name, subject.dictionary.d_sae, dict(options.options), settings["seed"])
    adapter.to(subject.model.device)
    sparse = sparsity(adapter, options.sparsity, options.steps, settings["seed"])
    with trainable(adapter, subject.dictionary, options, sparse) as (module, adapt):
        trained = train(subject, module, adapt, *rows, options, sparsity=sparse, **settings)
    save_adapter(adapter, out)
    return trained, _n_trainable(adapter)


def _n_trainable(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
