"""Measures of change: from a trained adapter to one number per latent."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from isaerft import config
from isaerft.adapters.saved import checkpoint_folders, seed_folders, seed_of
from isaerft.adapters.shift import Shift
from isaerft.changes.pullback import PulledBack, Trained, load_trained
from isaerft.errors import InputError
from isaerft.io import write_json, write_parquet
from isaerft.progress import Progress
from isaerft.registry import MEASURES
from isaerft.subjects.cache import Batch, completion_losses, read_cache
from isaerft.subjects.device import in_float64
from isaerft.subjects.erasure import Erasure
from isaerft.subjects.load import LoadedSubject

COLUMNS = ("adapter", "measure", "seed", "latent_index", "change")
# Points of the quadrature: more where fewer miss the change of the loss by more than a share of it and nats per token.
POINTS = (4, 8, 16)
TOLERATED_SHARE, TOLERATED_NATS = 0.01, 1e-3

Measure = Callable[[Trained], torch.Tensor]
"""Returns the signed change of every latent, (d_sae,): positive where training promoted the latent."""


def score_changes(
    plan: config.Plan,
    subject: LoadedSubject,
    cache: str | Path,
    adapters: str | Path,
    out: str | Path,
    *,
    measured: Collection[str],
    diagnosed: Collection[str],
    diagnostics: str | Path,
    permuted: bool,
    erasures: Sequence[Erasure] = (),
) -> None:
    """Measure how much each latent changed, and write a table (Parquet) and the diagnostics (JSON), atomically.

    Parameters
    ----------
    cache : path
        The behavior's cache; changes are measured on its held-out rows.
    adapters : path
        Holds {adapter}/seed_{k}.
    out : path
        Table to write, with the columns `COLUMNS`.
    measured : collection of str
        Adapters for the table.
    diagnosed : collection of str
        Adapters on the model for the diagnostics.
    diagnostics : path
        File to write: a list of {adapter, seed, diagnostics} with what `PulledBack.diagnostics` returns.
    permuted : bool
        Whether seed k was trained on its own random dictionary.
    erasures : sequence of Erasure
        What was erased from the residual stream when seed k was trained; nothing when empty.

    Raises
    ------
    InputError
        An adapter is missing, or a measure does not return one number per latent.
    """
    heldout = read_cache(cache, "heldout")
    found = []
    names = dict.fromkeys([*measured, *diagnosed])
    folders = [(name, folder) for name in names for folder in seed_folders(Path(adapters) / name)]

    def changes() -> Iterator[pd.DataFrame]:
        for name, folder in Progress(folders, desc="changes"):
            seed = seed_of(folder)
            used = subject.with_random_dictionary(plan.replicate_seed(seed)) if permuted else subject
            rows = erasures[seed].on_rows(used, heldout) if erasures else heldout
            used = erasures[seed].on_subject(used) if erasures else used
            with load_trained(folder, used, rows, plan.study.batch_size) as trained:
                if name in measured:
                    yield from measured_changes(trained, plan.study.measures, seed, adapter=name)
                if name in diagnosed and isinstance(trained, PulledBack):
                    found.append({"adapter": name, "seed": seed, "diagnostics": trained.diagnostics()})

    write_parquet(changes(), out)
    write_json(diagnostics, found)


def score_changes_over_time(
    plan: config.Plan, subject: LoadedSubject, cache: str | Path, adapters: str | Path, out: str | Path
) -> None:
    """Measure how much each latent had changed at every checkpoint, and write a table (Parquet), atomically.

    Parameters
    ----------
    cache : path
        The behavior's cache; changes are measured on its held-out rows, by the measure of the primary result.
    adapters : path
        Holds {adapter}/checkpoints/seed_{k}/step_{n}.
    out : path
        Table to write: the columns `COLUMNS` and step.

    Raises
    ------
    InputError
        A checkpoint is missing, or the measure does not return one number per latent.
    """
    heldout = read_cache(cache, "heldout")
    folders = []
    for name in plan.followed_adapters:
        for seed in map(seed_of, seed_folders(Path(adapters) / name)):
            found = checkpoint_folders(Path(adapters) / name, seed)
            if not found:
                raise InputError(
                    f"no checkpoints of {name!r}, seed {seed}, in {str(adapters)!r}",
                    remedy="run `isaerft train` again: it keeps them",
                )
            folders += [(name, seed, step, folder) for step, folder in found.items()]

    def changes() -> Iterator[pd.DataFrame]:
        for name, seed, step, folder in Progress(folders, desc="changes over time"):
            with load_trained(folder, subject, heldout, plan.study.batch_size) as trained:
                yield from measured_changes(trained, [plan.study.primary.measure], seed, adapter=name, step=step)

    write_parquet(changes(), out)


def measured_changes(trained: Trained, measures: Iterable[str], seed: int, **names: object) -> Iterator[pd.DataFrame]:
    """Yield the change of every latent by each measure: the columns `names`, measure, seed, latent_index, change."""
    for measure in measures:
        change = _measured(measure, trained)
        columns = {**names, "measure": measure, "seed": seed, "latent_index": range(len(change))}
        yield pd.DataFrame(columns | {"change": change})


def _measured(measure: str, trained: Trained) -> np.ndarray:
    """Return the change of every latent by a registered measure, (d_sae,) float64."""
    change: torch.Tensor = MEASURES[measure](trained)
    d_sae = trained.subject.dictionary.d_sae
    if tuple(change.shape) != (d_sae,):
        raise InputError(f"measure {measure!r} returned shape {tuple(change.shape)}", allowed=f"({d_sae},)")
    result: np.ndarray = change.detach().cpu().double().numpy()
    return result


def parameter(trained: Trained) -> torch.Tensor:
    """Return the trained parameter, (d_sae,), in the adapter's own units.

    The naive measure: it ignores how far a latent reaches the residual stream, and whether it fires at all.
    """
    return trained.latent_parameter()


def contribution(trained: Trained) -> torch.Tensor:
    """Return the mean change of activation times decoder norm, (d_sae,), in the units of what it writes to, per token.

    (1 / T) sum_t (f'_ti - f_ti) * ||decoder_i|| over the T tokens of the held-out rows. A scale counts only as far as
    its latent fires, and latents with different decoder norms are comparable.
    """
    return trained.mean_shift() * trained.subject.dictionary.decoder_norm


def attribution(trained: Trained) -> torch.Tensor:
    """Return the integrated gradient of the held-out loss along the learned change, (d_sae,), in nats per token.

    -(f' - f) * integral_0^1 dL(x + a (x' - x)) / df da, summed over tokens (Sundararajan et al. 2017), by
    Gauss-Legendre quadrature along the displacement of the residual stream. Positive where a latent's change lowers the
    loss. The sum over latents is the fall in loss that the dictionary explains: for an adapter on latents, all of it.
    What the loss really does along the way says how many points each batch needs.
    """
    device = trained.subject.model.device
    total = torch.zeros(trained.subject.dictionary.d_sae, device=device)
    n_losses = 0
    for batch in trained.heldout.batches(trained.batch_size):
        moved = batch.to(device)
        with torch.no_grad():
            shift, step = trained.shift(moved), trained.displacement(moved)
        gradient = _mean_gradient(trained, moved, shift, step)
        with torch.no_grad():
            total -= shift.against(trained.subject.dictionary.decoder, gradient.float())
        n_losses += len(moved.labels)
    return total / n_losses


def _mean_gradient(trained: Trained, batch: Batch, shift: Shift, step: torch.Tensor) -> torch.Tensor:
    """Return the mean over the way of the gradient of the summed loss, (n_tokens, d_model)."""
    with torch.no_grad():
        before, after = (
            float(in_float64(completion_losses(trained.subject, batch, point)).sum())
            for point in (batch.residual, batch.residual + step)
        )
    tolerated = max(TOLERATED_SHARE * abs(after - before), TOLERATED_NATS * len(batch.labels))
    for n_points in POINTS:
        points, weights = np.polynomial.legendre.leggauss(n_points)
        gradient, rise = torch.zeros_like(step), 0.0
        for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
            there, slope = _loss_gradient(trained, batch, shift, step, point)
            gradient += weight * there
            rise += weight * slope
        if abs(rise - (after - before)) <= tolerated:
            break
    return gradient


def _loss_gradient(
    trained: Trained, batch: Batch, shift: Shift, step: torch.Tensor, share: float
) -> tuple[torch.Tensor, float]:
    """Return the gradient of the summed loss at a share of the displacement `step`, (n_tokens, d_model), and its slope.

    The gradient is taken with respect to what the dictionary writes to. Behind a normalization the way there is
    straight in that output, and only what the dictionary does not explain moves straight in the residual stream. The
    slope is that of the loss over the share.
    """
    push = torch.zeros_like(batch.residual, requires_grad=True)
    along = torch.tensor(share, dtype=step.dtype, device=step.device, requires_grad=True)
    if batch.written is None:
        point = batch.residual + (along * step + push)
    else:
        with torch.no_grad():
            rest = step - trained.explained(batch, shift)
            change = shift.residual(trained.subject.dictionary.decoder)
        point = batch.residual + along * rest + trained.subject.reaching(batch.written, along * change + push)
    loss = completion_losses(trained.subject, batch, point).sum()
    gradient, slope = torch.autograd.grad(loss, (push, along))
    return gradient, float(slope)
