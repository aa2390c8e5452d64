"""Names to implementations: one registry per kind of part, open to outside packages.

A part registers itself where it is defined, and an outside package through an entry-point group:

>>> from isaerft.registry import Registry
>>> adapters = Registry("adapter", group="isaerft.adapters")
>>> @adapters("scale")
... class Scale: ...
>>> adapters["scale"].__name__
'Scale'
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from isaerft.errors import InputError, unknown_name

T = TypeVar("T")


class Registry(Mapping[str, Any]):
    """A mapping from a part's name to its implementation.

    Parameters
    ----------
    kind : str
        What is registered, as errors call it ("adapter", "judge", ...).
    group : str
        Entry-point group in which outside packages add theirs; each entry point's name is the part's name.
    builtin : mapping of str to str, optional
        Names of our own parts and the module that registers each, imported when the name is first asked for, so that
        listing the names of torch-backed parts costs no torch import.
    """

    def __init__(self, kind: str, *, group: str, builtin: Mapping[str, str] | None = None) -> None:
        self.kind, self.group = kind, group
        self._builtin = dict(builtin or {})
        self._parts: dict[str, Any] = {}

    @property
    def builtin(self) -> frozenset[str]:
        """Names of our own parts."""
        return frozenset(self._builtin)

    def __call__(self, name: str) -> Callable[[T], T]:
        """Register the decorated object under `name`; a second registration of a name is refused."""

        def register(part: T) -> T:
            known = self._parts.get(name)
            if known is not None and known is not part:
                raise ValueError(f"{self.kind} {name!r} is registered twice: {known!r} and {part!r}")
            self._parts[name] = part
            return part

        return register

    def __getitem__(self, name: str) -> Any:
        """Return the part registered under `name`; an unknown name is an `InputError` that lists the valid ones."""
        if name not in self._parts and name in self._builtin:
            import_module(self._builtin[name])
        if name not in self._parts:
            for entry in entry_points(group=self.group):
                if entry.name == name:
                    self._parts[name] = self._load(entry)
        if name not in self._parts:
            raise unknown_name(self.kind, name, self)
        return self._parts[name]

    def _load(self, entry: EntryPoint) -> Any:
        """Load an outside package's part; a package that cannot be imported is an `InputError` that names it."""
        try:
            return entry.load()
        except (ImportError, AttributeError) as error:
            raise InputError(
                f"{self.kind} {entry.name!r} from {entry.value!r} cannot be loaded ({error})",
                remedy="mend or uninstall the package that adds it",
            ) from error

    def __iter__(self) -> Iterator[str]:
        outside = {entry.name for entry in entry_points(group=self.group)}
        return iter(sorted({*self._parts, *self._builtin, *outside}))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name in list(iter(self))

    def check(self, name: str) -> str:
        """Return `name` if it is registered, without importing it; otherwise raise the `InputError`."""
        if name not in self:
            raise unknown_name(self.kind, name, self)
        return name


ADAPTERS = Registry(
    "adapter",
    group="isaerft.adapters",
    builtin={
        "bias": "isaerft.adapters.elementwise",
        "scale": "isaerft.adapters.elementwise",
        "affine": "isaerft.adapters.elementwise",
        "lerp": "isaerft.adapters.elementwise",
        "low_rank": "isaerft.adapters.maps",
        "mlp": "isaerft.adapters.maps",
        "residual": "isaerft.adapters.maps",
        "lora": "isaerft.adapters.weights",
        "checkpoint": "isaerft.adapters.weights",
        "saved": "isaerft.adapters.saved",
        "mean_difference": "isaerft.adapters.baselines",
        "probe": "isaerft.adapters.baselines",
    },
)
CONTRASTED = frozenset({"mean_difference", "probe"})
"""Adapters that are fitted to a behavior against other text, known here so that a config can tell without torch."""
UNTRAINED = CONTRASTED | {"checkpoint", "saved"}
"""Adapters for which no objective is minimised."""
JUDGES = Registry(
    "judge",
    group="isaerft.judges",
    builtin={
        "lexical": "isaerft.judges.lexical",
        "lexicon": "isaerft.judges.lexicon",
        "embedding": "isaerft.judges.embedding",
        "table": "isaerft.judges.file",
        "human": "isaerft.judges.file",
        "llm": "isaerft.judges.llm",
    },
)
SOURCES = Registry(
    "explanation source",
    group="isaerft.sources",
    builtin={
        "file": "isaerft.explanations.file",
        "local": "isaerft.explanations.local",
        "llm": "isaerft.explanations.llm",
        "neuronpedia": "isaerft.explanations.neuronpedia.source",
    },
)
SCORERS = Registry(
    "matcher",
    group="isaerft.scorers",
    builtin={
        "lexical": "isaerft.scorers.matchers",
        "embedding": "isaerft.scorers.matchers",
        "llm": "isaerft.scorers.matchers",
    },
)
ASKING = frozenset({"llm"})
"""Our judges, sources and matchers that ask a language model."""
MEASURES = Registry(
    "measure",
    group="isaerft.measures",
    builtin={
        "parameter": "isaerft.changes.measures",
        "contribution": "isaerft.changes.measures",
        "attribution": "isaerft.changes.measures",
    },
)
STATISTICS = Registry(
    "statistic",
    group="isaerft.statistics",
    builtin={
        "auroc": "isaerft.stats.statistics",
        "stratified_auroc": "isaerft.stats.statistics",
        "spearman": "isaerft.stats.statistics",
        "precision_at_k": "isaerft.stats.statistics",
        "enrichment": "isaerft.stats.statistics",
        "sign_agreement": "isaerft.stats.statistics",
    },
)
OBJECTIVES = Registry(
    "objective",
    group="isaerft.objectives",
    builtin={
        "sft": "isaerft.training.objectives",
        "dpo": "isaerft.training.objectives",
        "simpo": "isaerft.training.objectives",
        "orpo": "isaerft.training.objectives",
    },
)
METRICS = Registry(
    "metric",
    group="isaerft.metrics",
    builtin={
        "phrases": "isaerft.changes.metrics",
        "words": "isaerft.changes.metrics",
        "length": "isaerft.changes.metrics",
        "classifier": "isaerft.changes.metrics",
    },
)
