"""Bounds that keep changed activations where an SAE's own could lie, and leave the identity exact."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from isaerft.errors import InputError, shown


@dataclass(frozen=True)
class Bounds:
    """Where changed activations f' may lie.

    Attributes
    ----------
    nonnegative : bool
        f' >= 0, as every activation of a ReLU-like SAE is.
    clamp : float or None
        |f'| <= clamp, in the activations' units.

    Notes
    -----
    An activation that already lies outside may stay where it is but not move further out, so that no change at all is
    always allowed. Gradients reach a parameter as long as f' is inside or on its bound.
    """

    nonnegative: bool = False
    clamp: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.nonnegative, bool):
            raise InputError(f"adapter option nonnegative = {shown(self.nonnegative)}", allowed="true, false")
        is_number = isinstance(self.clamp, int | float) and not isinstance(self.clamp, bool)
        if self.clamp is not None and not (is_number and self.clamp > 0):
            raise InputError(f"adapter option clamp = {shown(self.clamp)}", allowed="a number above 0")

    def __bool__(self) -> bool:
        return self.nonnegative or self.clamp is not None

    def limit(self, change: torch.Tensor, activations: torch.Tensor) -> torch.Tensor:
        """Return the part of `change` (..., n) that keeps `activations` (..., n) plus it inside."""
        if not self:
            return change
        highest = None if self.clamp is None else torch.relu(self.clamp - activations)
        below = activations if self.nonnegative else activations + self.clamp
        return torch.clamp(change, min=-torch.relu(below), max=highest)

    def options(self) -> dict[str, bool | float]:
        """Return the options that are set."""
        return {name: value for name, value in vars(self).items() if value}
