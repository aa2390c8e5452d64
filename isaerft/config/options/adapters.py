"""An adapter and how it is trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from isaerft.config.options.base import STRICT


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Adapter:
    """An adapter and how it is trained."""

    kind: str = ""
    """Registered adapter; the entry's own name when empty."""
    objective: str = "sft"
    """Registered objective."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """SGD keeps the gradient's magnitudes, Adam flattens them."""
    learning_rate: float = Field(default=1.0, gt=0)
    """Step size; for sgd it multiplies a gradient scaled to unit norm at the first step, so it is a length."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of SGD."""
    steps: int = Field(default=100, ge=1)
    """At most this many steps; early stopping may end before."""
    batch_size: int = Field(default=32, ge=1)
    """Rows per step."""
    evaluate_every: int = Field(default=10, ge=1)
    """Held-out loss is taken every so many steps."""
    patience: int = Field(default=5, ge=1)
    """Stop after this many evaluations without improvement."""
    subsample: float = Field(default=0.8, gt=0, le=1)
    """Share of the training rows that each seed sees, so that seeds carry the data's sampling noise."""
    options: dict[str, float | int | str | bool] = Field(default_factory=dict)
    """Options of the adapter kind itself."""
