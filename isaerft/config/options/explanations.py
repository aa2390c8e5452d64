"""Where explanations come from, and who judges what they lead one to expect."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from isaerft.config.options.base import STRICT
from isaerft.config.options.neuronpedia import Neuronpedia


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Source:
    """Where explanations come from."""

    kind: str = ""
    """Registered source; the entry's own name when empty."""
    path: str | None = None
    """File of a `file` source; {subject_dir} stands for the folder of the subject's own files."""
    side: Literal["input", "output", "both"] = "input"
    """What the explanations speak of: what a latent fires on, what it promotes, or both."""
    subjects: list[str] = Field(default_factory=list)
    """Subjects it speaks of; all when empty."""
    judges: list[str] = Field(default_factory=list)
    """Judges that read it; all when empty."""
    adapters: list[str] = Field(default_factory=list)
    """Adapters whose changes are tested against it; all when empty."""
    llm: str | None = None
    """Language model of the study that writes the explanations, for a source that asks one."""
    wrong_share: float | None = Field(default=None, ge=0, le=1)
    """Known share of wrong explanations: the dose of the dose-response figure."""
    design: Literal["all", "case_control"] | None = None
    """Which latents it is asked for; as the study's design says when empty."""
    neuronpedia: Neuronpedia = Field(default_factory=Neuronpedia)
    """How a `neuronpedia` source asks."""
    options: dict[str, float | int | str | bool] = Field(default_factory=dict)
    """Options of the source kind itself."""


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
    model: str | None = None
    """Embedding judge: a sentence-transformers model in place of the packaged all-MiniLM-L6-v2."""
    options: dict[str, float | int | str | bool] = Field(default_factory=dict)
    """Options of the judge kind itself."""
