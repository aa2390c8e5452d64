"""simpo: simple preference optimization (Meng et al. 2024, arXiv 2405.14734)."""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid

from isaerft.registry import OBJECTIVES
from isaerft.subjects.cache import Batch
from isaerft.subjects.load import LoadedSubject
from isaerft.training.pairs import need_pairs, row_log_probabilities


@OBJECTIVES("simpo")
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
