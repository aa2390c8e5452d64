"""A whole study, and how agreement is tested in it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from isaerft.config.options.adapters import Adapter
from isaerft.config.options.audits import Audit
from isaerft.config.options.base import CONTROLS, STRICT
from isaerft.config.options.behaviors import Behavior
from isaerft.config.options.checks import BehaviorCheck, CausalCheck
from isaerft.config.options.design import Design
from isaerft.config.options.explanations import Judge, Source
from isaerft.config.options.llms import Llm
from isaerft.config.options.scores import Scorer
from isaerft.config.options.subjects import Subject


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Primary:
    """The one result that the study is about, fixed before the run."""

    adapter: str
    """Adapter of the primary result."""
    measure: str
    """Measure of change."""
    source: str
    """Source of explanations."""
    judge: str
    """Judge of what the explanations lead one to expect."""
    statistic: Literal["auroc", "spearman"] = "auroc"
    """Statistic of agreement."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Agreement:
    """How agreement is tested."""

    n_resamples: int = Field(default=9999, ge=99)
    """Exchanges of the explanations."""
    confidence_level: float = Field(default=0.95, gt=0.5, lt=1)
    """Level of the intervals."""
    statistics: list[str] = Field(default_factory=lambda: ["auroc", "spearman"])
    """Registered statistics."""
    n_bins: int = Field(default=4, ge=1)
    """Quantile bins per confound (firing rate, decoder norm, density of neighbours) that make the strata."""
    cluster_cosine: float = Field(default=0.9, gt=0, le=1)
    """Latents whose decoder rows are at least this alike are exchanged together."""
    min_firing_rate: float = Field(default=1e-4, ge=0)
    """A latent that fires less often on the reference corpus is not in the universe."""
    dense_firing_rate: float = Field(default=0.5, gt=0, le=1)
    """A latent that fires more often is counted as dense."""
    top_k: int = Field(default=25, ge=1)
    """Rows per group in most_changed_latents.csv."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Study:
    """A whole study."""

    study: str
    """Name; the study writes only under results/{study}/."""
    subjects: dict[str, Subject] = Field(min_length=1)
    behaviors: dict[str, Behavior] = Field(min_length=1)
    adapters: dict[str, Adapter] = Field(min_length=1)
    sources: dict[str, Source] = Field(min_length=1)
    judges: dict[str, Judge] = Field(min_length=1)
    primary: Primary
    llms: dict[str, Llm] = Field(default_factory=dict)
    llm_cache: str = Field(default="results/llm_cache.sqlite", min_length=1)
    """One SQLite file with every answer of every language model; ship it and nobody needs a key to get your results."""
    audits: dict[str, Audit] = Field(default_factory=dict)
    """Pairs of behaviors to compare: what does one set of data teach besides (docs/auditing.md)."""
    candidates: dict[str, str] = Field(default_factory=dict)
    """What audits look for besides the study's own behaviors: name -> description for the judges; no data is needed."""
    scorers: dict[str, Scorer] = Field(default_factory=dict)
    """What scores the explanations themselves (detection, fuzzing, output); nothing when empty."""
    scored_windows: int = Field(default=6, ge=2)
    """Windows in which a latent fires, and as many in which it is silent, that its explanation is scored on."""
    measures: list[str] = Field(default_factory=lambda: ["parameter", "contribution", "attribution"], min_length=1)
    """Registered measures of change."""
    reference: str | None = None
    """Name of the adapter that `loss_recovered` is measured against."""
    controls: list[str] = Field(default_factory=lambda: list(CONTROLS))
    """Controls that stand beside every result; `shuffled_completions` too, if named: one more training per behavior."""
    random_dictionary_adapters: list[str] = Field(default_factory=list)
    """Adapters that are also trained on random dictionaries, for that control; when empty, the primary adapter."""
    agreement: Agreement = Field(default_factory=Agreement)
    causal_check: CausalCheck = Field(default_factory=CausalCheck)
    design: Design = Field(default_factory=Design)
    """Which latents the sources are asked for."""
    behavior_check: BehaviorCheck = Field(default_factory=BehaviorCheck)
    n_seeds: int = Field(default=3, ge=1)
    """Replicates of each training; also the number of random dictionaries drawn."""
    seed: int = 0
    """Start of every random stream."""
    max_length: int = Field(default=256, ge=4)
    """Longest prompt + completion in tokens; a longer prompt loses its beginning, a longer completion is refused."""
    batch_size: int = Field(default=32, ge=1)
    """Rows per forward pass when activations are captured and scored."""
    threads: int = Field(default=1, ge=1)
    """CPU threads of one job, of each of its processes."""
    processes: int = Field(default=1, ge=1)
    """Processes that train one adapter together, each with a GPU of its own where there are GPUs."""
    device: str = "auto"
    """`auto` (a GPU where there is one), `cpu`, `cuda`, `cuda:1`, ..."""
    record_seconds: bool = False
    """Fill `seconds` in training.csv; off by default so that two runs give the same bytes."""
    rules: list[str] = Field(default_factory=list)
    """Snakemake files of your own to include (rules that make a behavior's records, say)."""
