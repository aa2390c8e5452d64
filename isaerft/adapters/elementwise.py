"""Elementwise adapters: each latent changes by an offset and in proportion to itself.

`Bias` adds a number to each latent at every token. `Scale` turns each latent up or down where it fires, as IA3 does
with keys and values (Liu et al. 2022). `Affine` does both. `Lerp` moves each latent toward a learned value: holding a
latent at one value, whatever the text, takes a lerp, since a bias only adds and a scale only multiplies.
"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import nn

from isaerft.adapters.base import LatentAdapter
from isaerft.adapters.shift import BoundOptions, Shift
from isaerft.errors import InputError, shown
from isaerft.subjects.codes import Codes


class ElementwiseAdapter(LatentAdapter):
    """f' = f + c + s * f with c and s of shape (d_sae,), which a subclass derives from its parameters.

    A step costs time in proportion to the active latents, and with an offset one product c @ W_dec.
    """

    def offset(self) -> torch.Tensor | None:
        """Return c, (d_sae,), in the activations' units, or None."""
        return None

    def slope(self) -> torch.Tensor | None:
        """Return s, (d_sae,), dimensionless, or None."""
        return None

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """Return the changed activations of activations (..., d_sae)."""
        return activations + self._change(activations, self.offset(), self.slope())

    def shift(self, codes: Codes) -> Shift:
        """Return the change at every token as constant, and what active latents change beyond it as entries."""
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
        """Return c + s, (d_sae,): how far each latent moves at activation 1, without bounds."""
        parts = [part.detach() for part in (self.offset(), self.slope()) if part is not None]
        return sum(parts, start=torch.zeros_like(parts[0]))


class Bias(ElementwiseAdapter):
    """f' = f + b, with b of shape (d_sae,) in the activations' units."""

    kind = "bias"

    def __init__(self, d_sae: int, **bounds: Unpack[BoundOptions]) -> None:
        super().__init__(d_sae, **bounds)
        self.bias = nn.Parameter(torch.zeros(d_sae))

    def offset(self) -> torch.Tensor:
        """Return b, (d_sae,)."""
        return self.bias

    def writing_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return b."""
        return (self.bias,)


class Scale(ElementwiseAdapter):
    """f' = f * (1 + s), with s of shape (d_sae,)."""

    kind = "scale"

    def __init__(self, d_sae: int, **bounds: Unpack[BoundOptions]) -> None:
        super().__init__(d_sae, **bounds)
        self.scale = nn.Parameter(torch.zeros(d_sae))

    def slope(self) -> torch.Tensor:
        """Return s, (d_sae,)."""
        return self.scale

    def writing_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return s."""
        return (self.scale,)


class Affine(ElementwiseAdapter):
    """f' = f * (1 + s) + b, with s and b of shape (d_sae,)."""

    kind = "affine"

    def __init__(self, d_sae: int, **bounds: Unpack[BoundOptions]) -> None:
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


TARGET = 1.0


class Lerp(ElementwiseAdapter):
    """f' = f + a * (t - f), with weight a (0 at first) and target t of shape (d_sae,).

    Parameters
    ----------
    target : float
        Start of every t, in the activations' units.

    Notes
    -----
    The loss's gradient with respect to t is a times that for f', so t does not move while a = 0. The gradient with
    respect to a is (t - f) times that for f', so a moves at the first step wherever f differs from t, and t from the
    second. If targets started at 0, the weight of a latent that does not fire would never move.
    """

    kind = "lerp"

    def __init__(self, d_sae: int, *, target: float = TARGET, **bounds: Unpack[BoundOptions]) -> None:
        super().__init__(d_sae, **bounds)
        if not isinstance(target, int | float) or isinstance(target, bool):
            raise InputError(f"adapter 'lerp': target = {shown(target)}", allowed="a number")
        self.start = float(target)
        self.weight = nn.Parameter(torch.zeros(d_sae))
        self.target = nn.Parameter(torch.full((d_sae,), self.start))

    def offset(self) -> torch.Tensor:
        """Return a * t, (d_sae,)."""
        return self.weight * self.target

    def slope(self) -> torch.Tensor:
        """Return -a, (d_sae,)."""
        return -self.weight

    def latent_parameter(self) -> torch.Tensor:
        """Return a * t, (d_sae,): how far a latent that does not fire moves.

        At activation 1, as for the other adapters, it would be a (t - 1): close to 0, since targets start at 1.
        """
        return self.offset().detach()

    def writing_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return a: where it is 0, the target has no effect."""
        return (self.weight,)

    def silence(self, latents: torch.Tensor) -> None:
        """Set a and t of `latents`, (d_sae,) bool, to 0."""
        super().silence(latents)
        with torch.no_grad():
            self.target[latents] = 0

    def options(self) -> dict[str, object]:
        """Return the start of the targets, and the bounds."""
        return super().options() | {"target": self.start}
