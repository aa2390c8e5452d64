"""sft: supervised fine-tuning on completions."""

from __future__ import annotations

import torch

from isaerft.registry import OBJECTIVES
from isaerft.subjects.cache import Batch, completion_losses
from isaerft.subjects.load import LoadedSubject


@OBJECTIVES("sft")
def sft(subject: LoadedSubject, batch: Batch, residual: torch.Tensor) -> torch.Tensor:
    """Return the mean loss of the completion tokens, in nats per token.

    Parameters
    ----------
    residual : (n_tokens, d_in)
        The adapted residual stream of the batch's tokens.
    """
    return completion_losses(subject, batch, residual).mean()
