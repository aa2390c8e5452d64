"""Language models that are asked over HTTP, and what asking them may cost."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from isaerft.config.options.base import STRICT

OPENAI = "https://api.openai.com/v1"


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Llm:
    """A language model behind an OpenAI-compatible server; a judge or a source names it as its `llm`."""

    model: str = Field(min_length=1)
    """Model, as the server calls it."""
    base_url: str = OPENAI
    """Address of the server, with its version part; no key or password may stand in it."""
    api_key_env: str | None = "OPENAI_API_KEY"
    """Environment variable that holds the key; read only when a request must be made. Empty: the server wants none."""
    structured: Literal["auto", "json_schema", "text"] = "auto"
    """How answers get their form: by the server (json_schema), by asking for it in words (text), or by the server and
    in words where it refuses (auto)."""
    temperature: float | None = Field(default=0, ge=0, le=2)
    """Sampling temperature; empty leaves it out, for models that refuse to be given one."""
    answer_tokens: int | None = Field(default=None, ge=1)
    """Longest answer in tokens; as much as the form needs when empty. A model that reasons first needs more."""
    concurrency: int = Field(default=8, ge=1, le=1000)
    """Requests under way at once, per job."""
    timeout: float = Field(default=120, gt=0)
    """Seconds until a request is given up and tried again."""
    retries: int = Field(default=6, ge=0)
    """Times that a request is repeated, with growing random pauses, after 408, 409, 429, 5xx or a broken connection."""
    max_calls: int = Field(default=10_000, ge=0)
    """Most requests that the study may make of this model, over all jobs and runs; answers from the cache are free."""
    max_tokens: int = Field(default=20_000_000, ge=0)
    """Most tokens, prompts and answers together, that the study may use of it."""
    price_per_million_input: float | None = Field(default=None, ge=0)
    """Price of a million prompt tokens, in your currency, for `isaerft cost`."""
    price_per_million_output: float | None = Field(default=None, ge=0)
    """Price of a million tokens of answers."""
