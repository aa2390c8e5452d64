"""scale: each latent turned up or down where it fires, as IA3 does to keys and values (Liu et al. 2022)."""

from __future__ import annotations

import torch
from torch import nn

from isaerft.adapters.base import LatentAdapter
from isaerft.adapters.shift import Shift
from isaerft.registry import ADAPTERS
from isaerft.subjects.codes import Codes


@ADAPTERS("scale")
class Scale(LatentAdapter):
    """f' = f * (1 + s), with s of shape (d_sae,)."""

    kind = "scale"

    def __init__(self, d_sae: int) -> None:
        super().__init__(d_sae)
        self.scale = nn.Parameter(torch.zeros(d_sae))

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """Return the activations (..., d_sae) scaled."""
        return activations + activations * self.scale

    def shift(self, codes: Codes) -> Shift:
        """Return f * s at the active latents; the others do not change."""
        return Shift(codes, entries=codes.values * self.scale[codes.indices])

    def latent_parameter(self) -> torch.Tensor:
        """Return s, (d_sae,)."""
        return self.scale.detach()
