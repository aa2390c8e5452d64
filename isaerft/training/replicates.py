"""Train every replicate of one adapter on one behavior.

How an adapter is made is a fact of its registration (`made`): trained on latents, trained on the model, fitted
without training, or loaded from a checkpoint or a saved adapter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from isaerft import config
from isaerft.adapters.base import LatentAdapter, adapted, make_adapter, n_trainable
from isaerft.adapters.baselines import Steering
from isaerft.adapters.fitting import Selection
from isaerft.adapters.model import ModelAdapter
from isaerft.adapters.saved import save_adapter
from isaerft.adapters.sparsity import not_sparse, sparsity
from isaerft.behaviors.elicited import INSTRUCTED
from isaerft.behaviors.records import HELDOUT_REPHRASED, REJECTED
from isaerft.errors import InputError
from isaerft.io import write_json
from isaerft.layout import ADAPTER_SEED, CHECKPOINT_STEP, checkpoints_of
from isaerft.registry import ADAPTERS
from isaerft.subjects.cache import CachedRows, read_cache
from isaerft.subjects.erasure import Erasure
from isaerft.subjects.load import LoadedSubject
from isaerft.training.loop import (
    Trainee,
    Training,
    frozen_part,
    heldout_loss,
    subsample,
    train,
    train_together,
)
from isaerft.training.objectives import Adapt
from isaerft.training.pairs import Rows, completions, read_pairs
from isaerft.training.processes import replacing_once
from isaerft.training.row_space import RowSpace, trainable
from isaerft.training.steering import fit_steering, score_steering
from isaerft.training.tracking import Report, Tracked, unreported

RESULTS = "training.json"
NOT_TRAINED = "none"


def train_adapter(
    plan: config.Plan,
    subject: LoadedSubject,
    adapter: str,
    cache: str | Path,
    out: str | Path,
    *,
    behavior: str,
    permuted: bool,
    erasures: Sequence[Erasure] = (),
    contrast: str | Path | None = None,
    tracking: Tracked | None = None,
) -> None:
    """Train all seeds of an adapter and write seed_0/, seed_1/, ... and training.json under `out`, atomically.

    Parameters
    ----------
    adapter, behavior : str
        Names in the study.
    permuted : bool
        Whether each seed gets its own random dictionary in place of the subject's.
    erasures : sequence of Erasure
        What is erased from the residual stream for each seed; nothing when empty.
    contrast : path, optional
        Folder with {behavior}.safetensors for the behaviors that an adapter is fitted against.
    tracking : Tracked, optional
        Trackers that get the losses.

    Raises
    ------
    InputError
        The cache or the contrast lacks what the adapter needs, or training diverges.
    """
    options = plan.study.adapters[adapter]
    with frozen_part(subject, options):
        train_rows, heldout_rows = (
            read_pairs(subject, cache, split, plan.study.batch_size)
            if options.trained_on == "pair"
            else read_cache(cache, split)
            for split in ("train", "heldout")
        )
    facts = ADAPTERS.facts(plan.kind_of(adapter))
    others = contrast_rows(plan, behavior, cache, contrast) if facts.contrasted else []
    train_seeds(
        plan,
        subject,
        adapter,
        out,
        train=train_rows,
        heldout=heldout_rows,
        contrast=others,
        instructed=read_cache(cache, "train" + INSTRUCTED) if facts.instructed else None,
        rephrased=read_cache(cache, HELDOUT_REPHRASED) if facts.contrasted and plan.rephrases(behavior) else None,
        behavior=behavior,
        permuted=permuted,
        erasures=erasures,
        tracking=tracking,
    )


def train_seeds(
    plan: config.Plan,
    subject: LoadedSubject,
    adapter: str,
    out: str | Path,
    *,
    train: Rows,
    heldout: Rows,
    contrast: Sequence[Compared],
    behavior: str,
    permuted: bool,
    erasures: Sequence[Erasure] = (),
    instructed: CachedRows | None = None,
    rephrased: CachedRows | None = None,
    tracking: Tracked | None = None,
) -> None:
    """Do what `train_adapter` does with rows that are already read; they are those of a `Replicate`."""
    options = plan.study.adapters[adapter]
    kind = options.kind or adapter
    seeds = _seeds(plan, adapter, permuted)
    is_followed = adapter in plan.followed_adapters and behavior in plan.tested_behaviors and not permuted
    # Seeds that train together share their rows.
    n_together = options.seeds_together if ADAPTERS.facts(kind).made == "latents" and not erasures else 1
    results = []
    with replacing_once(out) as temporary:
        temporary.mkdir()
        for first in seeds[::n_together]:
            started = time.perf_counter()
            together = seeds[first : first + n_together]
            runs = {} if tracking is None else {seed: tracking.run(behavior, adapter, seed) for seed in together}
            replicates = [
                Replicate(
                    subject=subject.with_random_dictionary(plan.replicate_seed(seed)) if permuted else subject,
                    kind=kind,
                    options=replace(options, options=_filled_in(options.options, behavior=behavior, seed=seed)),
                    train=train,
                    heldout=heldout,
                    contrast=contrast,
                    instructed=instructed,
                    rephrased=rephrased,
                    seed=plan.replicate_seed(seed),
                    batch_size=plan.study.batch_size,
                    out=temporary / f"{ADAPTER_SEED}{seed}",
                    description=f"{behavior} {adapter} seed {seed}",
                    measures_train_loss=plan.study.train_loss,
                    checkpoints=checkpoints_of(temporary, seed) if is_followed else None,
                    report=runs[seed].report if runs else unreported,
                )
                for seed in together
            ]
            if erasures:
                replicates = [one.erased(erasures[seed]) for seed, one in zip(together, replicates, strict=True)]
            for seed, result in zip(together, train_replicates(replicates), strict=True):
                row = {"seed": seed, "n_parameters": result.n_parameters, "objective": result.objective}
                results.append(
                    row | vars(result.training) | dict(result.train_losses) | {"diagnostics": result.diagnostics}
                )
                if plan.study.record_seconds:
                    results[-1]["seconds"] = (time.perf_counter() - started) / len(together)
                if runs:
                    runs[seed].end(result.training.steps, vars(result.training) | dict(result.diagnostics))
        write_json(temporary / RESULTS, results)


class Compared(NamedTuple):
    """Rows of one group of text that a behavior's is compared with: to fit, held out, and under other prompts."""

    train: CachedRows
    heldout: CachedRows
    rephrased: CachedRows | None = None


