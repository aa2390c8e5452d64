"""The distance from the unadapted model, as an addition to any objective."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from isaerft.subjects.cache import Batch, completion_logits
from isaerft.subjects.load import LoadedSubject


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
