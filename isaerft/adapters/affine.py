"""affine: bias and scale together."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from isaerft.adapters.elementwise import ElementwiseAdapter
from isaerft.registry import ADAPTERS


@ADAPTERS("affine")
class Affine(ElementwiseAdapter):
    """f' = f * (1 + s) + b, with s and b of shape (d_sae,)."""

    kind = "affine"

    def __init__(self, d_sae: int, **bounds: Any) -> None:
        super().__init__(d_sae, **bounds)
        self.bias = nn.Parameter(torch.zeros(d_sae))
        self.scale = nn.Parameter(torch.zeros(d_sae))

    def offset(self) -> torch.Tensor:
        """Return b, (d_sae,)."""
        return self.bias

    def slope(self) -> torch.Tensor:
        """Return s, (d_sae,)."""
        return self.scale

    def writing_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return b and s."""
        return self.bias, self.scale
