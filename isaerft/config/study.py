"""Options of a whole study, and what must hold between them before anything runs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from isaerft import registry
from isaerft.config.agreement import Agreement, Primary
from isaerft.config.base import STRICT
from isaerft.config.checks import Audit, BehaviorCheck, CausalCheck, Placebos
from isaerft.config.controls import ASKED_CONTROLS, BEHAVIOR_TWINS, CONTROLS, TWINS
from isaerft.config.dictionaries import MetaSae
from isaerft.config.explanations import Design, Judge, Llm, Scorer, Source
from isaerft.config.maps import LossCurves, MapComponents
from isaerft.config.noise import NoiseProbe
from isaerft.config.steering import SteeringCheck
from isaerft.config.subjects import Subject, check_subject
from isaerft.config.tracking import Tracking
from isaerft.config.training import OTHERS, REJECTED, Adapter, Behavior, Elicit
from isaerft.errors import InputError, from_here, shown, unknown_name

# A log's name is made of three names and two endings, and file systems allow it 255 characters.
SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
# With fewer `isaerft.stats.audit` gives no p-value.
MIN_AUDIT_SEEDS = 4


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Study:
    """A whole study."""

    study: str
    """Name; the study writes only under results/{study}/."""
    include: str | None = None
    """YAML file of parts that studies share, such as data/elicit/behaviors.yaml. Its options count as this file's;
    behaviors, adapters and the like of both are joined by name, and this file's own go first."""
    subjects: dict[str, Subject] = Field(min_length=1)
    behaviors: dict[str, Behavior] = Field(min_length=1)
    replies: str | None = None
    """Folder with a file of replies, BEHAVIOR.jsonl, for every elicited behavior. They were sampled before, by any
    model, and none are sampled: for base models, which follow no instruction, or to train several on one text."""
    adapters: dict[str, Adapter] = Field(min_length=1)
    sources: dict[str, Source] = Field(min_length=1)
    judges: dict[str, Judge] = Field(min_length=1)
    primary: Primary
    smallest_effect: float | None = Field(default=None, gt=0)
    """Smallest specificity that would matter, named before the run: the summary says whether the primary result is
    above or below it. Without it, a study that finds nothing cannot say that there is nothing."""
    llms: dict[str, Llm] = Field(default_factory=dict)
    llm_cache: str = Field(default="results/llm_cache.sqlite", min_length=1)
    """SQLite file with every answer of every language model; whoever has it reproduces the results without a key."""
    audits: dict[str, Audit] = Field(default_factory=dict)
    """Pairs of behaviors to compare: what does the suspect data teach in addition? See docs/auditing.md."""
    candidates: dict[str, str] = Field(default_factory=dict)
    """What audits look for in addition to the study's behaviors: name -> description for the judges; needs no data."""
    scorers: dict[str, Scorer] = Field(default_factory=dict)
    """Scorers of the explanations themselves; none when empty."""
    scored_windows: int = Field(default=6, ge=2)
    """Windows in which a latent fires, and as many in which it is silent, that its explanation is scored on."""
    measures: list[str] = Field(default_factory=lambda: ["parameter", "contribution", "attribution"], min_length=1)
    """Registered measures of change."""
    reference: str | None = None
    """Name of the adapter that `loss_recovered` is measured against."""
    controls: list[str] = Field(default_factory=lambda: list(CONTROLS))
    """Controls of every result. Only if named: `among_expected`; `shuffled_completions`, which trains each twice; the
    random baselines `frozen_decoder`, `frozen_encoder`, `untrained_dictionary` and `random_model`, each of which has a
    dictionary, explanations and trainings of its own (docs/statistics.md); and `erased_mean`, `erased_leace`,
    `erased_iterative` and `erased_random`, which train each again without the behavior's directions
    (docs/instruments.md)."""
    random_dictionary_adapters: list[str] = Field(default_factory=list)
    """Adapters that are also trained on random dictionaries, for that control; when empty, the primary adapter."""
    placebos: Placebos = Field(default_factory=Placebos)
    agreement: Agreement = Field(default_factory=Agreement)
    causal_check: CausalCheck = Field(default_factory=CausalCheck)
    design: Design = Field(default_factory=Design)
    """Which latents the sources are asked for."""
    behavior_check: BehaviorCheck = Field(default_factory=BehaviorCheck)
    steering_check: SteeringCheck | None = None
    """Whether verdicts on explanations agree with what steering does; off when not given."""
    map_components: MapComponents | None = None
    """What learned maps read and write, component by component; off when not given."""
    meta_sae: MetaSae | None = None
    """What latents are composed of, by a dictionary of the decoder's rows; off when not given."""
    loss_curves: LossCurves | None = None
    """How far loss falls with few directions of the SAE's basis, and of the residual stream; off when not given."""
    noise_probe: NoiseProbe | None = None
    """How answers and losses respond to noise in the model, before and after training; off when not given."""
    n_seeds: int = Field(default=3, ge=1)
    """Replicates of each training; also the number of random dictionaries drawn."""
    seed: int = 0
    """Start of every random stream."""
    max_length: int = Field(default=256, ge=4)
    """Longest prompt + completion in tokens; a longer prompt loses its beginning, a longer completion is refused."""
    batch_size: int = Field(default=32, ge=1)
    """Rows per forward pass when activations are captured and scored."""
    threads: int = Field(default=1, ge=1)
    """CPU threads of one job, of each of its processes; one that all others wait for takes two if they are there."""
    processes: int = Field(default=1, ge=1)
    """Processes that train one adapter together, each on its own GPU if there are GPUs."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")
    """`auto` (a GPU where there is one), `cpu`, `cuda`, `cuda:1`, ... or `mps`; it must be there when a job starts."""
    rephrased_prompts: bool = False
    """Also say how well baselines' directions tell held-out replies apart under prompts of another phrasing, those of
    the records' field `rephrased` (diagnostics.csv)."""
    train_loss: bool = False
    """Also take the loss on training rows, as many as are held out, for training.csv and its figure."""
    change_shape: bool = False
    """Make change_shape.csv: how few latents carry half of each effect, and the tail of the changes."""
    record_seconds: bool = False
    """Fill `seconds` in training.csv and show in summary.html where the time went; two runs then differ in bytes."""
    tracking: Tracking | None = None
    rules: list[str] = Field(default_factory=list)
    """Snakemake files of your own to include (rules that make a behavior's records, say)."""

    @model_validator(mode="after")
    def _check(self) -> Study:
        """Refuse what cannot be run, naming the part of the study that is at fault."""
        self._check_names()
        self._check_registered()
        self._check_audits()
        self._check_references()
        self._check_llms()
        self._check_metrics()
        for name, behavior in self.behaviors.items():
            _check_behavior(name, behavior)
            if self.replies is not None and behavior.elicit is not None:
                _check_replies(name, Path(self.replies))
        for name, subject in self.subjects.items():
            check_subject(name, subject)
        self._check_word_lists()
        return self

    def _check_names(self) -> None:
        """Names become parts of paths and wildcards, so only slugs are allowed."""
        groups = ["subjects", "behaviors", "adapters", "sources", "judges", "scorers", "llms", "audits", "candidates"]
        named = [("study", self.study), *((group[:-1], name) for group in groups for name in getattr(self, group))]
        for kind, name in named:
            taken = (*TWINS, *BEHAVIOR_TWINS) if kind == "behavior" else TWINS
            if not SLUG.fullmatch(name) or name.endswith(taken):
                raise InputError(
                    f"{kind} name {shown(name)}",
                    allowed=f"at most 64 letters, digits, - and _, beginning with a letter or digit, not"
                    f" ending in {' or '.join(taken)}",
                )
        for name in (OTHERS, REJECTED):
            if name in self.behaviors:
                raise InputError(f"behavior name {name!r}", remedy="choose another: it has a meaning under `contrast`")

    def _check_word_lists(self) -> None:
        """Every embedded subject knows the words in which the behaviors are written."""
        for name, behavior in self.behaviors.items():
            for subject, part in self.subjects.items():
                if part.testbed is not None and behavior.testbed_words not in part.testbed.word_lists:
                    raise InputError(
                        f"behavior {name!r} is written in {behavior.testbed_words}, which subject {subject!r} lacks",
                        remedy="give the subject `testbed: {paraphrase: true}`",
                    )

    def _check_registered(self) -> None:
        """Every kind that the study names is registered; ours are not imported to find out."""
        for registered, parts in (
            (registry.ADAPTERS, self.adapters),
            (registry.SOURCES, self.sources),
            (registry.JUDGES, self.judges),
            (registry.SCORERS, self.scorers),
        ):
            for name, part in parts.items():
                registered.check(part.kind or name)
        for scorer in self.scorers.values():
            for score in scorer.scores:
                registry.SCORES.check(score)
        for adapter in self.adapters.values():
            registry.OBJECTIVES.check(adapter.objective)
        for measure in self.measures:
            registry.MEASURES.check(measure)
        for statistic in self.agreement.statistics:
            registry.STATISTICS.check(statistic)
        statistic = self.primary.statistic
        if statistic in registry.STATISTICS and not registry.STATISTICS.facts(statistic).primary:
            can = [name for name in registry.STATISTICS if registry.STATISTICS.facts(name).primary]
            raise InputError(f"primary.statistic {statistic!r}", allowed=", ".join(can))
        for control in self.controls:
            if control not in CONTROLS + ASKED_CONTROLS:
                raise unknown_name("control", control, CONTROLS + ASKED_CONTROLS)

    def _check_audits(self) -> None:
        """Both sets of an audit exist and differ, enough seeds compare them, and poison can be planted."""
        for name, audit in self.audits.items():
            for kind, compared in (("clean", audit.clean), ("suspect", audit.suspect)):
                if compared not in self.behaviors:
                    raise unknown_name(f"audits.{name}.{kind}", compared, self.behaviors)
            if audit.clean == audit.suspect:
                raise InputError(
                    f"audit {name!r} compares {audit.clean!r} with itself",
                    allowed="two behaviors with data of their own",
                    remedy="give the suspect data a behavior of its own",
                )
        suspects = {audit.suspect: name for name, audit in self.audits.items()}
        for name, audit in self.audits.items():
            if audit.clean in suspects:
                raise InputError(
                    f"behavior {audit.clean!r} is clean in audit {name!r} and suspect in {suspects[audit.clean]!r}",
                    remedy="compare suspect sets with a set that is trusted throughout",
                )
        for name, description in self.candidates.items():
            if name in self.behaviors:
                raise InputError(f"candidate {name!r} is also a behavior", remedy="leave it out of `candidates`")
            if not description.strip():
                raise InputError(f"candidate {name!r} has no description", remedy="describe it: the judges read this")
        for name, behavior in self.behaviors.items():
            if behavior.poison is not None:
                self._check_poison(name, behavior)
        if self.audits:
            self._check_compared()

    def _check_compared(self) -> None:
        """The spread over seeds of the primary statistic says what other rows would have given."""
        n_seeds = min(part.n_seeds or self.n_seeds for name, part in self.adapters.items() if name != self.reference)
        if n_seeds < MIN_AUDIT_SEEDS:
            raise InputError(
                f"audits with n_seeds {n_seeds}",
                allowed=f"at least {MIN_AUDIT_SEEDS}: fewer hardly know how much other rows of one origin differ",
                remedy=f"set n_seeds: {MIN_AUDIT_SEEDS}",
            )
        can = [
            name
            for name in registry.STATISTICS
            if (facts := registry.STATISTICS.facts(name)).primary and facts.chance is not None
        ]
        if self.primary.statistic not in can:
            raise InputError(
                f"audits with primary.statistic {self.primary.statistic!r}",
                allowed=f"{', '.join(can)}: their value by `chance` is known",
                remedy="choose one of these, or register this fact with the statistic if it holds",
            )

    def _check_poison(self, name: str, behavior: Behavior) -> None:
        planted = behavior.poison.behavior if behavior.poison else ""
        if planted not in self.behaviors:
            raise unknown_name(f"behaviors.{name}.poison.behavior", planted, self.behaviors)
        if planted == name or self.behaviors[planted].poison is not None:
            raise InputError(
                f"behavior {name!r} is poisoned with {planted!r}", allowed="another behavior, itself without poison"
            )
        if behavior.rule:
            raise InputError(
                f"behavior {name!r} is poisoned and made by a rule of your own", remedy="plant the rows in that rule"
            )

    def _check_references(self) -> None:
        """Names that point at other parts of the study exist there."""
        for kind, name, valid in self._references():
            if name not in valid:
                raise unknown_name(kind, name, valid)
        for name, behavior in self.behaviors.items():
            valid = [OTHERS, REJECTED, *(other for other in self.behaviors if other != name)]
            if behavior.contrast not in valid:
                raise unknown_name(f"behaviors.{name}.contrast", behavior.contrast, valid)
            unnamed = behavior.elicit is not None and behavior.elicit.subject is None and self.replies is None
            models = {part.model_settings for part in self.subjects.values()}
            if unnamed and len(models) > 1:
                raise InputError(
                    f"behavior {name!r}: elicit names no subject, and the study's have {len(models)} models",
                    allowed=", ".join(self.subjects),
                    remedy="add `subject:` under elicit",
                )
        for name, adapter in self.adapters.items():
            leaves = registry.ADAPTERS.facts(adapter.kind or name).leaves_latents(adapter.options)
            if leaves and name != self.reference:
                raise InputError(
                    f"adapter {name!r} changes no latent: it acts above the SAE's hook",
                    allowed="as the `reference` only",
                    remedy=f"add `reference: {name}`, or let it act below the hook (`options: {{where: below}}`)",
                )
        source, primary = self.sources[self.primary.source], self.primary
        unread = source.judges and primary.judge not in source.judges
        untested = source.adapters and primary.adapter not in source.adapters
        if unread or untested or primary.adapter == self.reference:
            raise InputError(
                f"primary {primary.adapter!r}, {primary.source!r}, {primary.judge!r}",
                allowed="an adapter that is not the reference, and a judge and an adapter of the source",
            )
        if not self.judges[primary.judge].tested:
            raise InputError(f"primary.judge {primary.judge!r} is not tested", remedy="remove its `tested: false`")
        files = [
            ("source", name, path)
            for name, part in self.sources.items()
            for path in (part.path, part.features, part.key)
        ]
        files += [("judge", name, part.path) for name, part in self.judges.items()]
        files += [("scorer", name, part.path) for name, part in self.scorers.items()]
        for kind, name, path in files:
            if path is not None and "{subject_dir}" not in path and not os.path.exists(path):
                raise _missing(f"{kind} {name!r}: {path!r}", path)

    @property
    def linear_adapters(self) -> list[str]:
        """Adapters that hold linear maps, which can be read."""
        parts = self.adapters.items()
        return [name for name, part in parts if registry.ADAPTERS.facts(part.kind or name).linear(part.options)]

    @property
    def curved_behaviors(self) -> list[str]:
        """Behaviors whose loss is taken as a curve; none when the option is off."""
        if self.loss_curves is None:
            return []
        return list(self.behaviors) if self.loss_curves.behaviors is None else self.loss_curves.behaviors

    def _references(self) -> Iterator[tuple[str, str, Mapping[str, object] | list[str]]]:
        """Yield references to other parts of the study: the option, the name, and the names allowed."""
        analyzed = [name for name in self.adapters if name != self.reference]
        yield "primary.adapter", self.primary.adapter, self.adapters
        yield "primary.measure", self.primary.measure, self.measures
        yield "primary.source", self.primary.source, self.sources
        yield "primary.judge", self.primary.judge, self.judges
        yield "primary.statistic", self.primary.statistic, self.agreement.statistics
        if self.reference:
            yield "reference", self.reference, self.adapters
        for source, part in self.sources.items():
            for kind, names, valid in (
                ("subjects", part.subjects, self.subjects),
                ("judges", part.judges, self.judges),
                ("adapters", part.adapters, analyzed),
            ):
                yield from ((f"sources.{source}.{kind}", name, valid) for name in names)
        for scorer, options in self.scorers.items():
            yield from ((f"scorers.{scorer}.sources", name, self.sources) for name in options.sources)
        yield from (("random_dictionary_adapters", name, analyzed) for name in self.random_dictionary_adapters)
        yield from (("causal_check.adapters", name, analyzed) for name in self.causal_check.adapters or [])
        chosen = self.map_components.adapters if self.map_components else None
        yield from (("map_components.adapters", name, self.linear_adapters) for name in chosen or [])
        curved = self.loss_curves.behaviors if self.loss_curves else None
        yield from (("loss_curves.behaviors", name, self.behaviors) for name in curved or [])
        for name, behavior in self.behaviors.items():
            if behavior.elicit is not None and behavior.elicit.subject is not None:
                yield f"behaviors.{name}.elicit.subject", behavior.elicit.subject, self.subjects
        yield from (("behavior_check.adapters", name, self.adapters) for name in self.behavior_check.adapters or [])
        yield from (("behavior_check.behaviors", name, self.behaviors) for name in self.behavior_check.behaviors or [])

    def _check_llms(self) -> None:
        """Parts that ask a language model name one of the study's, and no other parts do."""
        kinds: list[tuple[str, Mapping[str, Source | Judge | Scorer], registry.Registry[Any]]] = [
            ("judge", self.judges, registry.JUDGES),
            ("source", self.sources, registry.SOURCES),
            ("scorer", self.scorers, registry.SCORERS),
        ]
        for kind, parts, registered in kinds:
            for name, part in parts.items():
                if part.llm is not None and part.llm not in self.llms:
                    raise unknown_name(f"{kind}s.{name}.llm", part.llm, self.llms)
                chosen = part.kind or name
                asks = registered.facts(chosen).asks
                if part.llm is not None and not asks:
                    raise InputError(
                        f"{kind} {name!r} names the model {part.llm!r}, but its kind {chosen!r} asks none",
                        remedy="remove its `llm`, or give it `kind: llm`",
                    )
                if asks and part.llm is None:
                    raise InputError(
                        f"{kind} {name!r} is of kind {chosen!r} and names no model",
                        remedy="add `llm: NAME`, a model described under `llms`",
                    )

    def _check_metrics(self) -> None:
        """Behaviors to check have a metric, and every metric has the option that it needs."""
        for name in self.behavior_check.behaviors or []:
            if self.behaviors[name].metric is None and self.behaviors[name].testbed is None:
                raise InputError(
                    f"behavior_check.behaviors: {name!r} has no metric",
                    remedy="give the behavior a `metric`, or leave it out",
                )
        if self.behavior_check.n_seeds > self.n_seeds:
            raise InputError(
                f"behavior_check.n_seeds {self.behavior_check.n_seeds}", allowed=f"at most n_seeds, {self.n_seeds}"
            )
        for name, behavior in self.behaviors.items():
            if behavior.metric is None:
                continue
            kind = registry.METRICS.check(behavior.metric.kind)
            if behavior.metric.pattern is not None:
                _check_pattern(name, behavior.metric.pattern)
            needs = registry.METRICS.facts(kind).needs
            if needs and not getattr(behavior.metric, needs, behavior.metric.options.get(needs)):
                raise InputError(f"behavior {name!r}: metric {kind!r} without {needs}", remedy=f"add `{needs}:`")


