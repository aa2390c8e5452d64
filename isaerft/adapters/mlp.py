"""mlp: a residual feed-forward network on the latents, which can make one latent's change depend on others."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn.functional import gelu

from isaerft.adapters.base import LatentAdapter, count_option, norms
from isaerft.adapters.shift import Shift
from isaerft.registry import ADAPTERS
from isaerft.subjects.codes import Codes

DEPTH, WIDTH = 1, 64


@ADAPTERS("mlp")
class Mlp(LatentAdapter):
    """f' = f + h W + b, with h the last of `depth` hidden layers of `width` gelu units; W and b start at 0.

    Parameters
    ----------
    depth : int
        Hidden layers; 0 makes h = f and the change linear, with d_sae * d_sae weights.
    width : int
        Units of a hidden layer.
    """

    kind = "mlp"

    def __init__(self, d_sae: int, *, depth: int = DEPTH, width: int = WIDTH, **bounds: Any) -> None:
        super().__init__(d_sae, **bounds)
        self.depth = count_option(self.kind, "depth", depth, 0)
        self.width = count_option(self.kind, "width", width, 1)
        sizes = [d_sae, *[width] * depth]
        self.hidden = nn.ParameterList(torch.zeros(one, other) for one, other in pairwise(sizes))
        self.hidden_bias = nn.ParameterList(torch.zeros(size) for size in sizes[1:])
        self.output = nn.Parameter(torch.zeros(sizes[-1], d_sae))
        self.output_bias = nn.Parameter(torch.zeros(d_sae))

    def reset(self, seed: int) -> None:
        """Draw the hidden layers; a token's hidden units then have about the norm of its activations."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in self.hidden:
                weight.copy_(torch.randn(weight.shape, generator=generator) / self.width**0.5)

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """Return the changed activations of activations (..., d_sae)."""
        last = self._above(activations @ self.hidden[0]) if self.depth else activations
        return activations + self.bounds.limit(last @ self.output + self.output_bias, activations)

    def shift(self, codes: Codes) -> Shift:
        """Return h and W, and b; with bounds, or without a hidden layer, as wide as the dictionary."""
        if self.depth:
            last = self._above(codes.combine(self.hidden[0]))
            if not self.bounds:
                return Shift(codes, constant=self.output_bias, factors=(last, self.output))
            change = last @ self.output
        else:
            change = codes.combine(self.output)
        if not self.bounds:
            return Shift(codes, constant=self.output_bias, dense=change)
        return Shift(codes, dense=self.bounds.limit(change + self.output_bias, codes.dense()))

    def _above(self, first: torch.Tensor) -> torch.Tensor:
        """Return the last hidden layer of the first one's products f W_1, (..., width)."""
        state = gelu(first + self.hidden_bias[0])
        for weight, bias in zip(self.hidden[1:], self.hidden_bias[1:], strict=True):
            state = gelu(state @ weight + bias)
        return state

    def latent_parameter(self) -> torch.Tensor:
        """Return the norm of what writes each latent (its column of W, its b), (d_sae,).

        Signed as its change where all latents fire at 1.
        """
        with torch.no_grad():
            ones = self.output.new_ones(self.d_sae)
            last = self._above(ones @ self.hidden[0]) if self.depth else ones
            return torch.copysign(norms(self.writing_parameters()), last @ self.output + self.output_bias)

    def writing_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return W and b."""
        return self.output, self.output_bias

    def options(self) -> dict[str, Any]:
        """Return depth and width, and the bounds."""
        return super().options() | {"depth": self.depth, "width": self.width}
