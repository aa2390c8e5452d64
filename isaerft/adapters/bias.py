"""bias: a learned steering pattern, one number per latent added at every token."""

from __future__ import annotations

import torch
from torch import nn

from isaerft.adapters.base import LatentAdapter
from isaerft.adapters.shift import Shift
from isaerft.registry import ADAPTERS
from isaerft.subjects.codes import Codes


@ADAPTERS("bias")
class Bias(LatentAdapter):
    """f' = f + b, with b of shape (d_sae,) in the activations' units."""

    kind = "bias"

    def __init__(self, d_sae: int) -> None:
        super().__init__(d_sae)
        self.bias = nn.Parameter(torch.zeros(d_sae))

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """Return the activations (..., d_sae) with the bias added."""
        return activations + self.bias

    def shift(self, codes: Codes) -> Shift:
        """Return the bias: every token changes alike."""
        return Shift(codes, constant=self.bias)

    def latent_parameter(self) -> torch.Tensor:
        """Return b, (d_sae,)."""
        return self.bias.detach()
