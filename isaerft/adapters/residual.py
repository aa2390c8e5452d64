"""residual: a low-rank adapter on the residual stream right after the hook, which knows nothing of the SAE."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from isaerft.adapters.outside import OutsideAdapter, with_defaults
from isaerft.adapters.place import Passes, Place
from isaerft.errors import InputError, shown
from isaerft.registry import ADAPTERS
from isaerft.subjects.cache import Batch
from isaerft.subjects.load import LoadedSubject
from isaerft.subjects.rerun import from_cache
from isaerft.subjects.site import Below

DEFAULTS = {"rank": 8, "bias": False}


@ADAPTERS("residual")
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

    def at_hook(self, subject: LoadedSubject, batch: Batch) -> Below:
        """Return the cached activation and residual stream, both with the same vector added."""
        base = from_cache(subject, batch)
        added = self(base.residual)
        return Below(base.activation + added, base.residual + added)

    @contextmanager
    def in_model(self, subject: LoadedSubject) -> Iterator[LoadedSubject]:
        """Give the subject, with the adapter in its model's forward pass at the injection point."""
        passes = Passes()
        place = _InjectionPoint(subject.dictionary, replace(subject.site, reads="residual"), passes)
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
