"""Parts by name: one registry per kind of part, open to outside packages.

A part is registered with the facts that other modules need, so that none keeps a list of names. Built-in parts are
declared below, one line each, and imported on first use. An outside package registers a part
with a decorator and names it in an entry-point group:

>>> from isaerft.registry import AdapterFacts, Registry
>>> adapters = Registry("adapter", AdapterFacts, group="isaerft.adapters")
>>> @adapters("contrast", made="fitted", contrasted=True)
... class Contrast: ...
>>> adapters["contrast"].__name__, adapters.facts("contrast").contrasted
('Contrast', True)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, Literal, TypeVar

from isaerft.errors import InputError, unknown_name

Part = TypeVar("Part")
Facts = TypeVar("Facts")


@dataclass(frozen=True)
class AdapterFacts:
    """What others need to know of a kind of adapter."""

    made: Literal["latents", "model", "fitted", "checkpoint", "saved"] = "latents"
    """How it is made: trained on latents, trained on the model outside the SAE's basis, fitted without
    training, loaded as a fine-tuned model, or loaded as a saved adapter."""
    contrasted: bool = False
    """Whether it is fitted to a behavior against other text."""
    instructed: bool = False
    """Whether it is fitted to the replies of an elicited behavior with the instruction in the prompt."""
    leaves_latents: Callable[[Mapping[str, object]], bool] = lambda options: False
    """Tells from its options whether it changes no latent, so that it can only be a study's reference."""
    linear: Callable[[Mapping[str, object]], bool] = lambda options: False
    """Tells from its options whether it holds linear maps, which can be read (`isaerft.changes.parts`)."""

    @property
    def trained(self) -> bool:
        """Whether an objective is minimized."""
        return self.made in ("latents", "model")

    @property
    def loaded(self) -> bool:
        """Whether it is loaded from files, so that no data of the study makes it."""
        return self.made in ("checkpoint", "saved")

    @property
    def on_model(self) -> bool:
        """Whether it acts on the model outside the SAE's basis, so that its change of latents is pulled back."""
        return self.made in ("model", "checkpoint")


@dataclass(frozen=True)
class ObjectiveFacts:
    """What others need to know of a training objective."""

    pairs: bool = False
    """Whether it compares a chosen with a rejected reply."""


@dataclass(frozen=True)
class MeasureFacts:
    """What others need to know of a measure of change."""

    directed: bool = True
    """Whether its sign says which way a latent was pushed."""
    additive: bool = False
    """Whether the changes of all latents sum to the fall in loss."""


@dataclass(frozen=True)
class StatisticFacts:
    """What others need to know of a statistic of agreement."""

    title: str = ""
    """Its name in prose; the registered name when empty."""
    graded: bool = False
    """Whether expectations are effects in [-1, 1] instead of yes or no."""
    directed: bool = False
    """Whether it reads the sign of the change."""
    pooled: bool = False
    """Whether its mean over several changes and expectations is linear in the latents."""
    primary: bool = True
    """Whether a study may name it as its primary statistic."""
    chance: float | None = None
    """Its value without agreement, where that is known."""
    bounds: tuple[float, float] = (float("-inf"), float("inf"))
    """Its lowest and highest possible value."""


@dataclass(frozen=True)
class AskingFacts:
    """What others need to know of a judge, a scorer or an explanation source."""

    asks: bool = False
    """Whether it asks a language model of the study (`llm` in its options)."""


@dataclass(frozen=True)
class ScorerFacts(AskingFacts):
    """What others need to know of a scorer."""

    embeds: bool = False
    """Whether it makes a vector of every window, whatever the explanation: made once for several sources."""


@dataclass(frozen=True)
class SourceFacts(AskingFacts):
    """What others need to know of an explanation source."""

    own_contexts: bool = False
    """Whether it explains latents from the subject's own contexts, so that it can be of no other SAE."""


@dataclass(frozen=True)
class ScoreFacts:
    """What others need to know of a score of explanations. Larger is better in every score."""

    meaning: str = ""
    """What it measures, as tables say it."""
    paper: str = ""
    """Where its procedure was published."""
    side: Literal["input", "output"] = "input"
    """Whether its evidence is what the latent fires on, or what it makes the model say."""
    chance: float | None = None
    """Its value for an explanation that says nothing, where that is known."""
    bounds: tuple[float, float] = (0.0, 1.0)
    """Its lowest and highest possible value."""
    steered: bool = False
    """Whether it needs texts that the model writes while each latent is amplified."""
    reads_explanation: bool = True
    """False for a control that never sees the explanation, so that it cannot tell right from wrong."""


