"""orpo: odds ratio preference optimization (Hong et al. 2024, arXiv 2403.07691)."""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid

from isaerft.registry import OBJECTIVES
from isaerft.subjects.cache import Batch
from isaerft.subjects.load import LoadedSubject
from isaerft.training.pairs import need_pairs, row_log_probabilities

TINY = 1e-12


@OBJECTIVES("orpo")
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
