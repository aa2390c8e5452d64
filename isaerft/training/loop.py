"""The training loop on cached activations, with early stopping on held-out loss."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol, cast

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from isaerft import config
from isaerft.adapters.sparsity import Dense
from isaerft.errors import InputError
from isaerft.progress import Progress
from isaerft.subjects.blocks import decoder_blocks
from isaerft.subjects.cache import Batch, completion_losses, joined_batch
from isaerft.subjects.device import in_float64
from isaerft.subjects.load import LoadedSubject
from isaerft.training.objectives import (
    Adapt,
    Objective,
    Objectives,
    is_completion_loss,
    make_objective,
    make_objectives,
)
from isaerft.training.pairs import Rows, completions
from isaerft.training.processes import average_gradients, own_batches, own_rows, rank, sum_over_processes
from isaerft.training.row_space import RowSpace
from isaerft.training.tracking import Report, unreported

logger = logging.getLogger(__name__)


@contextmanager
def frozen_part(subject: LoadedSubject, options: config.Adapter) -> Iterator[Callable[[Adapt], Adapt]]:
    """Run the frozen blocks with the precision and memory saving of `options`; give what keeps an `adapt` precise."""
    model = subject.model
    with ExitStack() as stack:
        if options.precision == "float32":
            stack.enter_context(_float32(model))
        if options.precision == "bfloat16":
            stack.enter_context(torch.autocast(model.device.type, torch.bfloat16))
        if options.gradient_checkpointing:
            stack.enter_context(_checkpointed(decoder_blocks(model)[subject.hook.n_below :]))

        def full_precision(adapt: Adapt, batch: Batch) -> torch.Tensor:
            if options.precision == "float32":
                written = None if batch.written is None else batch.written.float()
                batch = replace(batch, residual=batch.residual.float(), written=written)
            with torch.autocast(model.device.type, enabled=False):
                return adapt(batch)

        yield lambda adapt: partial(full_precision, adapt)


@contextmanager
def _float32(model: PreTrainedModel) -> Iterator[None]:
    """Widen the model to float32 inside the block; a narrower dtype is restored exactly."""
    dtype: torch.dtype = model.dtype
    model.float()
    try:
        yield
    finally:
        cast("nn.Module", model).to(dtype)


@contextmanager
def _checkpointed(blocks: nn.ModuleList) -> Iterator[None]:
    """Keep only the blocks' inputs for the backward pass, which runs each block again (Chen et al. 2016).

    Transformers' own switch has no effect in evaluation mode, and training mode would enable dropout.
    """
    # A forward set on the block itself must be restored; its class's own forward reappears.
    own = [vars(block).get("forward") for block in blocks]
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    try:
        yield
    finally:
        for block, forward in zip(blocks, own, strict=True):
            del block.forward
            if forward is not None:
                block.forward = forward


class Optimizer:
    """SGD whose first gradient has length 1 (so the learning rate is a length), or Adam.

    Parameters
    ----------
    module : nn.Module
        Its parameters that require a gradient are trained.
    """

    def __init__(self, module: nn.Module, options: config.Adapter) -> None:
        self.module = module
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.scale: float | None = 1.0 if options.optimizer == "adam" else None
        if options.optimizer == "adam":
            self.inner: torch.optim.Optimizer = torch.optim.Adam(self.parameters, lr=options.learning_rate)
        else:
            self.inner = torch.optim.SGD(self.parameters, lr=options.learning_rate, momentum=options.momentum)

    def clear(self) -> None:
        """Clear the gradients."""
        self.inner.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Take one step along the gradients."""
        if self.scale is None:
            norm = self._gradient_norm()
            self.scale = 1 / norm if norm > 0 else 1.0
        if self.scale != 1.0:
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(self.scale)
        self.inner.step()

    def _gradient_norm(self) -> float:
        norms = {id(part): part.grad.norm() for part in self.parameters if part.grad is not None}
        if isinstance(self.module, RowSpace):
            norms[id(self.module.weights)] = self.module.constant_gradient_norm()
        return float(torch.stack(list(norms.values())).norm())


