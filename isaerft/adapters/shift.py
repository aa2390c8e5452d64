"""What an adapter does to the latents of some tokens, and the bounds it keeps.

Let delta be the change of the activations, (n_tokens, d_sae). A bias changes every token alike, a scale changes only
active latents, and a low-rank map writes a few patterns. `Shift` keeps that structure, so that no token needs a row as
wide as the dictionary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import torch

from isaerft.errors import InputError, shown
from isaerft.subjects.codes import Codes


class BoundOptions(TypedDict, total=False):
    """The options of `Bounds`, as every adapter takes them."""

    nonnegative: bool
    clamp: float | None


@dataclass(frozen=True)
class Bounds:
    """Bounds that keep changed activations f' where the SAE's own could lie.

    Attributes
    ----------
    nonnegative : bool
        f' >= 0, as every activation of a ReLU-like SAE is.
    clamp : float or None
        |f'| <= clamp, in the activations' units.

    Notes
    -----
    An activation that already lies outside may stay but not move further out, so the identity is always allowed.
    Gradients reach a parameter as long as f' is inside its bounds or on them.
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
        """Return `change` (..., n), cut so that `activations` (..., n) plus the change stays inside."""
        if not self:
            return change
        highest = None if self.clamp is None else torch.relu(self.clamp - activations)
        below = activations if self.nonnegative else activations + (self.clamp or 0.0)
        return torch.clamp(change, min=-torch.relu(below), max=highest)

    def options(self) -> dict[str, object]:
        """Return the options that are set."""
        return {name: value for name, value in vars(self).items() if value}


@dataclass(frozen=True)
class Shift:
    """A change of latent activations: the sum of its parts.

    Attributes
    ----------
    codes : Codes
        The activations that are changed.
    constant : (d_sae,) or None
        Added at every token.
    entries : (n_active,) or None
        Added at the active latents, in the order of ``codes.indices``.
    dense : (n_tokens, d_sae) or None
        Added at every token and latent.
    factors : (n_tokens, r) and (r, d_sae), or None
        Their product is added.
    """

    codes: Codes
    constant: torch.Tensor | None = None
    entries: torch.Tensor | None = None
    dense: torch.Tensor | None = None
    factors: tuple[torch.Tensor, torch.Tensor] | None = None

    def weighted(self, weights: torch.Tensor) -> Shift:
        """Return the shift with each latent's change multiplied by its entry of `weights` (d_sae,)."""
        return Shift(
            self.codes,
            constant=None if self.constant is None else self.constant * weights,
            entries=None if self.entries is None else self.entries * weights[self.codes.indices],
            dense=None if self.dense is None else self.dense * weights,
            factors=None if self.factors is None else (self.factors[0], self.factors[1] * weights),
        )

    def residual(self, decoder: torch.Tensor) -> torch.Tensor:
        """Return delta @ decoder: what reaches the residual stream, (n_tokens, d_in)."""
        result = decoder.new_zeros(self.codes.n_tokens, decoder.shape[1])
        if self.constant is not None:
            result = result + self.constant @ decoder
        if self.entries is not None:
            result = result + self.codes.combine(decoder, self.entries)
        if self.dense is not None:
            result = result + self.dense @ decoder
        if self.factors is not None:
            result = result + self.factors[0] @ (self.factors[1] @ decoder)
        return result

    def without(self, latents: torch.Tensor) -> Shift:
        """Return the shift with `latents`, (n,) int64, neutralized: they keep the activations that they had."""
        weights = torch.ones(self.codes.d_sae, device=self.codes.indices.device)
        weights[latents] = 0
        return self.weighted(weights)

    def total(self) -> torch.Tensor:
        """Return the sum of delta over tokens, (d_sae,)."""
        result = self.codes.values.new_zeros(self.codes.d_sae)
        if self.constant is not None:
            result = result + self.codes.n_tokens * self.constant
        if self.entries is not None:
            result = result + self.codes.sum_over_tokens(self.entries)
        if self.dense is not None:
            result = result + self.dense.sum(0)
        if self.factors is not None:
            result = result + self.factors[0].sum(0) @ self.factors[1]
        return result

    def against(self, decoder: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
        """Return the sum over tokens of each latent's delta times its decoder row's inner product with `direction`.

        Parameters
        ----------
        direction : (n_tokens, d_in)
            For instance the gradient of the loss with respect to the residual stream.

        Returns
        -------
        (d_sae,)
        """
        result = decoder.new_zeros(self.codes.d_sae)
        if self.constant is not None:
            result = result + self.constant * (decoder @ direction.sum(0))
        if self.entries is not None:
            tokens = self.codes.tokens()
            inner = (decoder[self.codes.indices] * direction[tokens]).sum(-1)
            result = result + self.codes.sum_over_tokens(self.entries * inner)
        if self.dense is not None:
            result = result + (self.dense * (direction @ decoder.T)).sum(0)
        if self.factors is not None:
            result = result + (self.factors[1] * (self.factors[0].T @ direction @ decoder.T)).sum(0)
        return result
