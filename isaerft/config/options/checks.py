"""Checks of what training did: do the most changed latents carry it, and did the behavior itself move."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from isaerft.config.options.base import STRICT


@dataclass(frozen=True, config=STRICT, kw_only=True)
class CausalCheck:
    """The causal check: the most changed latents, by the primary result's measure, are set back to no change."""

    adapters: list[str] | None = None
    """Adapters to check: all but the reference when not given, none (the check is off) when empty."""
    ks: list[Annotated[int, Field(ge=1)]] = Field(default_factory=lambda: [10, 50], min_length=1)
    """Numbers of most changed latents to set back to no change."""
    n_draws: int = Field(default=20, ge=2)
    """Draws of k matched random latents; each is set back in the adapter of one seed, the seeds taking turns."""
    max_rows: int = Field(default=64, ge=2)
    """At most this many held-out rows, drawn at random, carry the loss."""