def add_gradients(
    subject: LoadedSubject, objectives: Objectives, adapts: Sequence[Adapt], parts: Sequence[Sequence[Batch]]
) -> list[float]:
    """Add each training's gradient on its own step to its parameters' gradients, and return the objectives' values.

    Parameters
    ----------
    parts : sequence of sequences of Batch
        For each training, its step's rows in parts that fit into memory. An objective is a mean over a batch's terms,
        so each part is weighted by its number of terms, and the gradient is that of all rows at once.
    """
    n_terms = [sum(part.n_terms for part in own) for own in parts]
    totals = [0.0] * len(parts)
    for number in range(max(map(len, parts))):
        present = [one for one, own in enumerate(parts) if number < len(own)]
        moved = [parts[one][number].to(subject.model.device) for one in present]
        residuals = [adapts[one](batch) for one, batch in zip(present, moved, strict=True)]
        losses = [
            loss * (batch.n_terms / n_terms[one])
            for one, batch, loss in zip(present, moved, objectives(subject, moved, residuals), strict=True)
        ]
        # Autocast is for the forward pass; backward uses the same types anyway.
        with torch.autocast(subject.model.device.type, enabled=False):
            torch.autograd.backward(losses)
        for one, loss in zip(present, torch.stack(losses).tolist(), strict=True):
            totals[one] += loss
    return totals


@dataclass(frozen=True)
class Training:
    """Result of one training.

    Attributes
    ----------
    steps : int
        Optimizer steps taken until training ended, also those after the step whose parameters were kept.
    tokens : int
        Tokens seen in these steps, prompts and completions together; a token counts each time that it is seen.
    heldout_loss_base, heldout_loss_adapted : float
        Nats per completion token (of preference pairs: of the chosen replies) before training and at the kept step.
        The scale is the same for every objective.
    heldout_objective_base, heldout_objective_adapted : float
        The adapter's own objective on the same rows, which early stopping follows.
    best_step : int
        Step whose parameters were kept; with `keep: best`, 0 if no step lowered the held-out objective.
    """

    steps: int
    tokens: int
    heldout_loss_base: float
    heldout_loss_adapted: float
    heldout_objective_base: float
    heldout_objective_adapted: float
    best_step: int


def _ignore(step: int) -> None:
    """Do nothing after a step."""


@dataclass(frozen=True)
class Trainee:
    """What one training changes, and its random streams.

    Attributes
    ----------
    module : nn.Module
        Holds the parameters that require a gradient.
    adapt : callable
        Maps a batch to its adapted residual stream, (n_tokens, d_in).
    seed : int
        Draws the rows that this replicate sees (`options.subsample`) and their order.
    sparsity : Dense
        Acts after every step; parameters are kept only from its step `settled_at` on.
    report : callable
        Gets the loss (the objective's value) of every step on training rows, and of every evaluation on held-out ones.
    after_step : callable
        Gets the number of every step, from 1, once the module has taken it.
    """

    module: nn.Module
    adapt: Adapt
    seed: int
    description: str = "training"
    sparsity: Dense = field(default_factory=Dense)
    report: Report = unreported
    after_step: Callable[[int], None] = _ignore


def train(
    subject: LoadedSubject,
    module: nn.Module,
    adapt: Adapt,
    train_rows: Rows,
    heldout_rows: Rows,
    options: config.Adapter,
    *,
    seed: int,
    batch_size: int,
    description: str = "training",
    sparsity: Dense | None = None,
    report: Report = unreported,
    after_step: Callable[[int], None] = _ignore,
) -> Training:
    """Do what `train_together` does for one `Trainee`."""
    trainee = Trainee(module, adapt, seed, description, sparsity or Dense(), report, after_step)
    return train_together(subject, [trainee], train_rows, heldout_rows, options, batch_size=batch_size)[0]


