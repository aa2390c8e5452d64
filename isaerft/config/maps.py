"""Options of the reading of learned maps, in which adapters that are linear maps are taken apart."""

from __future__ import annotations

from pydantic import Field
from pydantic.dataclasses import dataclass

from isaerft.config.base import STRICT


@dataclass(frozen=True, config=STRICT, kw_only=True)
class MapComponents:
    """Reading of learned maps: each is split into components that read one direction and write one.

    It costs two passes over the held-out rows for each component, and no training.
    """

    adapters: list[str] | None = None
    """Adapters to read; by default every residual, low_rank, lora, and mlp of depth 0."""
    n_components: int = Field(default=4, ge=1)
    """At most this many components of each map, the largest ones; of each weight that a lora changes."""
    n_named: int = Field(default=5, ge=1)
    """Latents and tokens by which each side of a component is named."""
    max_rows: int = Field(default=64, ge=2)
    """At most this many held-out rows, drawn at random."""