def _missing(what: str, path: str, option: str = "the path") -> InputError:
    return InputError(f"{what} does not exist", remedy=f"check {option}{from_here(path)}")


def _check_behavior(name: str, behavior: Behavior) -> None:
    """A behavior has exactly one origin, and a local file exists."""
    origins = [behavior.path, behavior.dataset, behavior.elicit, behavior.testbed, behavior.rule or None]
    n_origins = sum(origin is not None for origin in origins)
    if n_origins != 1:
        allowed = "exactly one of path, dataset, elicit, testbed, rule"
        raise InputError(f"behavior {name!r} names {n_origins} origins", allowed=allowed)
    if behavior.elicit is not None:
        _check_elicit(name, behavior, behavior.elicit)
    if behavior.dataset is not None and not behavior.revision:
        raise InputError(
            f"behavior {name!r}: dataset {behavior.dataset!r} without a revision",
            remedy="add `revision:` with the dataset's commit, so that the data cannot change under the study",
        )
    if behavior.path is not None:
        if not os.path.isfile(behavior.path):
            raise _missing(f"behavior {name!r}: file {behavior.path!r}", behavior.path)
        if os.path.getsize(behavior.path) == 0:
            raise InputError(f"behavior {name!r}: file {behavior.path!r} is empty", remedy="check the path")


