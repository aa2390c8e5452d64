"""Adapters outside the SAE's basis: their base class, and a low-rank one on the residual stream.

Their effect on latents is measured by pulling it back into the SAE's basis (`isaerft.changes.pullback`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from isaerft.adapters.base import check_count
from isaerft.adapters.hooked import AdapterHook, PassTracker
from isaerft.errors import InputError, shown
from isaerft.subjects.cache import Batch, base_state
from isaerft.subjects.hooks import HookState
from isaerft.subjects.load import LoadedSubject


class ModelAdapter(nn.Module):
    """A change of the model that does not use the SAE, the identity before training.

    A subclass defines `on` and `at_hook`, and the rest where the defaults don't fit.

    Attributes
    ----------
    kind : str
        Registered name; training sets it.
    """

    kind: str

    @classmethod
    @contextmanager
    def on(cls, subject: LoadedSubject, options: dict[str, Any], seed: int) -> Iterator[ModelAdapter]:
        """Give a new adapter on a subject; the model is restored when the block ends.

        Parameters
        ----------
        seed : int
            Draws the initial parameters that are not 0.
        """
        raise NotImplementedError

    def at_hook(self, subject: LoadedSubject, batch: Batch) -> HookState:
        """Return what a batch's tokens look like at the hook under the adapter, with gradients if they are enabled."""
        raise NotImplementedError

    def adapted(self, subject: LoadedSubject, batch: Batch) -> torch.Tensor:
        """Return the residual stream of a batch's tokens under the adapter, (n_tokens, d_in)."""
        return self.at_hook(subject, batch).residual

    @contextmanager
    def in_model(self, subject: LoadedSubject) -> Iterator[LoadedSubject]:
        """Give a subject whose own forward passes include the adapter inside the block."""
        yield subject

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Make the model above the hook the base model inside the block; `at_hook` still includes the adapter."""
        yield

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the trained tensors by name."""
        return dict(self.state_dict())

    def load_weights(self, weights: dict[str, torch.Tensor]) -> None:
        """Load tensors that `weights` returned; a `KeyError` or `RuntimeError` means that they don't fit."""
        self.load_state_dict(weights)

    def options(self) -> dict[str, object]:
        """Return the options that rebuild this adapter."""
        return {}


def with_defaults(kind: str, options: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Return the options with defaults filled in; an option that is not among the defaults is an `InputError`."""
    for name in options:
        if name not in defaults:
            raise InputError(f"adapter {kind!r} with option {shown(name)}", allowed=", ".join(defaults))
    return defaults | options


RANK = 8


class Residual(ModelAdapter):
    """x' = x + B A x (+ c) on the residual stream right after the hook; B and c start at 0.

    A is (rank, d_in), B (d_in, rank) and c (d_in,).

    Parameters
    ----------
    d_in : int
        Width of the residual stream.
    rank : int
        Rank of B A; with 0 only c is left, which needs `bias`.
    bias : bool
        Whether to add c, in the residual stream's units.
    """

    kind = "residual"

    def __init__(self, d_in: int, *, rank: int = RANK, bias: bool = False) -> None:
        super().__init__()
        self.rank = check_count(self.kind, "rank", rank, 0 if bias else 1, d_in)
        self.down = nn.Parameter(torch.zeros(rank, d_in))
        self.up = nn.Parameter(torch.zeros(d_in, rank))
        self.bias = nn.Parameter(torch.zeros(d_in)) if bias else None

    @classmethod
    @contextmanager
    def on(cls, subject: LoadedSubject, options: dict[str, Any], seed: int) -> Iterator[Residual]:
        """Give a new adapter whose A is drawn with `seed`, of variance 1 / d_in."""
        if subject.hook.reads in ("heads", "mlp_input", "normalized"):
            raise InputError(
                f"adapter {cls.kind!r} with an SAE at {subject.dictionary.hook_name!r}: its change of the residual"
                " stream is no change of what the SAE reads, so it says nothing of latents",
                allowed="SAEs on the residual stream, or on the output of attention or of an MLP",
                remedy="use adapters on latents, or lora with where: below",
            )
        d_in = subject.language.d_model
        adapter = cls(d_in, **with_defaults(cls.kind, options, {"rank": RANK, "bias": False}))
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
        """Give the subject with the adapter at the injection point of its model's forward pass."""
        hook = _ResidualHook(subject.dictionary, replace(subject.hook, reads="residual"), PassTracker())
        hook.adapters["residual"] = self
        with hook.registered(subject.model, None):
            yield subject

    def options(self) -> dict[str, object]:
        """Return rank and bias."""
        return {"rank": self.rank, "bias": self.bias is not None}


class _ResidualHook(AdapterHook):
    """The residual stream at the injection point, whatever the SAE reads."""

    def forward(self, activation: torch.Tensor) -> torch.Tensor:
        """Return what the adapter adds to the residual stream (n_rows, length, d_in)."""
        added: torch.Tensor = self.adapters["residual"](activation)
        return added
