"""Options of explanations: sources, judges, scorers, and the language models that they ask."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass

from isaerft.config.base import STRICT
from isaerft.errors import InputError, shown

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,99}")
OPENAI = "https://api.openai.com/v1"


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Llm:
    """A language model behind an OpenAI-compatible server; a judge or a source names it as its `llm`."""

    model: str = Field(min_length=1)
    """Model, as the server calls it."""
    base_url: str = OPENAI
    """Address of the server, with its version part; it must not contain a key or password."""
    api_key_env: str | None = "OPENAI_API_KEY"
    """Environment variable that holds the key; read only when a request must be made. Empty: the server wants none."""
    structured: Literal["auto", "json_schema", "text"] = "auto"
    """How answers get their form: by the server (json_schema), by asking for it in words (text), or by the server and
    in words where it refuses (auto)."""
    limit_name: Literal["auto", "max_tokens", "max_completion_tokens"] = "auto"
    """Parameter that limits an answer's length. `auto`: max_completion_tokens at api.openai.com, max_tokens elsewhere,
    and the other one where the server refuses it."""
    seed: Literal["auto", "send", "omit"] = "auto"
    """Whether requests have a sampling seed. `auto`: unless the server refuses it."""
    instructions: Literal["auto", "system", "user"] = "auto"
    """Message that holds the instructions: the system's, the user's, or the user's where the server refuses the
    system's (auto)."""
    temperature: float | None = Field(default=0, ge=0, le=2)
    """Sampling temperature; empty leaves it out, for models that refuse to be given one."""
    answer_tokens: int | None = Field(default=None, ge=1)
    """Longest answer in tokens; as much as the form needs when empty. A model that reasons first needs more."""
    concurrency: int = Field(default=8, ge=1, le=1000)
    """Requests under way at once, per job."""
    timeout: float = Field(default=120, gt=0)
    """Seconds until a request is given up and tried again."""
    retries: int = Field(default=6, ge=0)
    """Times that a request is repeated, with growing pauses, after 408, 409, 429, 5xx, a broken connection or an answer
    that is no completion."""
    max_calls: int = Field(default=10_000, ge=0)
    """Most requests that the study may make of this model, over all jobs and runs; answers from the cache are free."""
    max_tokens: int = Field(default=20_000_000, ge=0)
    """Most tokens, prompts and answers together, that the study may use of it."""
    price_per_million_input: float | None = Field(default=None, ge=0)
    """Price of a million prompt tokens, in your currency, for `isaerft cost`."""
    price_per_million_output: float | None = Field(default=None, ge=0)
    """Price of a million tokens of answers."""

    # What could be a key is never repeated in an error.
    @field_validator("api_key_env")
    @classmethod
    def _is_a_variable(cls, value: str | None) -> str | None:
        if value is not None and not _VARIABLE.fullmatch(value):
            raise InputError(
                "is not the name of an environment variable",
                allowed="capital letters, digits and _",
                remedy="put the key itself into the environment, never into a file of the study",
            )
        return value

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        allowed = "http(s)://host[:port]/path"
        try:
            parts = urlsplit(value)
            parts.port  # noqa: B018 - reading it checks it
        except ValueError:
            raise InputError("is not an address", allowed=allowed) from None
        if parts.username or parts.password or parts.query or parts.fragment:
            raise InputError(
                "holds more than an address",
                allowed=allowed,
                remedy="put the key into the environment, under the variable that api_key_env names",
            )
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"is {shown(value)}", allowed=allowed)
        return value


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Neuronpedia:
    """How a `neuronpedia` source looks up explanations; the optional key is read from NEURONPEDIA_API_KEY only."""

    source_id: str | None = None
    """`{model}/{layer}` at Neuronpedia (gemma-2-2b/20-gemmascope-res-16k); when empty, as SAELens knows it."""
    prefer: list[str] = Field(default_factory=list)
    """Makers of explanations, the best first: `explanationModelName/typeName`, or one of the two alone. Latents for
    which the bulk export lacks the first are asked for."""
    maker: str | None = Field(default=None, min_length=1)
    """Take only the explanations of this maker, named as in `prefer`: one source per maker compares makers."""
    sides: dict[str, Literal["input", "output", "both"]] = Field(default_factory=dict)
    """Sides of makers, named as in `prefer`, where their type does not tell: `{gpt-4o: both}`."""
    scores: bool = False
    """Whether to look up the scores that Neuronpedia publishes; takes one request per latent."""
    bulk: Literal["auto", "always", "never"] = "auto"
    """Whether the bulk export is read first; `auto`: where that takes no more requests than asking for the latents."""
    base_url: str = Field(default="https://www.neuronpedia.org/api", pattern=r"^https?://[^\s@]+$")
    """Where the API answers."""
    export_url: str = Field(
        default="https://neuronpedia-datasets.s3.us-east-1.amazonaws.com", pattern=r"^https?://[^\s@]+$"
    )
    """Where the bucket with the bulk exports answers; the key is never sent there."""
    requests_per_second: float = Field(default=5.0, gt=0)
    """Requests start at least this far apart, retries included, whichever route they take; Neuronpedia allows 25,000 an
    hour and address, about 6.9 a second."""
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


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Source:
    """Where explanations come from."""

    kind: str = ""
    """Registered source; the entry's own name when empty."""
    path: str | None = None
    """File of a `file` source; {subject_dir} is replaced by the folder of the subject's own files."""
    side: Literal["input", "output", "both"] = "input"
    """What the explanations describe: what a latent fires on, what it promotes, or both."""
    subjects: list[str] = Field(default_factory=list)
    """Subjects whose latents it explains; all when empty."""
    judges: list[str] = Field(default_factory=list)
    """Judges that read it; all when empty."""
    adapters: list[str] = Field(default_factory=list)
    """Adapters whose changes are tested against it; all when empty."""
    llm: str | None = None
    """Language model of the study that writes the explanations, for a source that asks one."""
    wrong_share: float | None = Field(default=None, ge=0, le=1)
    """Known share of wrong explanations: the dose of the dose-response figure."""
    key: str | None = None
    """File that says of each explanation whether it is right, or how it is wrong: the benchmark of scorers is made of
    sources with a key. {subject_dir} as for `path`; its rows of this `side` and `wrong_share` count."""
    design: Literal["all", "case_control"] | None = None
    """Which latents it explains; the study's design when empty."""
    features: str | None = None
    """Rows of latents from Neuronpedia's export (a file, or a folder of its batches), by which explanations are
    recognized; {subject_dir} as for `path`."""
    other_sae: bool = False
    """Take explanations although they say, or their latents show, that they are of another SAE than the subject's."""
    neuronpedia: Neuronpedia = Field(default_factory=Neuronpedia)
    """How a `neuronpedia` source asks."""
    options: dict[str, float | int | str | bool] = Field(default_factory=dict)
    """Options of the source kind itself."""

    def __post_init__(self) -> None:
        if self.key is not None and (not self.wrong_share or self.side == "both"):
            raise InputError(
                f"has a key, wrong_share {shown(self.wrong_share)} and side {self.side!r}",
                allowed="a key with wrong_share above 0 and side input or output: they name the key's rows",
            )


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Judge:
    """What turns an explanation and a behavior's description into an expected effect."""

    kind: str = ""
    """Registered judge; the entry's own name when empty."""
    path: str | None = None
    """File of a `table` or `human` judge, word list of a `lexicon` judge; {subject_dir} as for sources."""
    llm: str | None = None
    """Language model of the study that an `llm` judge asks."""
    reference: bool = False
    """Whether it is what the others are measured against in judge_quality.csv: known truth, or people."""
    tested: bool = True
    """Whether agreement is tested by it; false for one that is only compared with the other judges."""
    expected_share: float = Field(default=0.05, gt=0, lt=1)
    """Similarity judges call this share of the latents, those most alike, expected for each behavior."""
    expected_above: float = Field(default=0.5, ge=0, lt=1)
    """`llm`, `table`, `human`: a latent is expected above this effect; `lexicon`: above this share of the largest."""
    model: str | None = None
    """Embedding judge: a sentence-transformers model in place of the packaged all-MiniLM-L6-v2."""
    options: dict[str, float | int | str | bool] = Field(default_factory=dict)
    """Options of the judge kind itself."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Scorer:
    """A scorer: how well does an explanation fit text that its explainer did not see?"""

    kind: str = ""
    """Registered scorer; the entry's own name when empty."""
    scores: list[str] = Field(default_factory=lambda: ["detection", "fuzzing", "output"], min_length=1)
    """What it scores: registered scores."""
    sources: list[str] = Field(default_factory=list)
    """Sources whose explanations it scores; all when empty."""
    n_latents: int | None = Field(default=None, ge=2)
    """Latents scored per source, drawn by seed; all when empty."""
    llm: str | None = None
    """Language model of the study that an `llm` scorer asks."""
    model: str | None = None
    """Embedding scorer: a sentence-transformers model in place of the packaged all-MiniLM-L6-v2."""
    query: str = ""
    """Embedding scorer: what the model wants to read before a query, here before each explanation."""
    path: str | None = None
    """Lexicon scorer: table of phrases and the words that they speak of; {subject_dir} as for sources."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Design:
    """Which latents the sources are asked for: all, or the most changed and controls alike in what confounds."""

    kind: Literal["all", "case_control"] = "all"
    """`all`: every latent that is alive. `case_control`: a sample drawn from the changes; results then describe the
    sample."""
    n_cases: int = Field(default=50, ge=1)
    """Most changed latents per behavior and adapter, by the primary measure."""
    controls_per_case: int = Field(default=4, ge=1)
    """Latents drawn for each case from its stratum, none of them a case of any behavior."""
    seed: int | None = None
    """Seed of the draw; the study's when empty."""
