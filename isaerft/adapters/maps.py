"""low_rank: a few directions read from all latents, and a few patterns of latents written in return.

mlp: a residual feed-forward network on the latents, which can make one latent's change depend on others.

residual: a low-rank adapter on the residual stream right after the hook, which knows nothing of the SAE.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn.functional import gelu

from isaerft.adapters.base import LatentAdapter, OutsideAdapter, Shift, count_option, norms, with_defaults
from isaerft.adapters.hooked import Passes, Place
from isaerft.errors import InputError, shown
from isaerft.subjects.cache import Batch, base_state
from isaerft.subjects.dictionary import Codes
from isaerft.subjects.hooks import HookState
from isaerft.subjects.load import LoadedSubject

RANK = 8


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


DEPTH, WIDTH = 1, 64


class Mlp(LatentAdapter):
    """f' = f + h W + b, with h the last of `depth` hidden layers of `width` gelu units; W and b start at 0.

    Parameters
    ----------
    depth : int
        Hidden layers; 0 makes h = f and the change linear, with d_sae * d_sae weights.
    width : int
        Units of a hidden layer.
    """

    kind = "mlp"

    def __init__(self, d_sae: int, *, depth: int = DEPTH, width: int = WIDTH, **bounds: Any) -> None:
        super().__init__(d_sae, **bounds)
        self.depth = count_option(self.kind, "depth", depth, 0)
        self.width = count_option(self.kind, "width", width, 1)
        sizes = [d_sae, *[width] * depth]
        self.hidden = nn.ParameterList(torch.zeros(one, other) for one, other in pairwise(sizes))
        self.hidden_bias = nn.ParameterList(torch.zeros(size) for size in sizes[1:])
        self.output = nn.Parameter(torch.zeros(sizes[-1], d_sae))
        self.output_bias = nn.Parameter(torch.zeros(d_sae))

    def reset(self, seed: int) -> None:
        """Draw the hidden layers; a token's hidden units then have about the norm of its activations."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in self.hidden:
                weight.copy_(torch.randn(weight.shape, generator=generator) / self.width**0.5)

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """Return the changed activations of activations (..., d_sae)."""
        last = self._above(activations @ self.hidden[0]) if self.depth else activations
        return activations + self.bounds.limit(last @ self.output + self.output_bias, activations)

    def shift(self, codes: Codes) -> Shift:
        """Return h and W, and b; with bounds, or without a hidden layer, as wide as the dictionary."""
        if self.depth:
            last = self._above(codes.combine(self.hidden[0]))
            if not self.bounds:
                return Shift(codes, constant=self.output_bias, factors=(last, self.output))
            change = last @ self.output
        else:
            change = codes.combine(self.output)
        if not self.bounds:
            return Shift(codes, constant=self.output_bias, dense=change)
        return Shift(codes, dense=self.bounds.limit(change + self.output_bias, codes.dense()))

    def _above(self, first: torch.Tensor) -> torch.Tensor:
        """Return the last hidden layer of the first one's products f W_1, (..., width)."""
        state = gelu(first + self.hidden_bias[0])
        for weight, bias in zip(self.hidden[1:], self.hidden_bias[1:], strict=True):
            state = gelu(state @ weight + bias)
        return state

    def latent_parameter(self) -> torch.Tensor:
        """Return the norm of what writes each latent (its column of W, its b), (d_sae,).

        Signed as its change where all latents fire at 1.
        """
        with torch.no_grad():
            ones = self.output.new_ones(self.d_sae)
            last = self._above(ones @ self.hidden[0]) if self.depth else ones
            return torch.copysign(norms(self.writing_parameters()), last @ self.output + self.output_bias)

    def writing_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return W and b."""
        return self.output, self.output_bias

    def options(self) -> dict[str, Any]:
        """Return depth and width, and the bounds."""
        return super().options() | {"depth": self.depth, "width": self.width}


DEFAULTS = {"rank": 8, "bias": False}


class Residual(OutsideAdapter):
    """x' = x + B A x (+ c), with A (rank, d_in), B (d_in, rank) and c (d_in,); B and c begin at 0.

    Parameters
    ----------
    d_in : int
        Width of the residual stream.
    rank : int
        Rank of B A; 0 leaves c alone, which needs `bias`.
    bias : bool
        Whether there is a c, in the residual stream's units.
    """

    kind = "residual"

    def __init__(self, d_in: int, *, rank: int = DEFAULTS["rank"], bias: bool = DEFAULTS["bias"]) -> None:
        super().__init__()
        least = 0 if bias else 1
        if not isinstance(rank, int) or isinstance(rank, bool) or not least <= rank <= d_in:
            raise InputError(
                f"adapter 'residual': rank = {shown(rank)}", allowed=f"a whole number from {least} to {d_in}"
            )
        self.rank = rank
        self.down = nn.Parameter(torch.zeros(rank, d_in))
        self.up = nn.Parameter(torch.zeros(d_in, rank))
        self.bias = nn.Parameter(torch.zeros(d_in)) if bias else None

    @classmethod
    @contextmanager
    def on(cls, subject: LoadedSubject, options: dict[str, Any], seed: int) -> Iterator[Residual]:
        """Give a new adapter whose A is drawn with `seed`, of variance 1 / d_in."""
        d_in = subject.language.d_model
        adapter = cls(d_in, **with_defaults(cls.kind, options, DEFAULTS))
        drawn = torch.randn(adapter.down.shape, generator=torch.Generator().manual_seed(seed)) / d_in**0.5
        with torch.no_grad():
            adapter.down.copy_(drawn)
        yield adapter.to(subject.model.device)

    def forward(self, residual: torch.Tensor) -> torch.Tensor:
        """Return what is added to a residual stream (n_tokens, d_in)."""
        added = residual.to(self.down.dtype) @ self.down.T @ self.up.T
        return (added if self.bias is None else added + self.bias).to(residual.dtype)

    def at_hook(self, subject: LoadedSubject, batch: Batch) -> HookState:
        """Return the cached activation and residual stream, both with the same vector added."""
        base = base_state(subject, batch)
        added = self(base.residual)
        return HookState(base.activation + added, base.residual + added)

    @contextmanager
    def in_model(self, subject: LoadedSubject) -> Iterator[LoadedSubject]:
        """Give the subject, with the adapter in its model's forward pass at the injection point."""
        passes = Passes()
        place = _InjectionPoint(subject.dictionary, replace(subject.hook, reads="residual"), passes)
        place.adapters["trained"] = self
        handles = [*passes.follow(subject.model, None), *place.hook(subject.model)]
        try:
            yield subject
        finally:
            for handle in handles:
                handle.remove()

    def options(self) -> dict[str, Any]:
        """Return rank and bias."""
        return {"rank": self.rank, "bias": self.bias is not None}


class _InjectionPoint(Place):
    """Where the residual stream is read and written, whatever it is that the SAE reads."""

    def forward(self, activation: torch.Tensor) -> torch.Tensor:
        """Return what the adapter adds to the residual stream (n_rows, length, d_in)."""
        return self.adapters["trained"](activation)
