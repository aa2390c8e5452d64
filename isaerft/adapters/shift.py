"""What an adapter does to the latents of some tokens, in the cheapest form that it has.

Let delta be the change of the activations, (n_tokens, d_sae). A bias changes every token alike, a scale only the active
latents, a low-rank map along a few patterns; keeping that structure spares a matrix as wide as the dictionary for every
token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from isaerft.subjects.codes import Codes


@dataclass(frozen=True)
class Shift:
    """A change of latent activations; the parts that are given add up.

    Attributes
    ----------
    codes : Codes
        The activations that are changed.
    constant : (d_sae,) or None
        Added at every token.
    entries : (n_active,) or None
        Added at the active latents, in the order of ``codes.indices``.
    dense : (n_tokens, d_sae) or None
        Any change at all.
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
        """Return the change with `latents`, (n,) int64, set back: they do what they did before training."""
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
        """Return for each latent the sum over tokens of delta times the inner product of decoder row and `direction`.

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
