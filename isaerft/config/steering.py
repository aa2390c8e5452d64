"""Options of the steering check, in which verdicts on explanations are compared with what steering does."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from isaerft.config.base import STRICT


@dataclass(frozen=True, config=STRICT, kw_only=True)
class SteeringCheck:
    """The steering check: latents are amplified and suppressed while the model answers, and metrics score the answers.

    It costs n_prompts answers for each latent and strength twice; latents are at most 4 n_latents.
    """

    n_latents: int = Field(default=12, ge=1)
    """At most this many latents with a supported explanation and as many with a contradicted one, drawn at random among
    those that claim something of a behavior with a metric. Each gets an untested control."""
    strengths: list[Annotated[float, Field(gt=0)]] = Field(default_factory=lambda: [1.0], min_length=1)
    """How far latents are moved up and down, in units of each one's largest activation on the reference corpus; effects
    are means over them."""
    prompts: str | None = None
    """A local file with a `prompt` column, or a .txt file with one prompt a line; held-out prompts of all tested
    behaviors when not given."""
    n_prompts: int = Field(default=8, ge=2)
    """At most this many different prompts, drawn at random; the unit of each latent's interval."""
    max_new_tokens: int = Field(default=32, ge=1)
    """Longest answer."""
    temperature: float = Field(default=0.0, ge=0)
    """0: the most likely token; 1: sampling from the model's own probabilities, seeded."""
