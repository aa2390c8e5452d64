"""Baselines without training: fitting a direction to cached activations, and how far to steer along it.

The ways in which an adapter comes about: trained on latents, trained outside them, fitted, or given.

A kind of adapter says which is its own (`made` on the registered class), so nothing here knows a kind by its name.

Making every seed of one (subject, behavior, adapter) in one process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from isaerft import config
from isaerft.adapters.base import SEED, adapted, make_adapter, save_adapter, save_outside
from isaerft.adapters.baselines import Steering, Texts, completion_means
from isaerft.adapters.sparsity import Dense, not_sparse, sparsity
from isaerft.changes.load import loaded
from isaerft.changes.pullback import PulledBack
from isaerft.errors import InputError
from isaerft.io import write_json
from isaerft.registry import ADAPTERS
from isaerft.subjects.cache import Batch, CachedRows, read_cache
from isaerft.subjects.load import LoadedSubject
from isaerft.training.loop import Training, frozen_part, heldout_loss, subsample, train
from isaerft.training.objectives import Adapt, Rows, completions, read_pairs
from isaerft.training.processes import writing
from isaerft.training.row_space import trainable

STRENGTHS = tuple(2.0**power for power in range(-7, 2))
SEARCH_ROWS = 128


def fit(
    subject: LoadedSubject,
    adapter: Steering,
    train: CachedRows,
    contrast: Sequence[CachedRows],
    options: config.Adapter,
    *,
    seed: int,
    batch_size: int,
) -> float:
    """Fit direction and length of a steering adapter, in place, on training rows alone.

    Each group of contrast rows is subsampled as the behavior's own rows are. The length is the one among `STRENGTHS`
    (norm of what is added, as a share of the residual stream's mean norm) with the lowest loss on the first
    `SEARCH_ROWS` of the rows that the replicate sees; 0 is not among them, for a direction that only hurts has effects
    to show too.

    Returns
    -------
    float
        The strength that was chosen; 0 where the direction reaches nothing.
    """
    own = subsample(len(train), options, torch.Generator().manual_seed(seed))
    others = [subsample(len(rows), options, torch.Generator().manual_seed(seed)) for rows in contrast]
    groups = [completion_means(rows, kept) for rows, kept in zip(contrast, others, strict=True)]
    adapter.fit(Texts.of(completion_means(train, own), groups))
    pushed = float((adapter.direction @ subject.dictionary.W_dec).norm())
    if pushed == 0:
        return 0.0
    rows = _Some(train, own[:SEARCH_ROWS])
    norm = rows.mean_norm(batch_size)
    losses = []
    for strength in STRENGTHS:
        adapter.length.fill_(strength * norm / pushed)
        losses.append(
            heldout_loss(subject, lambda batch: adapted(subject.dictionary, adapter, batch), rows, batch_size)
        )
    best = STRENGTHS[int(np.argmin(losses))]
    adapter.length.fill_(best * norm / pushed)
    return best


def scores(adapter: Steering, heldout: CachedRows, contrast: Sequence[CachedRows]) -> dict[str, float]:
    """Return how well the direction tells held-out completions apart.

    Returns
    -------
    dict
        heldout_auroc, and heldout_accuracy at the threshold fitted on the training rows; both kinds weigh half.
    """
    from sklearn.metrics import accuracy_score, roc_auc_score

    groups = [completion_means(rows, torch.arange(len(rows))) for rows in (heldout, *contrast)]
    texts = Texts.of(groups[0], groups[1:])
    score = texts.activations @ adapter.direction.double().cpu().numpy()
    return {
        "heldout_auroc": float(roc_auc_score(texts.is_behavior, score, sample_weight=texts.weight)),
        "heldout_accuracy": float(
            accuracy_score(texts.is_behavior, score > float(adapter.threshold), sample_weight=texts.weight)
        ),
    }


@dataclass(frozen=True)
class _Some:
    """Some rows of a cache, as far as a loss needs them."""

    rows: CachedRows
    kept: torch.Tensor

    def batches(self, n: int) -> Iterator[Batch]:
        """Yield the rows, `n` at a time."""
        for part in self.kept.split(n):
            yield self.rows.batch(part)

    def mean_norm(self, n: int) -> float:
        """Return the mean norm of the residual stream where a completion's token is predicted."""
        norms = [batch.residual[batch.predicts].float().norm(dim=1) for batch in self.batches(n)]
        return float(torch.cat(norms).mean())


NOT_TRAINED = "none"


@dataclass(frozen=True)
class Job:
    """One replicate of an adapter to be made.

    Attributes
    ----------
    kind : str
        Registered adapter.
    contrast : sequence of (CachedRows, CachedRows)
        Training and held-out rows of each group of other text, for an adapter that is fitted against them.
    seed : int
        Start of the replicate's random streams.
    out : Path
        Folder for what is made.
    """

    subject: LoadedSubject
    kind: str
    options: config.Adapter
    train: Rows
    heldout: Rows
    contrast: Sequence[tuple[CachedRows, CachedRows]]
    seed: int
    batch_size: int
    out: Path
    description: str

    def training(self, module: nn.Module, adapt: Adapt, sparsity: Dense | None = None) -> Training:
        """Train a module on the job's rows."""
        settings = {"seed": self.seed, "batch_size": self.batch_size, "description": self.description}
        settings |= {"sparsity": sparsity}
        return train(self.subject, module, adapt, self.train, self.heldout, self.options, **settings)

    def loss(self, subject: LoadedSubject, adapt: Adapt) -> float:
        """Return the held-out loss under a change of the residual stream, in nats per token."""
        return heldout_loss(subject, adapt, completions(self.heldout), self.batch_size)


@dataclass(frozen=True)
class Made:
    """What came of a job.

    Attributes
    ----------
    objective : str
        What was trained on, `none` without training.
    n_parameters : int
        Numbers that were trained or fitted, or that differ from the base model's.
    diagnostics : dict of str to float or None
        How far the adapter can be read in the SAE's basis, for diagnostics.csv.
    """

    training: Training
    objective: str
    n_parameters: int
    diagnostics: dict[str, float | None]


def make(job: Job) -> Made:
    """Make an adapter in the way of its kind and write it under `job.out`."""
    way = ADAPTERS.facts(job.kind).made
    if way != "latents" and job.options.sparsity is not None:
        raise not_sparse(job.kind)
    return WAYS[way](job)


def _on_latents(job: Job) -> Made:
    adapter = make_adapter(job.kind, job.subject.dictionary.d_sae, dict(job.options.options), job.seed)
    adapter.to(job.subject.model.device)
    sparse = sparsity(adapter, job.options.sparsity, job.options.steps, job.seed)
    with trainable(adapter, job.subject.dictionary, job.options, sparse) as (module, adapt):
        training = job.training(module, adapt, sparse)
    save_adapter(adapter, job.out)
    return Made(training, job.options.objective, _n_trainable(adapter), {})


def _outside(job: Job) -> Made:
    with ADAPTERS[job.kind].on(job.subject, dict(job.options.options), job.seed) as adapter:
        training = job.training(adapter, lambda batch: adapter.adapted(job.subject, batch))
        save_outside(adapter, job.out)
        n_parameters = _n_trainable(adapter)
    return Made(training, job.options.objective, n_parameters, _pulled_back(job))


def _fitted(job: Job) -> Made:
    if not job.contrast:
        raise InputError(f"adapter {job.kind!r} without other text to contrast with", remedy="add a second behavior")
    subject, adapter = job.subject, make_adapter(job.kind, job.subject.dictionary.d_sae, dict(job.options.options))
    adapter.to(subject.model.device)
    settings = {"seed": job.seed, "batch_size": job.batch_size}
    strength = fit(
        subject, adapter, completions(job.train), [rows for rows, _ in job.contrast], job.options, **settings
    )
    save_adapter(adapter, job.out)
    before = job.loss(subject, lambda batch: batch.residual)
    after = job.loss(subject, lambda batch: adapted(subject.dictionary, adapter, batch))
    found = scores(adapter, completions(job.heldout), [rows for _, rows in job.contrast])
    return Made(_untrained(before, after), NOT_TRAINED, adapter.d_sae, found | {"steering_strength": strength})


def _given(job: Job) -> Made:
    subject = job.subject
    with ADAPTERS[job.kind].on(subject, dict(job.options.options), job.seed) as adapter:
        save_outside(adapter, job.out)
        before = job.loss(subject, lambda batch: batch.residual)
        after = job.loss(adapter.subject_of(subject), lambda batch: adapter.adapted(subject, batch))
        n_parameters = adapter.n_changed(subject.model)
    return Made(_untrained(before, after), NOT_TRAINED, n_parameters, _pulled_back(job))


def _saved(job: Job) -> Made:
    subject = job.subject
    adapter = ADAPTERS[job.kind].open(dict(job.options.options), subject.dictionary).to(subject.model.device)
    save_adapter(adapter, job.out)
    before = job.loss(subject, lambda batch: batch.residual)
    after = job.loss(subject, lambda batch: adapted(subject.dictionary, adapter, batch))
    return Made(_untrained(before, after), NOT_TRAINED, _n_trainable(adapter), {})


WAYS: dict[str, Callable[[Job], Made]] = {
    "latents": _on_latents,
    "outside": _outside,
    "fitted": _fitted,
    "given": _given,
    "saved": _saved,
}


def _pulled_back(job: Job) -> dict[str, float | None]:
    """Return what of an adapter's effect passes through the hook, and what of that the dictionary can say."""
    with loaded(job.out, job.subject, completions(job.heldout), job.batch_size) as trained:
        if not isinstance(trained, PulledBack):
            return {}
        decoder = job.subject.dictionary.W_dec
        return {
            "explained_share": trained.explained_share(),
            "heldout_loss_displaced": job.loss(job.subject, lambda batch: batch.residual + trained.displacement(batch)),
            "heldout_loss_pulled_back": job.loss(
                job.subject,
                lambda batch: batch.residual + trained.shift(batch).residual(decoder).to(batch.residual.dtype),
            ),
        }


def _untrained(before: float, after: float) -> Training:
    return Training(
        steps=0,
        tokens=0,
        heldout_loss_base=before,
        heldout_loss_adapted=after,
        heldout_objective_base=before,
        heldout_objective_adapted=after,
        best_step=0,
    )


def _n_trainable(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


RESULTS = "training.json"


def run_adapter(
    plan: config.Plan,
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
    options = plan.study.adapters[adapter]
    with frozen_part(subject, lambda batch: batch.residual, options):
        rows = _read_rows(subject, options, cache, plan.study.batch_size)
    others = _contrast_rows(plan, behavior, adapter, cache, contrast)
    kind = options.kind or adapter
    results = []
    with writing(out) as temporary:
        temporary.mkdir()
        for seed in _replicates(plan, kind, options.options, permuted):
            started = time.perf_counter()
            job = Job(
                subject=subject.with_random_dictionary(plan.replicate_seed(seed)) if permuted else subject,
                kind=kind,
                options=replace(options, options=_filled_in(options.options, behavior=behavior, seed=seed)),
                train=rows[0],
                heldout=rows[1],
                contrast=others,
                seed=plan.replicate_seed(seed),
                batch_size=plan.study.batch_size,
                out=temporary / f"{SEED}{seed}",
                description=f"{behavior} {adapter} seed {seed}",
            )
            made = make(job)
            result = {"seed": seed, "n_parameters": made.n_parameters, "objective": made.objective}
            results.append(result | vars(made.training) | {"diagnostics": made.diagnostics})
            if plan.study.record_seconds:
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
    plan: config.Plan, behavior: str, adapter: str, cache: str | Path, folder: str | Path | None
) -> list[tuple[CachedRows, CachedRows]]:
    """Return training and held-out rows of each group of text that an adapter is fitted against; most have none."""
    is_contrasted = ADAPTERS.facts(plan.study.adapters[adapter].kind or adapter).contrasted
    if is_contrasted and plan.behavior_of(behavior).contrast == config.REJECTED:
        return [(read_cache(cache, "train_rejected"), read_cache(cache, "heldout_rejected"))]
    names = plan.contrast_behaviors(behavior, adapter)
    if names and folder is None:
        raise InputError(
            f"adapter {adapter!r} needs the cached activations of {', '.join(names)}",
            remedy="say with --contrast where they are",
        )
    caches = [Path(folder) / f"{name}.safetensors" for name in names]
    return [(read_cache(path, "train"), read_cache(path, "heldout")) for path in caches]


def _replicates(plan: config.Plan, kind: str, options: dict[str, object], permuted: bool) -> range:
    """Return the seeds to make; what is given is there once, unless its path names a seed or the dictionary varies."""
    is_given = ADAPTERS.facts(kind).made in ("given", "saved")
    varies = permuted or any("{seed}" in str(value) for value in options.values())
    return range(plan.study.n_seeds if varies or not is_given else 1)


def _filled_in(options: dict[str, Any], **names: object) -> dict[str, Any]:
    """Return the options with {behavior} and {seed} in their texts filled in."""
    texts = {name: value for name, value in options.items() if isinstance(value, str)}
    for placeholder, value in names.items():
        texts = {name: text.replace(f"{{{placeholder}}}", str(value)) for name, text in texts.items()}
    return options | texts