@dataclass(frozen=True)
class Replicate:
    """One replicate of an adapter, before training.

    Attributes
    ----------
    kind : str
        Registered adapter.
    contrast : sequence of Compared
        Rows of each group of other text that a baseline is fitted against.
    instructed : CachedRows, optional
        The training rows with the instruction that elicited them in the prompt, for a baseline that reads them.
    rephrased : CachedRows, optional
        Held-out rows under prompts of another phrasing, to score a baseline's direction on, too.
    seed : int
        Seed of the replicate's random streams.
    out : Path
        Folder to write.
    measures_train_loss : bool
        Whether `train_losses` gives any.
    checkpoints : Path, optional
        Folder in which the adapter is saved at each of its `checkpoint_steps`, too.
    """

    subject: LoadedSubject
    kind: str
    options: config.Adapter
    train: Rows
    heldout: Rows
    contrast: Sequence[Compared]
    instructed: CachedRows | None
    rephrased: CachedRows | None
    seed: int
    batch_size: int
    out: Path
    description: str
    report: Report = unreported
    measures_train_loss: bool = False
    checkpoints: Path | None = None

    def erased(self, erasure: Erasure) -> Replicate:
        """Return the same where directions are erased from the residual stream; the rows are no pairs."""
        train, heldout = (erasure.on_rows(self.subject, completions(rows)) for rows in (self.train, self.heldout))
        return replace(self, subject=erasure.on_subject(self.subject), train=train, heldout=heldout)

    def save_at_checkpoints(
        self,
        adapter: LatentAdapter | ModelAdapter,
        up_to_date: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> Callable[[int], None]:
        """Return what saves the adapter after some of the steps; inside `up_to_date` its parameters are the latest."""
        folder, steps = self.checkpoints, set(self.options.checkpoint_steps)
        dictionary = self.subject.dictionary if isinstance(adapter, LatentAdapter) else None

        def save(step: int) -> None:
            if folder is not None and step in steps:
                with up_to_date():
                    save_adapter(adapter, folder / f"{CHECKPOINT_STEP}{step}", dictionary)

        return save

    def train_losses(self, adapt: Adapt, unadapted: AbstractContextManager[None] | None = None) -> dict[str, float]:
        """Return the loss on training rows before and after: as many, of those that it sees, as are held out.

        Inside `unadapted` the model is as it was before training.
        """
        if not self.measures_train_loss:
            return {}
        rows = completions(self.train)
        seen = subsample(len(rows), self.options, torch.Generator().manual_seed(self.seed))
        sample = Selection(rows, seen[: len(completions(self.heldout))])
        with frozen_part(self.subject, self.options) as precise:
            after = heldout_loss(self.subject, precise(adapt), sample, self.batch_size)
            with unadapted or nullcontext():
                before = heldout_loss(self.subject, precise(lambda batch: batch.residual), sample, self.batch_size)
        return {"train_loss_base": before, "train_loss_adapted": after}

    def evaluate(self, subject: LoadedSubject, adapt: Adapt) -> Training:
        """Return the held-out losses before and after an adapter that takes no training step."""
        rows = completions(self.heldout)
        before = heldout_loss(self.subject, lambda batch: batch.residual, rows, self.batch_size)
        after = heldout_loss(subject, adapt, rows, self.batch_size)
        return Training(0, 0, before, after, before, after, 0)


@dataclass(frozen=True)
class ReplicateResult:
    """One replicate's row of training.json.

    Attributes
    ----------
    objective : str
        What was minimized, `none` without training.
    n_parameters : int
        Numbers that were trained or fitted, or that differ from the base model's.
    diagnostics : dict of str to float
        How well a baseline separates behavior and contrast, and how far it steers.
    train_losses : dict of str to float
        What `Replicate.train_losses` gives of a training.
    """

    training: Training
    objective: str
    n_parameters: int
    diagnostics: Mapping[str, float] = field(default_factory=dict)
    train_losses: Mapping[str, float] = field(default_factory=dict)


def train_replicates(replicates: Sequence[Replicate]) -> list[ReplicateResult]:
    """Train, fit or load replicates of one adapter and save each under its `out`.

    Those trained on latents are trained together; of others there may be one.
    """
    made = ADAPTERS.facts(replicates[0].kind).made
    if made == "latents":
        return _train_on_latents(replicates)
    (replicate,) = replicates
    if replicate.options.sparsity is not None:
        raise not_sparse(replicate.kind)
    return [_BY_MADE[made](replicate)]


def _train_on_latents(replicates: Sequence[Replicate]) -> list[ReplicateResult]:
    adapters, trainees = [], []
    with ExitStack() as stack:
        for replicate in replicates:
            subject, options, seed = replicate.subject, replicate.options, replicate.seed
            adapter = make_adapter(replicate.kind, subject.dictionary.d_sae, dict(options.options), seed)
            adapter.to(subject.model.device)
            sparse = sparsity(adapter, options.sparsity, options.steps, seed)
            module, adapt = stack.enter_context(trainable(adapter, subject, options, sparse))
            latest = module.written_back if isinstance(module, RowSpace) else nullcontext
            save = replicate.save_at_checkpoints(adapter, latest)
            adapters.append(adapter)
            trainees.append(Trainee(module, adapt, seed, replicate.description, sparse, replicate.report, save))
        first = replicates[0]
        trainings = train_together(
            first.subject, trainees, first.train, first.heldout, first.options, batch_size=first.batch_size
        )
    results = []
    for replicate, adapter, training in zip(replicates, adapters, trainings, strict=True):
        save_adapter(adapter, replicate.out, replicate.subject.dictionary)
        losses = replicate.train_losses(partial(adapted, replicate.subject, adapter))
        objective = replicate.options.objective
        results.append(ReplicateResult(training, objective, n_trainable(adapter), train_losses=losses))
    return results


def _train_on_model(replicate: Replicate) -> ReplicateResult:
    subject, options = replicate.subject, replicate.options
    with ADAPTERS[replicate.kind].on(subject, dict(options.options), replicate.seed) as adapter:
        adapter.kind = replicate.kind
        training = train(
            subject,
            adapter,
            lambda batch: adapter.adapted(subject, batch),
            replicate.train,
            replicate.heldout,
            options,
            seed=replicate.seed,
            batch_size=replicate.batch_size,
            description=replicate.description,
            report=replicate.report,
            after_step=replicate.save_at_checkpoints(adapter),
        )
        save_adapter(adapter, replicate.out)
        losses = replicate.train_losses(partial(adapter.adapted, subject), adapter.idle())
        return ReplicateResult(training, options.objective, n_trainable(adapter), train_losses=losses)


def _fit(replicate: Replicate) -> ReplicateResult:
    subject, options, contrast = replicate.subject, replicate.options, replicate.contrast
    if ADAPTERS.facts(replicate.kind).contrasted and not contrast:
        raise InputError(
            f"adapter {replicate.kind!r} without other text to contrast with", remedy="add a second behavior"
        )
    adapter = make_adapter(replicate.kind, subject.dictionary.d_sae, dict(options.options))
    if not isinstance(adapter, Steering):
        raise TypeError(f"adapter {replicate.kind!r} is registered as fitted, but is not a Steering adapter")
    adapter.to(subject.model.device)
    strength = fit_steering(
        subject,
        adapter,
        completions(replicate.train),
        [group.train for group in contrast],
        options,
        seed=replicate.seed,
        batch_size=replicate.batch_size,
        instructed=replicate.instructed,
    )
    save_adapter(adapter, replicate.out, subject.dictionary)
    adapt = partial(adapted, subject, adapter)
    training = replicate.evaluate(subject, adapt)
    found = score_steering(adapter, completions(replicate.heldout), [group.heldout for group in contrast], "heldout")
    if replicate.rephrased is not None:
        others = [group.rephrased for group in contrast if group.rephrased is not None]
        found |= score_steering(adapter, replicate.rephrased, others, "rephrased")
    found |= {"steering_strength": strength}
    return ReplicateResult(training, NOT_TRAINED, adapter.d_sae, found, replicate.train_losses(adapt))


def _load_checkpoint(replicate: Replicate) -> ReplicateResult:
    subject = replicate.subject
    with ADAPTERS[replicate.kind].on(subject, dict(replicate.options.options), replicate.seed) as adapter:
        adapter.kind = replicate.kind
        save_adapter(adapter, replicate.out)
        training = replicate.evaluate(adapter.subject_of(subject), lambda batch: adapter.adapted(subject, batch))
        return ReplicateResult(training, NOT_TRAINED, adapter.n_changed(subject.model))


def _load_saved(replicate: Replicate) -> ReplicateResult:
    subject = replicate.subject
    opened = ADAPTERS[replicate.kind].open(dict(replicate.options.options), subject.dictionary)
    adapter = opened.to(subject.model.device)
    save_adapter(adapter, replicate.out, subject.dictionary)
    training = replicate.evaluate(subject, lambda batch: adapted(subject, adapter, batch))
    return ReplicateResult(training, NOT_TRAINED, n_trainable(adapter))


_BY_MADE: dict[str, Callable[[Replicate], ReplicateResult]] = {
    "model": _train_on_model,
    "fitted": _fit,
    "checkpoint": _load_checkpoint,
    "saved": _load_saved,
}


def contrast_rows(plan: config.Plan, behavior: str, cache: str | Path, folder: str | Path | None) -> list[Compared]:
    """Return the rows of each group of text that a behavior's is compared with.

    Parameters
    ----------
    cache : path
        The behavior's own cache.
    folder : path, optional
        Holds {behavior}.safetensors of the others.

    Raises
    ------
    InputError
        A cache lacks what is compared, or other behaviors are and there is no folder.
    """
    splits = ["train", "heldout", *([HELDOUT_REPHRASED] if plan.rephrases(behavior) else [])]
    if plan.behavior_of(behavior).contrast == config.REJECTED:
        return [Compared(*(read_cache(cache, split + REJECTED) for split in splits))]
    names = plan.contrasts_of(behavior)
    if not names:
        return []
    if folder is None:
        raise InputError(
            f"behavior {behavior!r} needs the cached activations of {', '.join(names)}",
            remedy="give their folder with --contrast",
        )
    caches = [Path(folder) / f"{name}.safetensors" for name in names]
    return [Compared(*(read_cache(path, split) for split in splits)) for path in caches]


def _seeds(plan: config.Plan, adapter: str, permuted: bool) -> range:
    """Return the seeds; a loaded adapter has one, unless its path names a seed or the dictionary varies."""
    options = plan.study.adapters[adapter]
    varies = permuted or any("{seed}" in str(value) for value in options.options.values())
    return range(plan.n_seeds_of(adapter) if varies or not ADAPTERS.facts(options.kind or adapter).loaded else 1)


def _filled_in(options: dict[str, Any], **names: object) -> dict[str, Any]:
    """Return the options with {behavior} and {seed} in their texts filled in."""
    texts = {name: value for name, value in options.items() if isinstance(value, str)}
    for placeholder, value in names.items():
        texts = {name: text.replace(f"{{{placeholder}}}", str(value)) for name, text in texts.items()}
    return options | texts
