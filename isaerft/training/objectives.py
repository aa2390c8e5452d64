"""Preference pairs: cached rows of chosen and rejected replies side by side, with the unadapted model's odds.

The distance from the unadapted model, as an addition to any objective.

sft: supervised fine-tuning on completions.

dpo: direct preference optimization (Rafailov et al. 2023, arXiv 2305.18290).

simpo: simple preference optimization (Meng et al. 2024, arXiv 2405.14734).

orpo: odds ratio preference optimization (Hong et al. 2024, arXiv 2403.07691).

An adapter's whole objective: the registered one with its options, plus the distance from the unadapted model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch.nn.functional import logsigmoid, pad

from isaerft import config
from isaerft.behaviors.records import REJECTED
from isaerft.errors import InputError
from isaerft.registry import OBJECTIVES
from isaerft.subjects.cache import Batch, CachedRows, completion_logits, completion_losses, read_cache
from isaerft.subjects.dictionary import Codes
from isaerft.subjects.load import LoadedSubject
from isaerft.training.processes import every_nth, summed


@dataclass(frozen=True)
class PreferenceBatch(Batch):
    """Pairs as one batch of 2 n rows: first the n chosen ones, then their n rejected twins.

    Attributes
    ----------
    reference : (2 n,) float32
        Log-probability of each row's completion under the unadapted model, in nats.
    """

    reference: torch.Tensor

    @property
    def n_terms(self) -> int:
        """Number of terms that an objective is a mean over: the pairs."""
        return len(self.mask) // 2

    def to(self, device: torch.device | str) -> PreferenceBatch:
        """Return the batch on `device`."""
        return replace(super().to(device), reference=self.reference.to(device))


@dataclass(frozen=True)
class PreferenceRows:
    """All pairs of one split; takes the place of `CachedRows` where the objective compares replies.

    Attributes
    ----------
    chosen, rejected : CachedRows
        Row r of both belongs to one prompt.
    reference : (n_rows, 2) float32
        Log-probability of the chosen and the rejected completion under the unadapted model, in nats.
    """

    chosen: CachedRows
    rejected: CachedRows
    reference: torch.Tensor

    def __len__(self) -> int:
        return len(self.chosen)

    def batch(self, rows: torch.Tensor) -> PreferenceBatch:
        """Return the given pairs, (n,) int64, as one batch."""
        joined = _joined(self.chosen.batch(rows), self.rejected.batch(rows))
        return PreferenceBatch(**joined, reference=self.reference[rows].T.flatten())

    def batches(self, n: int) -> Iterator[PreferenceBatch]:
        """Yield all pairs in order, `n` at a time."""
        for rows in torch.arange(len(self)).split(n):
            yield self.batch(rows)


def read_pairs(subject: LoadedSubject, cache: str | Path, split: str, batch_size: int) -> PreferenceRows:
    """Read the pairs of a split and run the unadapted model once over each.

    Parameters
    ----------
    subject : LoadedSubject
        With nothing trained in its model.
    batch_size : int
        Rows per forward pass.

    Raises
    ------
    InputError
        The cache holds no rejected replies, or not as many as chosen ones.
    """
    chosen = read_cache(cache, split)
    try:
        rejected = read_cache(cache, split + REJECTED)
    except InputError as error:
        raise InputError(error.problem, remedy="run `isaerft capture` again, with an objective on pairs") from None
    if len(chosen) != len(rejected):
        raise InputError(
            f"cache {str(cache)!r} holds {len(rejected)} rejected replies for {len(chosen)} chosen ones",
            remedy="run `isaerft capture` again",
        )
    reference = [_log_probabilities(subject, rows, batch_size) for rows in (chosen, rejected)]
    return PreferenceRows(chosen, rejected, torch.stack(reference, 1))


def row_log_probabilities(
    subject: LoadedSubject, batch: Batch, residual: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the log-probability of each row's completion and its length.

    Parameters
    ----------
    residual : (n_tokens, d_in)
        The (adapted) residual stream of the batch's tokens.

    Returns
    -------
    log_probability : (n_rows,) float32
        In nats, summed over the completion's tokens, EOS included.
    length : (n_rows,) float32
        Tokens of the completion.
    """
    losses = completion_losses(subject, batch, residual)
    row = batch.mask.nonzero()[:, 0][batch.predicts]
    zeros = losses.new_zeros(len(batch.mask))
    return zeros.index_add(0, row, -losses), zeros.index_add(0, row, torch.ones_like(losses))


def need_pairs(batch: Batch, objective: str) -> PreferenceBatch:
    """Return the batch if it holds pairs; otherwise raise `InputError`."""
    if not isinstance(batch, PreferenceBatch):
        raise InputError(
            f"objective {objective!r} on rows with one completion each",
            allowed="preference pairs",
            remedy="give the adapter `objective: sft`, or train on records with chosen and rejected",
        )
    return batch


def _log_probabilities(subject: LoadedSubject, rows: CachedRows, batch_size: int) -> torch.Tensor:
    """Return the log-probability of each row's completion under the unadapted model, (n_rows,) in nats."""
    parts = []
    with torch.no_grad():
        for batch in rows.batches(batch_size):
            moved = batch.to(subject.model.device)
            parts.append(row_log_probabilities(subject, moved, moved.residual)[0].cpu())
    return torch.cat(parts)


