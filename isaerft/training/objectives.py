"""Training objectives: losses of a batch under an adapter.

An objective is a function of a subject, a batch and its adapted residual stream that returns a scalar, the mean over
the batch's terms (completion tokens or pairs). Its options are keyword arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch.nn.functional import logsigmoid

from isaerft import config
from isaerft.registry import OBJECTIVES
from isaerft.subjects.cache import Batch, completion_logits, completion_losses, joined_batch
from isaerft.subjects.load import LoadedSubject
from isaerft.training.pairs import need_pairs, row_log_probabilities

Adapt = Callable[[Batch], torch.Tensor]
"""Maps a batch to its adapted residual stream, (n_tokens, d_in)."""

Objective = Callable[[LoadedSubject, Batch, torch.Tensor], torch.Tensor]
"""Maps subject, batch and adapted residual stream (n_tokens, d_in) to a scalar loss."""

Objectives = Callable[[LoadedSubject, Sequence[Batch], Sequence[torch.Tensor]], list[torch.Tensor]]
"""Maps subject and the batches of several trainings, with their adapted residual streams, to each one's loss."""

TINY = 1e-12


def make_objective(options: config.Adapter) -> Objective:
    """Return an adapter's whole objective: the registered one with its options, plus its KL penalty."""
    objective: Objective = OBJECTIVES[options.objective]
    if options.objective_settings:
        objective = partial(objective, **options.objective_settings)
    if not options.kl_weight:
        return objective

    def with_kl(subject: LoadedSubject, batch: Batch, residual: torch.Tensor) -> torch.Tensor:
        return objective(subject, batch, residual) + options.kl_weight * divergence(subject, batch, residual)

    return with_kl


def make_objectives(options: config.Adapter) -> Objectives:
    """Return an adapter's whole objective for several trainings at once; the completion loss takes one pass for all."""
    return sft_together if is_completion_loss(options) else one_by_one(make_objective(options))


def one_by_one(objective: Objective) -> Objectives:
    """Return an objective for several trainings that runs the model once for each."""
    return lambda subject, batches, residuals: [
        objective(subject, batch, residual) for batch, residual in zip(batches, residuals, strict=True)
    ]


def is_completion_loss(options: config.Adapter) -> bool:
    """Tell whether the whole objective is the mean loss over completion tokens."""
    return options.objective == "sft" and not options.kl_weight


def sft(subject: LoadedSubject, batch: Batch, residual: torch.Tensor) -> torch.Tensor:
    """Return the mean loss of the completion tokens, in nats per token: supervised fine-tuning.

    Parameters
    ----------
    residual : (n_tokens, d_in)
        The adapted residual stream of the batch's tokens.
    """
    return completion_losses(subject, batch, residual).mean()


def sft_together(
    subject: LoadedSubject, batches: Sequence[Batch], residuals: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Return `sft` of each batch, from one pass of the model over the rows of all."""
    losses = completion_losses(subject, joined_batch(batches), torch.cat(list(residuals)))
    return [own.mean() for own in losses.split([batch.n_terms for batch in batches])]


def dpo(subject: LoadedSubject, batch: Batch, residual: torch.Tensor, *, beta: float) -> torch.Tensor:
    """Return the mean over pairs of -log sigmoid(beta * (r_chosen - r_rejected)), in nats.

    Direct preference optimization (Rafailov et al. 2023, arXiv 2305.18290), equation 7: r is a completion's
    log-probability minus that under the unadapted model.

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
    ratio = row_log_probabilities(subject, pairs, residual)[0] - pairs.base_log_probability
    chosen, rejected = ratio.chunk(2)
    return -logsigmoid(beta * (chosen - rejected)).mean()


def simpo(subject: LoadedSubject, batch: Batch, residual: torch.Tensor, *, beta: float, gamma: float) -> torch.Tensor:
    """Return the mean over pairs of -log sigmoid(beta * (p_chosen - p_rejected) - gamma), in nats.

    Simple preference optimization (Meng et al. 2024, arXiv 2405.14734), equation 6: p is the mean log-probability of a
    completion's tokens.

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


def orpo(subject: LoadedSubject, batch: Batch, residual: torch.Tensor, *, beta: float) -> torch.Tensor:
    """Return the chosen completions' loss plus beta times the odds-ratio loss, in nats.

    Odds ratio preference optimization (Hong et al. 2024, arXiv 2403.07691), equations 3, 4, 6 and 7. The odds are
    P / (1 - P), with P the geometric mean of a completion's token probabilities. The first term is the mean over the
    chosen completions' tokens, as in sft.

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
    """Return log(P / (1 - P)) given log P; finite where P rounds to 1."""
    return log_probability - torch.log(-torch.expm1(log_probability.clamp(max=-TINY)))


def divergence(subject: LoadedSubject, batch: Batch, residual: torch.Tensor) -> torch.Tensor:
    """Return the mean KL(adapted || unadapted model) of the next token over completion tokens, in nats per token.

    Exact, over the whole vocabulary: sum_v p(v) (log p(v) - log q(v)). It penalizes tokens that the adapted model says
    and the unadapted one would not. Of preference pairs, both completions count.

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
    """Run `model` with PEFT's layers disabled inside the block."""
    layers = [part for part in model.modules() if isinstance(part, BaseTunerLayer) and not part.disable_adapters]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