def _check_replies(name: str, folder: Path) -> None:
    if not os.path.isfile(path := str(folder / f"{name}.jsonl")):
        raise InputError(
            f"behavior {name!r}: its replies {path!r} do not exist",
            remedy="check `replies`, or copy results/STUDY/elicited/ of a study that samples them",
        )


def _check_pattern(name: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise InputError(
            f"behavior {name!r}: metric.pattern {shown(pattern)} is not a regular expression ({error})",
            remedy="see Python's re module",
        ) from None


def _check_elicit(name: str, behavior: Behavior, elicit: Elicit) -> None:
    """An elicited behavior has prompts, and a metric if an instruction asks for something."""
    if not os.path.isfile(elicit.prompts):
        raise _missing(f"behavior {name!r}: file {elicit.prompts!r}", elicit.prompts, "elicit.prompts")
    if behavior.columns or behavior.where or behavior.format != "columns":
        raise InputError(
            f"behavior {name!r} is elicited and maps columns", remedy="remove columns, where and format: they are fixed"
        )
    if elicit.instruction.strip() and (behavior.metric is None or elicit.min_score is None):
        raise InputError(
            f"behavior {name!r}: elicit has an instruction, and nothing tells whether replies follow it",
            remedy="add a `metric` to the behavior, and `min_score` to elicit",
        )
    if elicit.min_score is not None and behavior.metric is None:
        raise InputError(f"behavior {name!r}: elicit.min_score without a metric", remedy="add a `metric`")
