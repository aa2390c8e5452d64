"""An adapter's whole objective: the registered one with its options, plus the distance from the unadapted model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from isaerft import config
from isaerft.registry import OBJECTIVES
from isaerft.subjects.cache import Batch, CachedRows
from isaerft.subjects.load import LoadedSubject
from isaerft.training.pairs import PreferenceRows
from isaerft.training.processes import every_nth, summed

Adapt = Callable[[Batch], torch.Tensor]
Objective = Callable[[LoadedSubject, Batch, torch.Tensor], torch.Tensor]
Rows = CachedRows | PreferenceRows


def make_objective(options: config.Adapter) -> Objective:
    """Return the function (subject, batch, adapted residual stream) -> scalar loss that an adapter is trained on."""
    objective = OBJECTIVES[options.objective]
    if options.objective_options:
        objective = partial(objective, **options.objective_options)
    if not options.kl_weight:
        return objective
    from isaerft.training.kl import divergence

    def with_kl(subject: LoadedSubject, batch: Batch, residual: torch.Tensor) -> torch.Tensor:
        return objective(subject, batch, residual) + options.kl_weight * divergence(subject, batch, residual)

    return with_kl


def is_completion_loss(options: config.Adapter) -> bool:
    """Tell whether the objective is the mean loss over completion tokens and nothing else."""
    return options.objective == "sft" and not options.kl_weight


def heldout_objective(subject: LoadedSubject, objective: Objective, adapt: Adapt, rows: Rows, batch_size: int) -> float:
    """Return the mean objective over held-out batches, weighted by their completion tokens or pairs, in nats."""
    total = weights = 0.0
    with torch.no_grad():
        for batch in every_nth(rows.batches(batch_size)):
            moved = batch.to(subject.model.device)
            total += moved.n_terms * float(objective(subject, moved, adapt(moved)).double())
            weights += moved.n_terms
    total, weights = summed(total, weights)
    return total / weights


def completions(rows: Rows) -> CachedRows:
    """Return the rows whose completions show the behavior: of pairs, the chosen ones."""
    return rows.chosen if isinstance(rows, PreferenceRows) else rows