@dataclass(frozen=True)
class JudgeFacts(AskingFacts):
    """What others need to know of a judge."""

    given: bool = False
    """Whether its answers are given in a file, so that it knows no other explanations than those in it."""


@dataclass(frozen=True)
class MetricFacts:
    """What others need to know of a metric of answers."""

    needs: str = ""
    """Option without which it cannot score."""


class Registry(Mapping[str, Any], Generic[Facts]):
    """A mapping from a part's name to its implementation.

    Parameters
    ----------
    kind : str
        What is registered, as errors call it ("adapter", "judge", ...).
    facts : type
        Dataclass of the facts that come with a registration.
    group : str
        Entry-point group of outside packages; an entry point's name is the part's name.
    """

    def __init__(self, kind: str, facts: type[Facts], *, group: str) -> None:
        self.kind, self.group = kind, group
        self._facts_type = facts
        self._targets: dict[str, str] = {}
        self._facts: dict[str, Facts] = {}
        self._parts: dict[str, Any] = {}

    @property
    def builtin(self) -> tuple[str, ...]:
        """Names of our own parts, as declared."""
        return tuple(self._targets)

    def declare(self, name: str, target: str, **facts: Any) -> None:
        """Register one of our own parts, "module:attribute", without importing it."""
        self._targets[name] = target
        self._facts[name] = self._facts_type(**facts)

    def __call__(self, name: str, **facts: Any) -> Callable[[Part], Part]:
        """Register the decorated object under `name` with its facts; a name can be registered once."""
        if name in self._targets:
            raise ValueError(f"{self.kind} {name!r} is one of isaerft's own; choose another name")

        def register(part: Part) -> Part:
            known = self._parts.get(name)
            if known is not None and known is not part:
                raise ValueError(f"{self.kind} {name!r} is registered twice: {known!r} and {part!r}")
            self._parts[name] = part
            carried = getattr(part, "facts", None)
            if not facts and isinstance(carried, self._facts_type):
                self._facts[name] = carried
            else:
                self._facts[name] = self._facts_type(**facts)
            return part

        return register

    def __getitem__(self, name: str) -> Any:
        """Return the part registered under `name`; an unknown name is an `InputError` that lists the valid ones."""
        if name not in self._parts and name in self._targets:
            module, _, attribute = self._targets[name].partition(":")
            self._parts[name] = getattr(import_module(module), attribute)
        elif name not in self._parts:
            self._parts[name] = self._load(self._entry(name))
        return self._parts[name]

    def facts(self, name: str) -> Facts:
        """Return the facts of a part; those of an outside package are read by importing it."""
        if name not in self._facts:
            # Without the decorator, a part may carry its facts itself.
            facts = getattr(self[name], "facts", None)
            self._facts.setdefault(name, facts if isinstance(facts, self._facts_type) else self._facts_type())
        return self._facts[name]

    def module_of(self, name: str) -> str:
        """Return the module that defines a part, without importing it."""
        if name in self._targets:
            return self._targets[name].partition(":")[0]
        if name in self._parts:
            return str(self._parts[name].__module__)
        return self._entry(name).module

    def check(self, name: str) -> str:
        """Return `name` if it is registered, without importing it; otherwise raise the `InputError`."""
        if name not in self:
            raise unknown_name(self.kind, name, self)
        return name

    def _entry(self, name: str) -> EntryPoint:
        for entry in entry_points(group=self.group):
            if entry.name == name:
                return entry
        raise unknown_name(self.kind, name, self)

    def _load(self, entry: EntryPoint) -> Any:
        """Load an outside package's part; a package that cannot be imported is an `InputError` that names it."""
        try:
            return entry.load()
        except (ImportError, AttributeError) as error:
            raise InputError(
                f"{self.kind} {entry.name!r} from {entry.value!r} cannot be loaded ({error})",
                remedy="fix or uninstall the package that adds it",
            ) from error

    # A registry is one thing, and not equal to another with the same parts: comparing those would import them.
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __iter__(self) -> Iterator[str]:
        outside = {entry.name for entry in entry_points(group=self.group)}
        return iter(sorted({*self._parts, *self._targets, *outside}))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        # Outside packages last: to look for them reads the metadata of all installed packages.
        return name in self._parts or name in self._targets or name in list(iter(self))


