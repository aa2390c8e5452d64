"""Which latents are asked for."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from isaerft.config.options.base import STRICT


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Design:
    """Which latents the sources are asked for: all, or the most changed and controls alike in what confounds."""

    kind: Literal["all", "case_control"] = "all"
    """`all`: every latent that is alive. `case_control`: a sample drawn from the changes; results then speak of it."""
    n_cases: int = Field(default=50, ge=1)
    """Most changed latents per behavior and adapter, by the primary measure."""
    controls_per_case: int = Field(default=4, ge=1)
    """Latents drawn for each case from its stratum, none of them a case of any behavior."""
    seed: int | None = None
    """Seed of the draw; the study's when empty."""
