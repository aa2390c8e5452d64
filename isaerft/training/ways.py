"""The ways in which an adapter comes about: trained on latents, trained outside them, fitted, or given.

A kind of adapter says which is its own (`made` on the registered class), so nothing here knows a kind by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from isaerft import config
from isaerft.adapters.base import adapted, make_adapter, save_adapter
from isaerft.adapters.outside import save_outside
from isaerft.adapters.sparsity import Dense, not_sparse, sparsity
from isaerft.changes.load import loaded
from isaerft.changes.pullback import PulledBack
from isaerft.errors import InputError
from isaerft.registry import ADAPTERS
from isaerft.subjects.cache import CachedRows
from isaerft.subjects.load import LoadedSubject
from isaerft.training.fitted import fit, scores
from isaerft.training.loop import Training, heldout_loss, train
from isaerft.training.objective import Adapt, Rows, completions
from isaerft.training.row_space import trainable

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
    way = getattr(ADAPTERS[job.kind], "made", "latents")
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