ADAPTERS = Registry("adapter", AdapterFacts, group="isaerft.adapters")
ADAPTERS.declare("bias", "isaerft.adapters.elementwise:Bias")
ADAPTERS.declare("scale", "isaerft.adapters.elementwise:Scale")
ADAPTERS.declare("affine", "isaerft.adapters.elementwise:Affine")
ADAPTERS.declare("lerp", "isaerft.adapters.elementwise:Lerp")
ADAPTERS.declare("low_rank", "isaerft.adapters.maps:LowRank", linear=lambda options: True)
ADAPTERS.declare("mlp", "isaerft.adapters.maps:Mlp", linear=lambda options: options.get("depth") == 0)
ADAPTERS.declare("residual", "isaerft.adapters.model:Residual", made="model", linear=lambda options: True)
ADAPTERS.declare(
    "lora",
    "isaerft.adapters.weights:Lora",
    made="model",
    # A LoRA above the hook leaves what the SAE reads as it is.
    leaves_latents=lambda options: options.get("where", "above") == "above",
    linear=lambda options: True,
)
ADAPTERS.declare("checkpoint", "isaerft.adapters.weights:Checkpoint", made="checkpoint")
ADAPTERS.declare("saved", "isaerft.adapters.saved:Saved", made="saved")
ADAPTERS.declare("mean_difference", "isaerft.adapters.baselines:MeanDifference", made="fitted", contrasted=True)
ADAPTERS.declare("probe", "isaerft.adapters.baselines:Probe", made="fitted", contrasted=True)
ADAPTERS.declare("lat", "isaerft.adapters.baselines:Lat", made="fitted", contrasted=True)
ADAPTERS.declare("logit_lens", "isaerft.adapters.baselines:LogitLens", made="fitted", contrasted=True)
ADAPTERS.declare("first_gradient", "isaerft.adapters.baselines:FirstGradient", made="fitted")
ADAPTERS.declare("prompting", "isaerft.adapters.baselines:Prompting", made="fitted", instructed=True)

OBJECTIVES = Registry("objective", ObjectiveFacts, group="isaerft.objectives")
OBJECTIVES.declare("sft", "isaerft.training.objectives:sft")
OBJECTIVES.declare("dpo", "isaerft.training.objectives:dpo", pairs=True)
OBJECTIVES.declare("simpo", "isaerft.training.objectives:simpo", pairs=True)
OBJECTIVES.declare("orpo", "isaerft.training.objectives:orpo", pairs=True)

MEASURES = Registry("measure", MeasureFacts, group="isaerft.measures")
MEASURES.declare("parameter", "isaerft.changes.measures:parameter")
MEASURES.declare("contribution", "isaerft.changes.measures:contribution")
# Its sign says whether the change lowered the loss.
MEASURES.declare("attribution", "isaerft.changes.measures:attribution", directed=False, additive=True)

STATISTICS = Registry("statistic", StatisticFacts, group="isaerft.statistics")
STATISTICS.declare("auroc", "isaerft.stats.statistics:AUROC", title="AUROC", pooled=True, chance=0.5, bounds=(0.0, 1.0))
STATISTICS.declare(
    "stratified_auroc", "isaerft.stats.statistics:STRATIFIED_AUROC", primary=False, chance=0.5, bounds=(0.0, 1.0)
)
STATISTICS.declare(
    "spearman",
    "isaerft.stats.statistics:SPEARMAN",
    title="Spearman correlation",
    graded=True,
    pooled=True,
    chance=0.0,
    bounds=(-1.0, 1.0),
)
STATISTICS.declare("precision_at_k", "isaerft.stats.statistics:PRECISION_AT_K", primary=False, bounds=(0.0, 1.0))
STATISTICS.declare("enrichment", "isaerft.stats.statistics:ENRICHMENT", primary=False)
STATISTICS.declare(
    "sign_agreement",
    "isaerft.stats.statistics:SIGN_AGREEMENT",
    primary=False,
    graded=True,
    directed=True,
    pooled=True,
    bounds=(-1.0, 1.0),
)

SOURCES = Registry("explanation source", SourceFacts, group="isaerft.sources")
SOURCES.declare("file", "isaerft.explanations.file:from_file")
SOURCES.declare("local", "isaerft.explanations.local:from_contexts", own_contexts=True)
SOURCES.declare("llm", "isaerft.explanations.llm:llm", asks=True, own_contexts=True)
SOURCES.declare("neuronpedia", "isaerft.explanations.neuronpedia.source:from_neuronpedia")

