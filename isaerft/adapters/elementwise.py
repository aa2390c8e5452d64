"""What bias, scale, affine and lerp share: each latent changes by itself, by an offset and in proportion to itself."""

from __future__ import annotations

import torch

from isaerft.adapters.base import LatentAdapter
from isaerft.adapters.shift import Shift
from isaerft.subjects.codes import Codes


class ElementwiseAdapter(LatentAdapter):
    """f' = f + c + s * f with c and s of shape (d_sae,), which a subclass makes of its parameters.

    The cost of a step follows the number of active latents, and with an offset also one product c @ W_dec.
    """

    def offset(self) -> torch.Tensor | None:
        """Return c, (d_sae,), in the activations' units; None where there is none."""
        return None

    def slope(self) -> torch.Tensor | None:
        """Return s, (d_sae,), without unit; None where there is none."""
        return None

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """Return the changed activations of activations (..., d_sae)."""
        return activations + self._change(activations, self.offset(), self.slope())

    def shift(self, codes: Codes) -> Shift:
        """Return what every token's latents change by, and what the active ones change by beyond that."""
        offset, slope = self.offset(), self.slope()
        if not self.bounds:
            return Shift(codes, constant=offset, entries=None if slope is None else codes.values * slope[codes.indices])
        at_active = (None if part is None else part[codes.indices] for part in (offset, slope))
        entries = self._change(codes.values, *at_active)
        if offset is None:
            return Shift(codes, entries=entries)
        constant = self.bounds.limit(offset, torch.zeros_like(offset))
        return Shift(codes, constant=constant, entries=entries - constant[codes.indices])

    def _change(
        self, activations: torch.Tensor, offset: torch.Tensor | None, slope: torch.Tensor | None
    ) -> torch.Tensor:
        change = torch.zeros_like(activations) if slope is None else activations * slope
        return self.bounds.limit(change if offset is None else change + offset, activations)

    def latent_parameter(self) -> torch.Tensor:
        """Return c + s, (d_sae,): how far each latent moves at activation 1, bounds apart."""
        return sum(part.detach() for part in (self.offset(), self.slope()) if part is not None)
