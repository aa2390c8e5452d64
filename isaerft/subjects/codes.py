"""Sparse latent activations, in compressed sparse rows over tokens.

Memory and work follow the number of active latents (L0) and not the size of the dictionary.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch.nn.functional import embedding_bag


@dataclass(frozen=True)
class Codes:
    """Sparse latent activations of `n_tokens` tokens.

    Attributes
    ----------
    indices : (n_active,) int64
        Active latents, token after token; int32 in a cache file.
    values : (n_active,) float
        Their activations, in the units of the hook's activation over decoder norm.
    starts : (n_tokens + 1,) int64
        Token t owns ``indices[starts[t]:starts[t + 1]]``.
    d_sae : int
        Size of the dictionary.
    """

    indices: torch.Tensor
    values: torch.Tensor
    starts: torch.Tensor
    d_sae: int

    @property
    def n_tokens(self) -> int:
        """Number of tokens."""
        return len(self.starts) - 1

    @staticmethod
    def from_dense(activations: torch.Tensor) -> Codes:
        """Return the non-zero entries of dense activations (n_tokens, d_sae)."""
        token, latent = activations.nonzero(as_tuple=True)
        counts = torch.bincount(token, minlength=len(activations))
        return Codes(latent, activations[token, latent], _starts(counts), activations.shape[-1])

    @staticmethod
    def concatenate(parts: Iterable[Codes]) -> Codes:
        """Join codes token after token."""
        kept = list(parts)
        counts = torch.cat([part.counts() for part in kept])
        indices = torch.cat([part.indices for part in kept])
        return Codes(indices, torch.cat([part.values for part in kept]), _starts(counts), kept[0].d_sae)

    def counts(self) -> torch.Tensor:
        """Return the number of active latents of each token, (n_tokens,) int64."""
        return self.starts.diff()

    def tokens(self) -> torch.Tensor:
        """Return the token of each entry, (n_active,) int64."""
        return torch.repeat_interleave(torch.arange(self.n_tokens, device=self.starts.device), self.counts())

    def rows(self, tokens: torch.Tensor) -> Codes:
        """Return the codes of the given tokens, (n,) int64, in that order."""
        begins = self.starts[tokens]
        counts = self.starts[tokens + 1] - begins
        starts = _starts(counts)
        within = torch.arange(int(starts[-1]), device=starts.device) - torch.repeat_interleave(starts[:-1], counts)
        entries = torch.repeat_interleave(begins, counts) + within
        return Codes(self.indices[entries].long(), self.values[entries], starts, self.d_sae)

    def emptied(self, tokens: torch.Tensor) -> Codes:
        """Return the codes without the activations of the given tokens, (n_tokens,) bool."""
        kept = ~tokens[self.tokens()]
        return Codes(self.indices[kept], self.values[kept], _starts(self.counts() * ~tokens), self.d_sae)

    def to(self, device: torch.device | str) -> Codes:
        """Return the codes on `device`."""
        return Codes(self.indices.to(device), self.values.to(device), self.starts.to(device), self.d_sae)

    def dense(self) -> torch.Tensor:
        """Return the activations as (n_tokens, d_sae)."""
        result = self.values.new_zeros(self.n_tokens, self.d_sae)
        return result.index_put((self.tokens(), self.indices), self.values)

    def sum_over_tokens(self, values: torch.Tensor | None = None) -> torch.Tensor:
        """Return the sum over tokens of `values` (n_active,), by default the activations, as (d_sae,)."""
        entries = self.values if values is None else values
        return entries.new_zeros(self.d_sae).index_add(0, self.indices, entries)

    def combine(self, rows: torch.Tensor, values: torch.Tensor | None = None) -> torch.Tensor:
        """Return for each token the sum of its latents' `rows` (d_sae, d), weighted by `values` (n_active,).

        The weights are the activations by default. With the decoder as `rows`, the result (n_tokens, d) is then the
        SAE's reconstruction without its bias.
        """
        weights = self.values if values is None else values
        return embedding_bag(
            self.indices, rows, self.starts, mode="sum", per_sample_weights=weights, include_last_offset=True
        )


def _starts(counts: torch.Tensor) -> torch.Tensor:
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])
