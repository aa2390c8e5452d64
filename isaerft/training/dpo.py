"""dpo: direct preference optimization (Rafailov et al. 2023, arXiv 2305.18290)."""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid

from isaerft.registry import OBJECTIVES
from isaerft.subjects.cache import Batch
from isaerft.subjects.load import LoadedSubject
from isaerft.training.pairs import need_pairs, row_log_probabilities


@OBJECTIVES("dpo")
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
