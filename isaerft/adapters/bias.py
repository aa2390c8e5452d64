"""bias: a learned steering pattern, one number per latent added at every token."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from isaerft.adapters.elementwise import ElementwiseAdapter
from isaerft.registry import ADAPTERS


@ADAPTERS("bias")
class Bias(ElementwiseAdapter):
    """f' = f + b, with b of shape (d_sae,) in the activations' units."""

    kind = "bias"

    def __init__(self, d_sae: int, **bounds: Any) -> None:
        super().__init__(d_sae, **bounds)
        self.bias = nn.Parameter(torch.zeros(d_sae))

    def offset(self) -> torch.Tensor:
        """Return b, (d_sae,)."""
        return self.bias

    def writing_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return b."""
        return (self.bias,)