def _joined(first: Batch, second: Batch) -> dict[str, object]:
    """Return the parts of a batch with the rows of both, padded to one length."""
    length = max(first.mask.shape[1], second.mask.shape[1])
    parts: dict[str, object] = {}
    for name in (field.name for field in fields(first)):
        both = getattr(first, name), getattr(second, name)
        if isinstance(both[0], Codes):
            parts[name] = Codes.concatenate(both)
        elif name == "mask":
            parts[name] = torch.cat([pad(mask, (0, length - mask.shape[1])) for mask in both])
        else:
            parts[name] = torch.cat(both)
    return parts


def divergence(subject: LoadedSubject, batch: Batch, residual: torch.Tensor) -> torch.Tensor:
    """Return the mean KL(adapted || unadapted model) of the next token over completion tokens, in nats per token.

    Exact, over the whole vocabulary: sum_v p(v) (log p(v) - log q(v)). It penalises what the adapted model says that
    the unadapted one would not. Of preference pairs, both completions count.

    Parameters
    ----------
    residual : (n_tokens, d_in)
        The adapted residual stream of the batch's tokens; gradients flow back to it.
    """
    log_p = completion_logits(subject, batch, residual).log_softmax(-1)
    with torch.no_grad(), without_peft(subject.model):
        log_q = completion_logits(subject, batch, batch.residual).log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1).mean()


@contextmanager
def without_peft(model: nn.Module) -> Iterator[None]:
    """Run `model` without what PEFT put into its layers."""
    layers = [part for part in model.modules() if isinstance(part, BaseTunerLayer) and not part.disable_adapters]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def sft(subject: LoadedSubject, batch: Batch, residual: torch.Tensor) -> torch.Tensor:
    """Return the mean loss of the completion tokens, in nats per token.

    Parameters
    ----------
    residual : (n_tokens, d_in)
        The adapted residual stream of the batch's tokens.
    """
    return completion_losses(subject, batch, residual).mean()


def dpo(subject: LoadedSubject, batch: Batch, residual: torch.Tensor, *, beta: float) -> torch.Tensor:
    """Return the mean over pairs of -log sigmoid(beta * (r_chosen - r_rejected)), in nats.

    r is the log-probability of a completion less that under the unadapted model (equation 7 of the paper).

    Parameters
    ----------
    residual : (n_tokens, d_in)
        The adapted residual stream of the batch's tokens.

    Raises
    ------
    InputError
        The batch holds no pairs.
    """
    pairs = need_pairs(batch, "dpo")
    ratio = row_log_probabilities(subject, pairs, residual)[0] - pairs.reference
    chosen, rejected = ratio.chunk(2)
    return -logsigmoid(beta * (chosen - rejected)).mean()


def simpo(subject: LoadedSubject, batch: Batch, residual: torch.Tensor, *, beta: float, gamma: float) -> torch.Tensor:
    """Return the mean over pairs of -log sigmoid(beta * (p_chosen - p_rejected) - gamma), in nats.

    p is the mean log-probability of a completion's tokens (equation 6 of the paper).

    Parameters
    ----------
    residual : (n_tokens, d_in)
        The adapted residual stream of the batch's tokens.

    Raises
    ------
    InputError
        The batch holds no pairs.
    """
    total, length = row_log_probabilities(subject, need_pairs(batch, "simpo"), residual)
    chosen, rejected = (total / length).chunk(2)
    return -logsigmoid(beta * (chosen - rejected) - gamma).mean()


TINY = 1e-12


def orpo(subject: LoadedSubject, batch: Batch, residual: torch.Tensor, *, beta: float) -> torch.Tensor:
    """Return the chosen completions' loss plus beta times the odds-ratio loss, in nats (equations 3, 4, 6, 7).

    The odds are P / (1 - P), P the geometric mean of a completion's token probabilities. The first part is the mean
    over the chosen completions' tokens, as in sft.

    Parameters
    ----------
    residual : (n_tokens, d_in)
        The adapted residual stream of the batch's tokens.

    Raises
    ------
    InputError
        The batch holds no pairs.
    """
    total, length = row_log_probabilities(subject, need_pairs(batch, "orpo"), residual)
    chosen, rejected = (log_odds(part) for part in (total / length).chunk(2))
    supervised = -total.chunk(2)[0].sum() / length.chunk(2)[0].sum()
    return supervised - beta * logsigmoid(chosen - rejected).mean()


def log_odds(log_probability: torch.Tensor) -> torch.Tensor:
    """Return log(P / (1 - P)) of log P < 0, finite where P rounds to 1."""
    return log_probability - torch.log(-torch.expm1(log_probability.clamp(max=-TINY)))


Adapt = Callable[[Batch], torch.Tensor]
Objective = Callable[[LoadedSubject, Batch, torch.Tensor], torch.Tensor]
Rows = CachedRows | PreferenceRows


def make_objective(options: config.Adapter) -> Objective:
    """Return the function (subject, batch, adapted residual stream) -> scalar loss that an adapter is trained on."""
    objective = OBJECTIVES[options.objective]
    if options.objective_settings:
        objective = partial(objective, **options.objective_settings)
    if not options.kl_weight:
        return objective
    from isaerft.training.objectives import divergence

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
