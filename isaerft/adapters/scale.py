"""scale: each latent turned up or down where it fires, as IA3 does to keys and values (Liu et al. 2022)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from isaerft.adapters.elementwise import ElementwiseAdapter
from isaerft.registry import ADAPTERS


@ADAPTERS("scale")
class Scale(ElementwiseAdapter):
    """f' = f * (1 + s), with s of shape (d_sae,)."""

    kind = "scale"

    def __init__(self, d_sae: int, **bounds: Any) -> None:
        super().__init__(d_sae, **bounds)
        self.scale = nn.Parameter(torch.zeros(d_sae))

    def slope(self) -> torch.Tensor:
        """Return s, (d_sae,)."""
        return self.scale

    def writing_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return s."""
        return (self.scale,)
