"""A whole study, and how agreement is tested in it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from isaerft.config.options.adapters import Adapter
from isaerft.config.options.audits import Audit, Poison
from isaerft.config.options.base import CONTROLS, OTHERS, PERMUTED, REJECTED, SHUFFLED, STRICT
from isaerft.config.options.behaviors import Behavior
from isaerft.config.options.checks import BehaviorCheck, CausalCheck
from isaerft.config.options.design import Design
from isaerft.config.options.explanations import Judge, Source
from isaerft.config.options.llms import Llm
from isaerft.config.options.scores import Scorer
from isaerft.config.options.subjects import Subject
from isaerft.registry import CONTRASTED, UNTRAINED


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

    @property
    def results(self) -> str:
        """Folder of the study's results."""
        return f"results/{self.study}"

    def replicate_seed(self, seed: int) -> int:
        """Return where replicate `seed` starts its random streams (row order, LoRA's start, random dictionary)."""
        return 1000 * (self.seed + 1) + seed

    def design_of(self, source: str) -> str:
        """Return which latents a source is asked for: `all` or `case_control`."""
        return self.sources[source].design or self.design.kind

    @property
    def dose_arms(self) -> dict[str, dict[float, str]]:
        """Return side -> share of wrong explanations -> source, for each side with right and with wrong ones."""
        arms: dict[str, dict[float, str]] = {}
        known = [(part.wrong_share, name) for name, part in self.sources.items() if part.wrong_share is not None]
        for share, name in sorted(known):
            arms.setdefault(self.sources[name].side, {})[share] = name
        return {side: arm for side, arm in arms.items() if 0 in arm and len(arm) > 1}

    @property
    def tested_behaviors(self) -> list[str]:
        """Behaviors whose changes are tested against explanations: all but the suspect sets of audits.

        A suspect set is a second copy of a behavior that may be something else; as one more behavior it would count
        its own twice wherever behaviors are replicates.
        """
        suspects = {audit.suspect for audit in self.audits.values()}
        return [name for name in self.behaviors if name not in suspects]

    def trained_behaviors(self, subject: str) -> list[str]:
        """Return the behaviors that a subject is trained on: all; a random-dictionary twin, the tested ones alone."""
        return self.tested_behaviors if subject in self.permuted_subjects else list(self.behaviors)

    @property
    def known_audits(self) -> dict[str, Poison | None]:
        """Audits of which it is known what the suspect data holds: audit -> what was planted there, None for nothing.

        Known is the embedded language, where both sets are of one style.
        """
        known = {}
        for name, audit in self.audits.items():
            clean, suspect = self.behaviors[audit.clean], self.behaviors[audit.suspect]
            planted = suspect.poison is None or suspect.poison.behavior in self.described
            if clean.testbed is not None and clean.testbed == suspect.testbed and clean.poison is None and planted:
                known[name] = suspect.poison
        return known

    @property
    def described(self) -> dict[str, str]:
        """What judges read: name -> description of every tested behavior and of the audits' candidates."""
        return {name: self.behaviors[name].description for name in self.tested_behaviors} | self.candidates

    @property
    def trained_on(self) -> list[str]:
        """Return which parts of a record its adapters are trained on, each of "completion", "chosen", "pair" once."""
        trained = [part for name, part in self.adapters.items() if (part.kind or name) not in UNTRAINED]
        return sorted({adapter.trained_on for adapter in trained})

    def compares_replies(self, behavior: str) -> bool:
        """Tell whether an objective, or a baseline's contrast, needs the rejected replies of a behavior."""
        is_contrast = self.behavior_of(behavior).contrast == REJECTED
        contrasted = any((part.kind or name) in CONTRASTED for name, part in self.adapters.items())
        return "pair" in self.trained_on or (is_contrast and contrasted)

    @property
    def causally_checked(self) -> list[str]:
        """Adapters whose most changed latents are neutralised."""
        chosen = self.causal_check.adapters
        return self.analysed_adapters() if chosen is None else chosen

    @property
    def behavior_checked(self) -> dict[str, list[str]]:
        """Adapters that answer prompts, for each behavior that is scored; empty when the check is off."""
        options = self.behavior_check
        usual = [self.primary.adapter, *([self.reference] if self.reference else [])]
        adapters = list(dict.fromkeys(usual)) if options.adapters is None else options.adapters
        scored = [name for name, part in self.behaviors.items() if part.metric or part.testbed]
        return {name: adapters for name in (scored if options.behaviors is None else options.behaviors) if adapters}

    @property
    def permuted_subjects(self) -> dict[str, str]:
        """Random-dictionary twin of each subject -> the subject, where that control is asked for."""
        return {name + PERMUTED: name for name in self.subjects} if "random_dictionary" in self.controls else {}

    @property
    def shuffled_behaviors(self) -> dict[str, str]:
        """Twin of each tested behavior, its completions exchanged -> the behavior, where that control is asked for."""
        asked = "shuffled_completions" in self.controls
        return {name + SHUFFLED: name for name in self.tested_behaviors} if asked else {}

    def behavior_of(self, name: str) -> Behavior:
        """Return the options of a behavior; for a twin those of the behavior whose completions it exchanges."""
        return self.behaviors[self.shuffled_behaviors.get(name, name)]

    def scorers_of(self, source: str) -> list[str]:
        """Return the scorers of a source's explanations."""
        return [name for name, part in self.scorers.items() if source in (part.sources or [source])]

    @property
    def compared_sources(self) -> dict[str, list[str]]:
        """Sources that each tested judge reads, where they are several; those wrong on purpose are left out."""
        right = {name: part for name, part in self.sources.items() if not part.wrong_share}
        tested = [name for name, part in self.judges.items() if part.tested]
        read = {judge: [name for name, part in right.items() if judge in (part.judges or tested)] for judge in tested}
        return {judge: names for judge, names in read.items() if len(names) > 1}

    def analysed_adapters(self, subject: str | None = None, behavior: str | None = None) -> list[str]:
        """Return the adapters whose changes are analysed: all but the reference; on twins those that controls need."""
        if behavior in self.shuffled_behaviors:
            return [self.primary.adapter]
        names = [name for name in self.adapters if name != self.reference]
        if subject not in self.permuted_subjects:
            return names
        asked = self.random_dictionary_adapters or [self.primary.adapter]
        return [name for name in names if name in asked]

    def contrast_behaviors(self, behavior: str, adapter: str) -> list[str]:
        """Return the behaviors whose text an adapter is fitted against when it is made for `behavior`; most need none.

        None either where the contrast are the behavior's own rejected replies.
        """
        contrast = self.behavior_of(behavior).contrast
        if (self.adapters[adapter].kind or adapter) not in CONTRASTED or contrast == REJECTED:
            return []
        behavior = self.shuffled_behaviors.get(behavior, behavior)
        twins = {behavior, *(audit.clean for audit in self.audits.values() if audit.suspect == behavior)}
        return [name for name in self.tested_behaviors if name not in twins] if contrast == OTHERS else [contrast]
