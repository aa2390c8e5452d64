"""lerp: each latent drawn towards a learned value, by a learned share of the way.

A latent that is to be held at one value, whatever the text, needs a lerp: a bias only adds, a scale only multiplies.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from isaerft.adapters.elementwise import ElementwiseAdapter
from isaerft.errors import InputError, shown
from isaerft.registry import ADAPTERS

TARGET = 1.0


@ADAPTERS("lerp")
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
