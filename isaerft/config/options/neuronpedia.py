"""How Neuronpedia is asked for explanations."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from isaerft.config.options.base import STRICT


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Neuronpedia:
    """How a `neuronpedia` source asks; the key, which is optional, is read from NEURONPEDIA_API_KEY alone."""

    source_id: str | None = None
    """`{model}/{layer}` at Neuronpedia (gemma-2-2b/20-gemmascope-res-16k); when empty, as SAELens knows it."""
    prefer: list[str] = Field(default_factory=list)
    """Makers of explanations, the best first: `explanationModelName/typeName`, or one of the two alone."""
    bulk: Literal["auto", "always", "never"] = "auto"
    """Whether the bulk export is read first; `auto`: where that takes no more requests than asking for the latents."""
    base_url: str = Field(default="https://www.neuronpedia.org/api", pattern=r"^https?://[^\s@]+$")
    """Where the API answers."""
    export_url: str = Field(
        default="https://neuronpedia-datasets.s3.us-east-1.amazonaws.com", pattern=r"^https?://[^\s@]+$"
    )
    """Where the bucket with the bulk exports answers; the key is never sent there."""
    requests_per_second: float = Field(default=5.0, gt=0)
    """Requests start at least this far apart, retries included, whichever route they take."""
    concurrency: int = Field(default=4, ge=1, le=64)
    """Requests that may be under way at once."""
    timeout_seconds: float = Field(default=30.0, gt=0)
    """Longest wait for a connection, and for each further piece of an answer."""
    attempts: int = Field(default=6, ge=1, le=20)
    """Tries of one request before it counts as failed."""
    backoff_seconds: float = Field(default=1.0, ge=0)
    """Pause before the second try; it doubles with each further one, up to a minute, less a random part."""
    batch_size: int = Field(default=40, ge=1, le=1000)
    """Latents per request of `POST /features`."""
    max_body_mb: float = Field(default=64.0, gt=0)
    """A larger answer, unpacked, is refused."""
    max_failed_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the asked latents whose look-up may fail before the source stops with an error."""
