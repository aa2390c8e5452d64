"""What bias, scale, affine and lerp share: each latent changes by itself, by an offset and in proportion to itself.

bias: a learned steering pattern, one number per latent added at every token.

scale: each latent turned up or down where it fires, as IA3 does to keys and values (Liu et al. 2022).

affine: bias and scale together.

lerp: each latent drawn towards a learned value, by a learned share of the way.

A latent that is to be held at one value, whatever the text, needs a lerp: a bias only adds, a scale only multiplies.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from isaerft.adapters.base import LatentAdapter, Shift
from isaerft.errors import InputError, shown
from isaerft.subjects.dictionary import Codes


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


TARGET = 1.0


class Lerp(ElementwiseAdapter):
    """f' = f + a * (t - f), with share a (0 at first) and target t of shape (d_sae,).

    Parameters
    ----------
    target : float
        Where every t starts, in the activations' units.

    Notes
    -----
    The loss' gradient on t is a times that on f', so t stands still while a = 0. The gradient on a is (t - f) times
    that on f': a moves at the first step wherever f differs from t, and t from the second on. With targets that start
    at 0 the share of a latent that does not fire would never move; hence they start at `target`.
    """

    kind = "lerp"

    def __init__(self, d_sae: int, *, target: float = TARGET, **bounds: Any) -> None:
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

        Of an activation of 1, as other adapters say, it would be a (t - 1): next to nothing, for targets start at 1.
        """
        return self.offset().detach()

    def writing_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return a: where it is 0, the target does nothing."""
        return (self.weight,)

    def silence(self, latents: torch.Tensor) -> None:
        """Set a and t of `latents`, (d_sae,) bool, to 0."""
        super().silence(latents)
        with torch.no_grad():
            self.target[latents] = 0

    def options(self) -> dict[str, Any]:
        """Return where the targets start, and the bounds."""
        return super().options() | {"target": self.start}
