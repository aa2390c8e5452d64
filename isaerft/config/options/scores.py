"""How explanations themselves are scored."""

from __future__ import annotations

from pydantic import Field
from pydantic.dataclasses import dataclass

from isaerft.config.options.base import STRICT


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Scorer:
    """What tells how well an explanation fits text that its explainer did not see."""

    kind: str = ""
    """Registered matcher; the entry's own name when empty."""
    sources: list[str] = Field(default_factory=list)
    """Sources whose explanations it scores; all when empty."""
    n_latents: int | None = Field(default=None, ge=2)
    """Latents scored per source, drawn by seed; all when empty."""
    llm: str | None = None
    """Language model of the study that an `llm` scorer asks."""
    model: str | None = None
    """Embedding scorer: a sentence-transformers model in place of the packaged all-MiniLM-L6-v2."""
