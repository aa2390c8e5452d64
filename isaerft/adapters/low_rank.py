"""low_rank: a few directions read from all latents, and a few patterns of latents written in return."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from isaerft.adapters.base import LatentAdapter, count_option, norms
from isaerft.adapters.shift import Shift
from isaerft.registry import ADAPTERS
from isaerft.subjects.codes import Codes

RANK = 8


@ADAPTERS("low_rank")
class LowRank(LatentAdapter):
    """f' = f + f D U, with D of shape (d_sae, rank), drawn at random, and U (rank, d_sae), 0 at first.

    LoRA (Hu et al. 2021) in the basis of the latents.

    Parameters
    ----------
    rank : int
        Number of directions.
    """

    kind = "low_rank"

    def __init__(self, d_sae: int, *, rank: int = RANK, **bounds: Any) -> None:
        super().__init__(d_sae, **bounds)
        self.rank = count_option(self.kind, "rank", rank, 1)
        self.down = nn.Parameter(torch.zeros(d_sae, rank))
        self.up = nn.Parameter(torch.zeros(rank, d_sae))

    def reset(self, seed: int) -> None:
        """Draw D; what a token reads then has about the norm of its activations."""
        start = torch.randn(self.down.shape, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            self.down.copy_(start / self.rank**0.5)

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """Return the changed activations of activations (..., d_sae)."""
        return activations + self.bounds.limit(activations @ self.down @ self.up, activations)

    def shift(self, codes: Codes) -> Shift:
        """Return f D and U; with bounds their product, which is as wide as the dictionary."""
        read = codes.combine(self.down)
        if not self.bounds:
            return Shift(codes, factors=(read, self.up))
        return Shift(codes, dense=self.bounds.limit(read @ self.up, codes.dense()))

    def latent_parameter(self) -> torch.Tensor:
        """Return the norm of each latent's column of U, (d_sae,), signed as its change where all latents fire alike."""
        return torch.copysign(norms((self.up,)), (self.down.sum(0) @ self.up).detach())

    def writing_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return U."""
        return (self.up,)

    def options(self) -> dict[str, Any]:
        """Return the rank, and the bounds."""
        return super().options() | {"rank": self.rank}
