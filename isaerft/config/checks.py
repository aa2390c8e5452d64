"""Options of what is compared with training: audits of two data sets, checks by answers and losses, and placebos."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from isaerft.config.base import STRICT


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Audit:
    """Two sets of behavior data from two origins: what does the suspect one teach that the clean one does not?"""

    clean: str
    """Behavior whose data is trusted."""
    suspect: str
    """Behavior whose data is not; it is trained like any other, but left out of the study's own tests."""


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


@dataclass(frozen=True, config=STRICT, kw_only=True)
class BehaviorCheck:
    """The behavior check: held-out prompts are answered before and after training, and a score compares the answers."""

    behaviors: list[str] | None = None
    """Behaviors to check: all that have a `metric` or are the testbed's when not given, none (off) when empty."""
    adapters: list[str] | None = None
    """Adapters to check: the primary result's and the reference when not given, none (off) when empty."""
    n_prompts: int = Field(default=24, ge=2)
    """At most this many different held-out prompts, drawn at random."""
    max_new_tokens: int = Field(default=32, ge=1)
    """Longest answer."""
    temperature: float = Field(default=1.0, ge=0)
    """1: sampling from the model's own probabilities, seeded by study and behavior; 0: the most likely token."""
    n_seeds: int = Field(default=1, ge=1)
    """Replicates of the training that answer; their scores are averaged prompt by prompt."""
    shown: int = Field(default=3, ge=0)
    """Answers of each adapter that the page shows."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Placebos:
    """Placebo trainings: the primary adapter, trained on the model's own answers, which teach nothing."""

    n: int = Field(default=9, ge=0)
    """How many on each subject, none when 0; a p-value against them is at least 1 / (n + 1)."""
