"""Options of the noise probe, in which noise is added to models and their answers and losses are followed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from isaerft.config.base import STRICT

Place = Literal["residual", "weights"]
PLACES: tuple[Place, ...] = ("residual", "weights")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class NoiseProbe:
    """Noise as a probe: Gaussian noise of growing size in a model, with and without what training changed.

    Answers are sampled as in the behavior check, with its prompts, length, temperature and seeds.
    """

    behaviors: list[str] | None = None
    """Behaviors whose answers are scored: all that have a `metric` or are the testbed's when not given."""
    adapters: list[str] | None = None
    """Adapters that are probed beside the unchanged model; the primary result's and every `checkpoint` by default."""
    places: list[Place] = Field(default_factory=lambda: list(PLACES), min_length=1)
    """Where noise is added: to the residual stream at the hook, or to every weight matrix of the model."""
    levels: list[Annotated[float, Field(gt=0)]] = Field(default_factory=lambda: [0.1, 0.2, 0.4, 0.8], min_length=1)
    """Sizes of the noise: standard deviations, as multiples of the token's own root mean square over the dimensions of
    the residual stream, and of the weight matrix's own standard deviation. No noise is always measured, too."""
    n_draws: int = Field(default=4, ge=2)
    """Draws of the noise at each level, the same for all models; the unit of the intervals."""
    max_rows: int = Field(default=64, ge=1)
    """At most this many held-out rows, drawn at random, carry the loss."""