def train_together(
    subject: LoadedSubject,
    trainees: Sequence[Trainee],
    train_rows: Rows,
    heldout_rows: Rows,
    options: config.Adapter,
    *,
    batch_size: int,
) -> list[Training]:
    """Train each trainee's module in place, all step by step together; each ends with what `options.keep` says.

    Trainings share the passes through the frozen blocks where the objective is the completion loss, and nothing else:
    each sees its own rows and stops by its own held-out loss. Its numbers are those of training alone, up to rounding.

    Parameters
    ----------
    trainees : sequence of Trainee
        Each starts as the exact identity.
    batch_size : int
        Rows per forward pass on held-out rows.

    Raises
    ------
    InputError
        A loss is not finite; its module then holds the last good parameters.
    """
    is_completion = is_completion_loss(options)
    with frozen_part(subject, options) as precise:
        adapts = [precise(trainee.adapt) for trainee in trainees]

        def judged(adapts: Sequence[Adapt]) -> list[float]:
            if is_completion:
                return heldout_losses(subject, adapts, completions(heldout_rows), batch_size)
            objective = make_objective(options)
            return [heldout_objective(subject, objective, adapt, heldout_rows, batch_size) for adapt in adapts]

        # In the passes of later evaluations: rounding must not look like an improvement.
        bases = judged(adapts)
        losses_base = bases
        if not is_completion:
            losses_base = [heldout_loss(subject, adapts[0], completions(heldout_rows), batch_size)] * len(trainees)
        runs = [
            _Run(trainee, adapt, options, len(train_rows), base)
            for trainee, adapt, base in zip(trainees, adapts, bases, strict=True)
        ]
        going, steps = runs, range(1, options.steps + 1)
        objectives = make_objectives(options)
        others = f" and {len(trainees) - 1} more" if len(trainees) > 1 else ""
        for step in Progress(steps, desc=trainees[0].description + others, unit="step", shown=rank() == 0):
            parts = [run.next_parts(train_rows) for run in going]
            losses = add_gradients(subject, objectives, [run.adapt for run in going], parts)
            for run, loss, own in zip(going, losses, parts, strict=True):
                run.take_step(step, loss, own)
            if step % options.evaluate_every and step < options.steps:
                continue
            for run, heldout in zip(going, judged([run.adapt for run in going]), strict=True):
                run.judge(heldout)
            going = [run for run in going if not run.ended]
            if not going:
                break
        results = []
        for run, loss_base in zip(runs, losses_base, strict=True):
            run.restore()
            kept = None if is_completion else heldout_loss(subject, run.adapt, completions(heldout_rows), batch_size)
            results.append(run.result(loss_base, kept))
    return results


class _Run:
    """One training among those that step together: its rows, its optimizer, and the best parameters so far."""

    def __init__(self, trainee: Trainee, adapt: Adapt, options: config.Adapter, n_rows: int, base: float) -> None:
        self.adapt, self.ended = adapt, False
        self._trainee, self._options, self._base = trainee, options, base
        self._order, self._optimizer = _row_order(n_rows, options, trainee.seed), Optimizer(trainee.module, options)
        self._best, self._best_step, self._best_state = base, 0, _state(trainee.module)
        self._step = self._tokens = 0
        trainee.report(0, {"heldout/loss": base})

    def next_parts(self, train_rows: Rows) -> list[Batch]:
        """Clear the gradients, and return the next step's rows in parts that fit into memory."""
        self._optimizer.clear()
        rows = own_rows(next(self._order))
        cuts = rows.tensor_split(max(1, min(self._options.gradient_accumulation, len(rows))))
        return [train_rows.batch(part) for part in cuts if len(part)]

    def take_step(self, step: int, loss: float, parts: Sequence[Batch]) -> None:
        """Take a step along the gradients of these parts, whose mean loss was `loss`."""
        sparsity, self._step = self._trainee.sparsity, step
        trained, n_terms = [*self._optimizer.parameters, *sparsity.trained], sum(part.n_terms for part in parts)
        loss = average_gradients(trained, loss, n_terms)
        self._check(loss)
        self._trainee.report(step, {"train/loss": loss})
        self._optimizer.step()
        sparsity.after_step(step)
        self._trainee.after_step(step)
        self._tokens += sum(part.codes.n_tokens for part in parts)

    def judge(self, heldout: float) -> None:
        """Keep the parameters if the held-out objective says so, and end the training if it has stopped falling."""
        self._check(heldout)
        self._trainee.report(self._step, {"heldout/loss": heldout})
        settled_at, options = self._trainee.sparsity.settled_at, self._options
        if options.keep == "last" or (heldout < self._best and self._step >= settled_at):
            self._best, self._best_step, self._best_state = heldout, self._step, _state(self._trainee.module)
        elif self._step - max(self._best_step, settled_at) >= options.patience * options.evaluate_every:
            self.ended = True

    def restore(self) -> None:
        """Give the module the best parameters so far."""
        _restore(self._trainee.module, self._best_state)

    def result(self, loss_base: float, loss_adapted: float | None) -> Training:
        """Return what came out, given the held-out losses before training and at the kept step.

        The latter is the objective's own value where it is None.
        """
        (tokens,) = sum_over_processes(self._tokens)
        loss = self._best if loss_adapted is None else loss_adapted
        logger.info(
            "%s: held-out objective %.4f -> %.4f at step %d of %d",
            self._trainee.description,
            self._base,
            self._best,
            self._best_step,
            self._step,
        )
        return Training(self._step, int(tokens), loss_base, loss, self._base, self._best, self._best_step)

    def _check(self, loss: float) -> None:
        """Restore the last good parameters and raise an error that says where a loss diverged."""
        if math.isfinite(loss):
            return
        self.restore()
        raise InputError(
            f"{self._trainee.description}: loss is {loss} at step {self._step}",
            remedy="lower the adapter's learning_rate",
        )


