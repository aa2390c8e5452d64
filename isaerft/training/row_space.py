"""Train a constant shift of all latents at a cost that does not depend on their number.

A bias b of `d_sae` numbers reaches the model only as v = b W, with W the decoder. Let g be the gradient with respect
to v. Plain SGD with momentum moves b by multiples of W g alone, so at every step b = W w for some w of `d_model`
numbers (plus b's start), and w moves by g where b moves by W g. Then v = w (W^T W), with W^T W computed once. The steps
are those of SGD on b itself; b is computed at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from isaerft import config
from isaerft.adapters.base import LatentAdapter, adapted
from isaerft.adapters.sparsity import Dense
from isaerft.subjects.cache import Batch
from isaerft.subjects.codes import Codes
from isaerft.subjects.load import LoadedSubject
from isaerft.training.objectives import Adapt


class RowSpace(nn.Module):
    """An adapter whose constant is trained through coordinates; called with a batch it returns `adapted`.

    Parameters
    ----------
    adapter : LatentAdapter
    constant : (d_sae,)
        The adapter's parameter that is the constant of its shift and is used nowhere else.
    subject : LoadedSubject

    Attributes
    ----------
    weights : (d_model,)
        Coordinates w of the constant's change so far. Their gradient is that with respect to v, which makes SGD on
        them SGD on the constant.
    """

    def __init__(self, adapter: LatentAdapter, constant: nn.Parameter, subject: LoadedSubject) -> None:
        super().__init__()
        self.adapter, self.constant = adapter, constant
        constant.requires_grad_(False)
        self._subject = subject
        self._decoder = decoder = subject.dictionary.decoder
        self._gram = decoder.T @ decoder
        self._start = constant.detach() @ decoder
        self.weights = nn.Parameter(decoder.new_zeros(decoder.shape[1]))

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the batch's residual stream under the adapter, (n_tokens, d_model)."""
        others = replace(self.adapter.shift(batch.codes), constant=None).residual(self._decoder)
        change: torch.Tensor = _Coordinates.apply(self.weights, self._gram)
        written = self._start + change
        return batch.residual + self._subject.reaching(batch.written, others + written).to(batch.residual.dtype)

    def constant_gradient_norm(self) -> torch.Tensor:
        """Return the norm that the gradient of the constant itself would have, a scalar."""
        gradient = self.weights.grad
        if gradient is None:
            return self._gram.new_zeros(())
        return (gradient @ self._gram @ gradient).clamp_min(0).sqrt()

    @contextmanager
    def written_back(self) -> Iterator[None]:
        """Give the adapter the parameter that training has reached inside the block; training goes on unchanged."""
        start = self.constant.detach().clone()
        with torch.no_grad():
            self.constant.add_(self._decoder @ self.weights)
            yield
            self.constant.copy_(start)

    def write_back(self) -> None:
        """Add the change that the coordinates describe to the adapter's parameter, and make it trainable again."""
        with torch.no_grad():
            self.constant.add_(self._decoder @ self.weights)
            self.weights.zero_()
        self.constant.requires_grad_(True)


class _Coordinates(torch.autograd.Function):
    """v = w (W^T W); its gradient is passed to w unchanged, since b moves by W g when w moves by g."""

    @staticmethod
    def forward(ctx: Any, weights: torch.Tensor, gram: torch.Tensor) -> torch.Tensor:
        return weights @ gram

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient, None


@contextmanager
def trainable(
    adapter: LatentAdapter, subject: LoadedSubject, options: config.Adapter, sparsity: Dense | None = None
) -> Iterator[tuple[nn.Module, Adapt]]:
    """Give the module to train in an adapter's place, and how it adapts a batch; the adapter is up to date afterwards.

    The module is the adapter itself, or its `RowSpace` where SGD trains a constant of all latents.
    """
    whole = options.optimizer == "sgd" and options.sparsity is None
    constant = constant_parameter(adapter) if whole else None
    if constant is None:
        weigh = None if sparsity is None else sparsity.weigh
        yield adapter, lambda batch: adapted(subject, adapter, batch, weigh)
        return
    module = RowSpace(adapter, constant, subject)
    try:
        yield module, module
    finally:
        module.write_back()


def constant_parameter(adapter: LatentAdapter) -> nn.Parameter | None:
    """Return the parameter that is the constant of an adapter's shift and is used nowhere else, if any."""
    device = next(adapter.parameters()).device
    nothing = torch.empty(0, device=device)
    no_tokens = Codes(nothing.long(), nothing, torch.zeros(1, dtype=torch.int64, device=device), adapter.d_sae)
    shift = adapter.shift(no_tokens)
    constant = next((parameter for parameter in adapter.parameters() if parameter is shift.constant), None)
    parts = [shift.entries, shift.dense, *(shift.factors or ())]
    others = [part.sum() for part in parts if part is not None and part.requires_grad]
    if constant is None or not others:
        return constant
    (gradient,) = torch.autograd.grad(torch.stack(others).sum(), constant, allow_unused=True)
    return constant if gradient is None else None
