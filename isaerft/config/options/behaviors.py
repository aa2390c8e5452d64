"""A behavior: its data and what the judges read of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from isaerft.config.options.audits import Poison
from isaerft.config.options.base import OTHERS, STRICT


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Metric:
    """How far an answer shows a behavior, as a number: what the behavior check compares before and after training."""

    kind: str
    """Registered metric: `phrases`, `words`, `length` or `classifier`."""
    phrases: list[str] = Field(default_factory=list)
    """`phrases`: 1 where the answer holds one of these, else 0; upper and lower case alike."""
    words: list[str] = Field(default_factory=list)
    """`words`: share of the answer's words that are among these."""
    model: str | None = None
    """`classifier`: a Hugging Face text-classification model, by id or folder."""
    revision: str | None = None
    """`classifier`: commit of that model."""
    label: str | None = None
    """`classifier`: the class whose probability is the score."""
    options: dict[str, float | int | str | bool] = Field(default_factory=dict)
    """Options of a score from another package."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Behavior:
    """A behavior to fine-tune on: what the judge reads, and where the data comes from."""

    description: str = Field(min_length=1)
    """What the behavior is, in a sentence or two; the judges read this."""
    path: str | None = None
    """Local data file (.jsonl, .json, .csv, .parquet, also .gz); relative to the working directory."""
    dataset: str | None = None
    """Hugging Face dataset id, in place of a path."""
    revision: str | None = None
    """Commit of the dataset; required with `dataset`, so that the data cannot change under the study."""
    subset: str | None = None
    """Name of the dataset's configuration on the hub."""
    data_dir: str | None = None
    """Folder of the dataset on the hub, where it keeps several sets side by side."""
    split: str = "train"
    """Split of the dataset on the hub, also a slice of it ("train[:2000]")."""
    testbed: str | None = None
    """Style of the embedded language that makes the data, in place of a path; see isaerft/testbed/language.py."""
    testbed_draw: int = Field(default=0, ge=0)
    """Which sample of rows the embedded language gives: another number, other rows of the same style."""
    poison: Poison | None = None
    """Plant rows of another behavior, as a test of audits; not with `rule`."""
    rule: bool = False
    """True when a Snakemake rule of your own writes this behavior's records."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Field of the record -> column, dotted path into nested data (instances.0.output), or '{template}' of columns."""
    where: dict[str, str | list[str]] = Field(default_factory=dict)
    """Keep only rows whose column has this value (or one of these)."""
    format: Literal["columns", "hh"] = "columns"
    """`hh`: chosen/rejected hold whole flat 'Human: ... Assistant: ...' dialogues, which are split into messages."""
    heldout_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of prompts held out, chosen by a hash of the prompt, so that rows with one prompt stay together."""
    max_completion_characters: int | None = Field(default=None, ge=1)
    """Drop rows with a longer completion (or chosen or rejected reply); the card counts them."""
    max_rows: int | None = Field(default=None, ge=2)
    """Keep at most this many rows (those with the smallest id hash)."""
    contrast: str = OTHERS
    """What baselines without training compare its completions with: `others` (those of all other behaviors, each
    behavior weighing alike), the name of one behavior, or `rejected` (the rejected replies of preference pairs)."""
    metric: Metric | None = None
    """How far an answer shows the behavior; the testbed's behaviors have one built in (share of the style's words)."""
    licence: str = ""
    """Licence of the data, for its card."""