class Batched(Protocol):
    """Rows that can be read in batches, as `CachedRows`."""

    def batches(self, n: int) -> Iterator[Batch]:
        """Yield the rows in order, `n` at a time."""
        ...


def heldout_loss(subject: LoadedSubject, adapt: Adapt, rows: Batched, batch_size: int) -> float:
    """Return the mean loss over all completion tokens of `rows`, in nats."""
    return heldout_losses(subject, [adapt], rows, batch_size)[0]


def heldout_losses(subject: LoadedSubject, adapts: Sequence[Adapt], rows: Batched, batch_size: int) -> list[float]:
    """Return the same under each of several changes, which share the passes of `batch_size` rows."""
    totals, n_tokens = [0.0] * len(adapts), 0.0
    with torch.no_grad():
        for batch in own_batches(rows.batches(max(1, batch_size // len(adapts)))):
            moved = batch.to(subject.model.device)
            residuals = [adapt(moved) for adapt in adapts]
            losses = completion_losses(subject, joined_batch([moved] * len(adapts)), torch.cat(residuals))
            for one, own in enumerate(in_float64(losses).chunk(len(adapts))):
                totals[one] += float(own.sum())
            n_tokens += moved.n_terms
    *totals, n_tokens = sum_over_processes(*totals, n_tokens)
    return [total / n_tokens for total in totals]


def heldout_objective(subject: LoadedSubject, objective: Objective, adapt: Adapt, rows: Rows, batch_size: int) -> float:
    """Return the mean objective over held-out batches, weighted by terms (completion tokens or pairs), in nats."""
    total = weights = 0.0
    with torch.no_grad():
        for batch in own_batches(rows.batches(batch_size)):
            moved = batch.to(subject.model.device)
            total += moved.n_terms * float(objective(subject, moved, adapt(moved)))
            weights += moved.n_terms
    total, weights = sum_over_processes(total, weights)
    return total / weights


def subsample(n_rows: int, options: config.Adapter, generator: torch.Generator) -> torch.Tensor:
    """Return the rows that a replicate sees, (n_kept,) int64: a random fraction `options.subsample`."""
    return torch.randperm(n_rows, generator=generator)[: max(1, round(options.subsample * n_rows))]


def _row_order(n_rows: int, options: config.Adapter, seed: int) -> Iterator[torch.Tensor]:
    """Yield batches of row numbers without end: a fixed random subsample, reshuffled every epoch."""
    generator = torch.Generator().manual_seed(seed)
    kept = subsample(n_rows, options, generator)
    while True:
        yield from kept[torch.randperm(len(kept), generator=generator)].split(options.batch_size)


def _state(module: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters() if parameter.requires_grad]


def _restore(module: nn.Module, state: list[torch.Tensor]) -> None:
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    with torch.no_grad():
        for parameter, value in zip(trained, state, strict=True):
            parameter.copy_(value)
