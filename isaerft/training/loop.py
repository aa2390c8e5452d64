"""The training loop on cached activations, with early stopping on held-out loss."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import NoReturn, Protocol, cast

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from isaerft import config
from isaerft.adapters.sparsity import Dense
from isaerft.errors import InputError
from isaerft.progress import Progress
from isaerft.subjects.cache import Batch, completion_losses
from isaerft.subjects.device import in_float64
from isaerft.subjects.hooks import decoder_blocks
from isaerft.subjects.load import LoadedSubject
from isaerft.training.objectives import Adapt, Objective, is_completion_loss, make_objective
from isaerft.training.pairs import Rows, completions
from isaerft.training.processes import average_gradients, own_batches, own_rows, rank, sum_over_processes
from isaerft.training.row_space import RowSpace

logger = logging.getLogger(__name__)


@contextmanager
def frozen_part(subject: LoadedSubject, adapt: Adapt, options: config.Adapter) -> Iterator[Adapt]:
    """Run the frozen blocks with the precision and memory saving of `options`; give an `adapt` in full precision."""
    model = subject.model
    with ExitStack() as stack:
        if options.precision == "float32":
            stack.enter_context(_float32(model))
        if options.precision == "bfloat16":
            stack.enter_context(torch.autocast(model.device.type, torch.bfloat16))
        if options.gradient_checkpointing:
            stack.enter_context(_checkpointed(decoder_blocks(model)[subject.hook.n_below :]))

        def full_precision(batch: Batch) -> torch.Tensor:
            if options.precision == "float32":
                batch = replace(batch, residual=batch.residual.float())
            with torch.autocast(model.device.type, enabled=False):
                return adapt(batch)

        yield full_precision


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


def add_gradients(subject: LoadedSubject, objective: Objective, adapt: Adapt, parts: Sequence[Batch]) -> float:
    """Add the objective's gradient on a step's rows to the parameters' gradients, and return its value.

    Parameters
    ----------
    parts : sequence of Batch
        The step's rows in parts that fit into memory. An objective is a mean over a batch's terms, so each part is
        weighted by its number of terms, and the gradient is that of all rows at once.
    """
    n_terms = sum(part.n_terms for part in parts)
    total = 0.0
    for part in parts:
        moved = part.to(subject.model.device)
        loss = objective(subject, moved, adapt(moved)) * (part.n_terms / n_terms)
        # Autocast is for the forward pass; backward uses the same types anyway.
        with torch.autocast(subject.model.device.type, enabled=False):
            loss.backward()
        total += float(loss.detach())
    return total


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
) -> Training:
    """Train `module` in place; it ends with the parameters that `options.keep` says.

    Parameters
    ----------
    module : nn.Module
        Holds the parameters that require a gradient.
    adapt : callable
        Maps a batch to its adapted residual stream, (n_tokens, d_in).
    seed : int
        Draws the rows that this replicate sees (`options.subsample`) and their order.
    batch_size : int
        Rows per forward pass on held-out rows.
    sparsity : Dense, optional
        Acts after every step; parameters are kept only from its step `settled_at` on.

    Raises
    ------
    InputError
        The loss is not finite; the module then holds the last good parameters.
    """
    sparsity, objective = sparsity or Dense(), make_objective(options)
    with frozen_part(subject, adapt, options) as precise:

        def completion_loss() -> float:
            return heldout_loss(subject, precise, completions(heldout_rows), batch_size)

        def own_objective() -> float:
            if is_completion_loss(options):
                return completion_loss()
            return heldout_objective(subject, objective, precise, heldout_rows, batch_size)

        loss_base = completion_loss()
        order, optimizer = _row_order(len(train_rows), options, seed), Optimizer(module, options)
        base = loss_base if is_completion_loss(options) else own_objective()
        best, best_step, best_state, tokens, step = base, 0, _state(module), 0, 0
        for step in Progress(range(1, options.steps + 1), desc=description, unit="step", shown=rank() == 0):
            rows = own_rows(next(order))
            cuts = rows.tensor_split(max(1, min(options.gradient_accumulation, len(rows))))
            parts = [train_rows.batch(part) for part in cuts if len(part)]
            optimizer.clear()
            loss = add_gradients(subject, objective, precise, parts)
            trained, n_terms = [*optimizer.parameters, *sparsity.trained], sum(part.n_terms for part in parts)
            loss = average_gradients(trained, loss, n_terms)
            if not math.isfinite(loss):
                _stop(module, best_state, description, loss, step)
            optimizer.step()
            sparsity.after_step(step)
            tokens += sum(part.codes.n_tokens for part in parts)
            if step % options.evaluate_every and step < options.steps:
                continue
            heldout = own_objective()
            if not math.isfinite(heldout):
                _stop(module, best_state, description, heldout, step)
            if options.keep == "last" or (heldout < best and step >= sparsity.settled_at):
                best, best_step, best_state = heldout, step, _state(module)
            elif step - max(best_step, sparsity.settled_at) >= options.patience * options.evaluate_every:
                break
        _restore(module, best_state)
        logger.info("%s: held-out objective %.4f -> %.4f at step %d of %d", description, base, best, best_step, step)
        loss_adapted = best if is_completion_loss(options) else completion_loss()
    (tokens_of_all,) = sum_over_processes(tokens)
    return Training(step, int(tokens_of_all), loss_base, loss_adapted, base, best, best_step)


class Batched(Protocol):
    """Rows that can be read in batches, as `CachedRows`."""

    def batches(self, n: int) -> Iterator[Batch]:
        """Yield the rows in order, `n` at a time."""
        ...


def heldout_loss(subject: LoadedSubject, adapt: Adapt, rows: Batched, batch_size: int) -> float:
    """Return the mean loss over all completion tokens of `rows`, in nats."""
    total = n_tokens = 0.0
    with torch.no_grad():
        for batch in own_batches(rows.batches(batch_size)):
            moved = batch.to(subject.model.device)
            losses = completion_losses(subject, moved, adapt(moved))
            total += float(in_float64(losses).sum())
            n_tokens += len(losses)
    total, n_tokens = sum_over_processes(total, n_tokens)
    return total / n_tokens


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


def _stop(module: nn.Module, good: list[torch.Tensor], description: str, loss: float, step: int) -> NoReturn:
    """Restore the last good parameters and raise an error that says where the loss diverged."""
    _restore(module, good)
    raise InputError(f"{description}: loss is {loss} at step {step}", remedy="lower the adapter's learning_rate")


def _state(module: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters() if parameter.requires_grad]


def _restore(module: nn.Module, state: list[torch.Tensor]) -> None:
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    with torch.no_grad():
        for parameter, value in zip(trained, state, strict=True):
            parameter.copy_(value)
