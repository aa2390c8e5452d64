"""Options that name a study and its parts, shared by the verbs, and their checks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from isaerft import ledger
from isaerft.config import Plan, load_plan
from isaerft.errors import one_line, unknown_name
from isaerft.layout import Results

if TYPE_CHECKING:
    from isaerft.llm import LanguageModel
    from isaerft.subjects.load import LoadedModel, LoadedSubject

StudyFile = Annotated[Path, typer.Option("--study", help="Config file of the study.")]
ResultsFolder = Annotated[Path | None, typer.Option("--results", help="Results folder.", show_default="results/STUDY")]
SubjectName = Annotated[str, typer.Option("--subject", help="Subject in the config, or its -permuted twin.")]
BehaviorName = Annotated[str, typer.Option("--behavior", help="Behavior in the config, or its -shuffled twin.")]
AdapterName = Annotated[str, typer.Option("--adapter", help="Adapter in the config.")]
SourceName = Annotated[str, typer.Option("--source", help="Explanation source in the config.")]
JudgeName = Annotated[str, typer.Option("--judge", help="Judge in the config.")]
ScorerName = Annotated[str, typer.Option("--scorer", help="Scorer in the config.")]


class Opened(NamedTuple):
    """A study that was read, and where its files lie."""

    plan: Plan
    results: Results


def open_study(study: Path, results: Path | None = None) -> Opened:
    """Read a study's config and locate its files; `results` replaces results/{study}.

    From now on finished files are noted with their checksums.
    """
    plan = load_plan(study)
    opened = Opened(plan, plan.results if results is None else Results(results))
    ledger.keep(opened.results.root)
    return opened


def check_name(kind: str, name: str, valid: Iterable[str]) -> str:
    """Return a name from the command line; one that the study does not have is an `InputError`."""
    if name not in valid:
        raise unknown_name(kind, name, valid)
    return name


def typed_text(argument: str) -> str:
    """Return text from the command line, which is UTF-8 also where the locale is not."""
    return os.fsencode(argument).decode("utf-8", "replace")


def tell(text: str) -> None:
    """Print text that may quote models or other people's files: control codes are escaped, very long lines are cut."""
    typer.echo("\n".join(map(one_line, text.split("\n"))))


def open_model(opened: Opened, subject: str, *, alone: bool = False) -> LoadedModel:
    """Load a subject's model, which may not have an SAE yet; `alone` as in `set_up_torch`."""
    from isaerft.subjects.device import set_up_torch
    from isaerft.subjects.load import load_model

    study, device = opened.plan.study, set_up_torch(opened.plan, alone=alone)
    options, folder = study.subjects[subject], opened.results.subject(subject)
    return _loaded(load_model, options, folder, device, max_length=study.max_length)


def open_subject(opened: Opened, subject: str, behavior: str | None = None) -> LoadedSubject:
    """Load a subject; a random-dictionary twin loads its base subject.

    With `behavior`, the model reads prompts as that behavior's options say.
    """
    from isaerft.subjects.device import set_up_torch
    from isaerft.subjects.load import load_subject

    base, study = opened.plan.base_subject(subject), opened.plan.study
    folder, device = opened.results.subject(base).path, set_up_torch(opened.plan)
    loaded: LoadedSubject = _loaded(load_subject, study.subjects[base], folder, device, max_length=study.max_length)
    if behavior is None:
        return loaded
    return replace(loaded, language=loaded.language.prompted(opened.plan.behavior_of(behavior)))


@contextmanager
def loaded_once() -> Iterator[None]:
    """Let verbs that run in this process share the model and SAE that the last of them loaded."""
    global _last
    _last = {}
    try:
        yield
    finally:
        _last = None


_last: dict[str, Any] | None = None


def _loaded(load: Callable[..., Any], *what: Any, **options: Any) -> Any:
    """Load a model or subject, or return the last one that was loaded if it is the same."""
    key = repr((load.__name__, what, options))
    if _last is None:
        return load(*what, **options)
    if key not in _last:
        _last.clear()
        _last[key] = load(*what, **options)
    return _last[key]


def open_llm(plan: Plan, name: str | None) -> LanguageModel | None:
    """Return a language model of the study; None for a part that asks none."""
    if name is None:
        return None
    from isaerft.llm import LanguageModel

    return LanguageModel.of(plan, name)
