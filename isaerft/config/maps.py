"""Options of the reading of learned maps, and of the curves of loss against how many directions a map may use."""

from __future__ import annotations

from typing import Annotated, Literal

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


MapFamily = Literal["latents", "random_latents", "principal", "random", "rank_latents", "rank_residual"]
FAMILIES: tuple[MapFamily, ...] = (
    "latents",
    "random_latents",
    "principal",
    "random",
    "rank_latents",
    "rank_residual",
)


@dataclass(frozen=True, config=STRICT, kw_only=True)
class LossCurves:
    """Curves of held-out loss: linear maps with few directions, in the SAE's basis and in the residual stream.

    Each point is trained anew, so curves cost families x ks x learning rates x seeds trainings for every behavior.
    """

    ks: list[Annotated[int, Field(ge=1)]] = Field(default_factory=lambda: [1, 2, 4, 8, 16, 32], min_length=1)
    """Numbers of directions: that a map reads and that it writes, or its rank."""
    families: list[MapFamily] = Field(default_factory=lambda: list(FAMILIES), min_length=1)
    """Where directions come from. Chosen in training: `latents` of the SAE, `random_latents` of an untrained dictionary
    that fires as often, `principal` axes of the residual stream, or axes at `random`. Learned freely, so that k is the
    rank: `rank_latents` on the SAE's activations, `rank_residual` on the residual stream."""
    behaviors: list[str] | None = None
    """Behaviors to train on; all when not given."""
    n_seeds: int = Field(default=3, ge=1)
    """Replicates of each training, each with its own rows, start and random directions."""
    learning_rates: list[Annotated[float, Field(gt=0)]] = Field(default_factory=lambda: [0.03, 0.1, 0.3], min_length=1)
    """Each training is done at all of these, and the one with the lowest loss on validation rows counts. They are those
    of SGD, for chosen directions; free directions take Adam at a tenth of each."""
    steps: int = Field(default=60, ge=2)
    """Steps of every training."""
    batch_size: int = Field(default=16, ge=1)
    """Rows per step."""
    n_candidates: int = Field(default=256, ge=2)
    """Directions that compete, on either side: those on which the loss's gradient before training is largest."""
    validation_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of the training rows that is held back to choose learning rates and the step to keep."""
