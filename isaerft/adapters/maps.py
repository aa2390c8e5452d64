"""Adapters in which latents change each other: a low-rank map and a feed-forward network."""

from __future__ import annotations

from itertools import pairwise
from typing import Unpack

import torch
from torch import nn
from torch.nn.functional import gelu

from isaerft.adapters.base import LatentAdapter, check_count, norms
from isaerft.adapters.shift import BoundOptions, Shift
from isaerft.errors import InputError, shown
from isaerft.subjects.codes import Codes

RANK = 8


class LowRank(LatentAdapter):
    """f' = f + f D U, with D (d_sae, rank) drawn at random and U (rank, d_sae) 0 at first.

    LoRA (Hu et al. 2021) in the basis of the latents.

    Parameters
    ----------
    rank : int
        Number of directions.
    """

    kind = "low_rank"

    def __init__(self, d_sae: int, *, rank: int = RANK, **bounds: Unpack[BoundOptions]) -> None:
        super().__init__(d_sae, **bounds)
        self.rank = check_count(self.kind, "rank", rank, 1, max(d_sae, RANK))
        self.down = nn.Parameter(torch.zeros(d_sae, rank))
        self.up = nn.Parameter(torch.zeros(rank, d_sae))

    def reset(self, seed: int) -> None:
        """Draw D, so that f D has about the norm of f."""
        start = torch.randn(self.down.shape, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            self.down.copy_(start / self.rank**0.5)

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """Return the changed activations of activations (..., d_sae)."""
        return activations + self.bounds.limit(activations @ self.down @ self.up, activations)

    def shift(self, codes: Codes) -> Shift:
        """Return f D and U as factors; with bounds the dense change."""
        read = codes.combine(self.down)
        if not self.bounds:
            return Shift(codes, factors=(read, self.up))
        return Shift(codes, dense=self.bounds.limit(read @ self.up, codes.dense()))

    def latent_parameter(self) -> torch.Tensor:
        """Return the norm of each latent's column of U, (d_sae,), signed as its change if all latents fire at 1."""
        return torch.copysign(norms((self.up,)), (self.down.sum(0) @ self.up).detach())

    def writing_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return U."""
        return (self.up,)

    def options(self) -> dict[str, object]:
        """Return rank and bounds."""
        return super().options() | {"rank": self.rank}


DEPTH, WIDTH = 1, 64
# A saved adapter's file must not ask for more than memory holds.
MOST_DEPTH, MOST_WIDTH = 64, 2**16


class Mlp(LatentAdapter):
    """f' = f + h W + b, with h the last of `depth` hidden layers of `width` gelu units; W and b start at 0.

    Parameters
    ----------
    depth : int
        Hidden layers; 0 makes h = f and the change linear, with d_sae * d_sae weights.
    width : int
        Units of a hidden layer.
    bias : bool
        Whether there is b; without it, nothing changes where nothing is read.
    """

    kind = "mlp"

    def __init__(
        self, d_sae: int, *, depth: int = DEPTH, width: int = WIDTH, bias: bool = True, **bounds: Unpack[BoundOptions]
    ) -> None:
        super().__init__(d_sae, **bounds)
        self.depth = check_count(self.kind, "depth", depth, 0, MOST_DEPTH)
        self.width = check_count(self.kind, "width", width, 1, MOST_WIDTH)
        if not isinstance(bias, bool):
            raise InputError(f"adapter {self.kind!r}: bias = {shown(bias)}", allowed="true, false")
        sizes = [d_sae, *[width] * depth]
        self.hidden = nn.ParameterList(torch.zeros(one, other) for one, other in pairwise(sizes))
        self.hidden_bias = nn.ParameterList(torch.zeros(size) for size in sizes[1:])
        self.output = nn.Parameter(torch.zeros(sizes[-1], d_sae))
        self.output_bias = nn.Parameter(torch.zeros(d_sae)) if bias else None

    def reset(self, seed: int) -> None:
        """Draw the hidden layers, so that hidden units have about the norm of the activations."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in self.hidden:
                weight.copy_(torch.randn(weight.shape, generator=generator) / self.width**0.5)

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """Return the changed activations of activations (..., d_sae)."""
        last = self._above(activations @ self.hidden[0]) if self.depth else activations
        return activations + self.bounds.limit(self._written(last @ self.output), activations)

    def shift(self, codes: Codes) -> Shift:
        """Return h and W as factors and b as constant; with bounds, or without a hidden layer, a dense change."""
        if self.depth:
            last = self._above(codes.combine(self.hidden[0]))
            if not self.bounds:
                return Shift(codes, constant=self.output_bias, factors=(last, self.output))
            change = last @ self.output
        else:
            change = codes.combine(self.output)
        if not self.bounds:
            return Shift(codes, constant=self.output_bias, dense=change)
        return Shift(codes, dense=self.bounds.limit(self._written(change), codes.dense()))

    def _written(self, change: torch.Tensor) -> torch.Tensor:
        return change if self.output_bias is None else change + self.output_bias

    def _above(self, first: torch.Tensor) -> torch.Tensor:
        """Return the last hidden layer, given the first layer's products f W_1, (..., width)."""
        state = gelu(first + self.hidden_bias[0])
        for weight, bias in zip(self.hidden[1:], self.hidden_bias[1:], strict=True):
            state = gelu(state @ weight + bias)
        return state

    def latent_parameter(self) -> torch.Tensor:
        """Return the norm of each latent's column of W and entry of b, (d_sae,).

        Its sign is that of the latent's change if all latents fire at 1.
        """
        with torch.no_grad():
            ones = self.output.new_ones(self.d_sae)
            last = self._above(ones @ self.hidden[0]) if self.depth else ones
            return torch.copysign(norms(self.writing_parameters()), self._written(last @ self.output))

    def writing_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return W and b."""
        return (self.output,) if self.output_bias is None else (self.output, self.output_bias)

    def reading_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return W where it reads latents; hidden layers start at random, so their size does not tell what is read."""
        return (self.output,) if self.depth == 0 else ()

    def options(self) -> dict[str, object]:
        """Return depth, width, the absence of b, and bounds."""
        without = {} if self.output_bias is not None else {"bias": False}
        return super().options() | {"depth": self.depth, "width": self.width} | without