JUDGES = Registry("judge", JudgeFacts, group="isaerft.judges")
JUDGES.declare("lexical", "isaerft.judges.lexical:lexical")
JUDGES.declare("lexicon", "isaerft.judges.lexicon:lexicon")
JUDGES.declare("embedding", "isaerft.judges.embedding:embedding")
JUDGES.declare("table", "isaerft.judges.file:from_table", given=True)
JUDGES.declare("human", "isaerft.judges.file:human", given=True)
JUDGES.declare("llm", "isaerft.judges.llm:llm", asks=True)

SCORERS = Registry("scorer", ScorerFacts, group="isaerft.scorers")
SCORERS.declare("lexical", "isaerft.scorers.similarity:lexical")
SCORERS.declare("embedding", "isaerft.scorers.similarity:embedding", embeds=True)
SCORERS.declare("llm", "isaerft.scorers.llm:llm", asks=True)
SCORERS.declare("lexicon", "isaerft.scorers.lexicon:lexicon")

SCORES = Registry("score", ScoreFacts, group="isaerft.scores")
SCORES.declare(
    "detection",
    "isaerft.scorers.scores:DETECTION",
    meaning="windows in which the latent fires, among others (AUROC; by embeddings, it is delphi's embedding score)",
    paper="Paulo et al. 2024, arXiv 2410.13928",
    chance=0.5,
)
SCORES.declare(
    "fuzzing",
    "isaerft.scorers.scores:FUZZING",
    meaning="the tokens on which it fires, among others of the same windows (AUROC)",
    paper="Paulo et al. 2024, arXiv 2410.13928",
    chance=0.5,
)
SCORES.declare(
    "output",
    "isaerft.scorers.scores:OUTPUT",
    meaning="the tokens that it makes more likely, among those of other latents (AUROC)",
    paper="after Gur-Arieh et al. 2025, arXiv 2501.08319",
    side="output",
    chance=0.5,
)
SCORES.declare(
    "simulation",
    "isaerft.scorers.scores:SIMULATION",
    meaning="correlation, over tokens, of real activations with those that the explanation leads one to expect",
    paper="Bills et al. 2023, Language models can explain neurons in language models",
    chance=0.0,
    bounds=(-1.0, 1.0),
)
SCORES.declare(
    "intruder",
    "isaerft.scorers.scores:INTRUDER",
    meaning="a control that sees no explanation: the window in which the latent is silent, found among five (accuracy)",
    paper="delphi (EleutherAI), intruder detection",
    chance=0.2,
    reads_explanation=False,
)
SCORES.declare(
    "responsiveness",
    "isaerft.scorers.scores:RESPONSIVENESS",
    meaning="how far windows that the explanation fits have larger activations than others (absolute Gini coefficient)",
    paper="FADE: Puri et al. 2025, arXiv 2502.16994",
    chance=0.0,
)
SCORES.declare(
    "purity",
    "isaerft.scorers.scores:PURITY",
    meaning="whether it fires on nothing else: average precision of activations for windows that the explanation fits",
    paper="FADE: Puri et al. 2025, arXiv 2502.16994",
)
SCORES.declare(
    "steering",
    "isaerft.scorers.scores:STEERING",
    meaning="texts that the model writes while the latent is amplified, among those that it writes anyway (AUROC)",
    paper="after Gur-Arieh et al. 2025, arXiv 2501.08319",
    side="output",
    chance=0.5,
    steered=True,
)
SCORES.declare(
    "faithfulness",
    "isaerft.scorers.scores:FAITHFULNESS",
    meaning="by how much amplifying raises the share of texts that fit, of what there is to raise",
    paper="FADE: Puri et al. 2025, arXiv 2502.16994",
    side="output",
    chance=0.0,
    steered=True,
)

METRICS = Registry("metric", MetricFacts, group="isaerft.metrics")
METRICS.declare("phrases", "isaerft.changes.metrics:phrases", needs="phrases")
METRICS.declare("words", "isaerft.changes.metrics:words", needs="words")
METRICS.declare("pattern", "isaerft.changes.metrics:pattern", needs="pattern")
METRICS.declare("length", "isaerft.changes.metrics:length")
METRICS.declare("classifier", "isaerft.changes.metrics:classifier", needs="model")
