"""Options that name a study and its parts, shared by the verbs, and their checks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

import typer

from isaerft import config, ledger
from isaerft.config import Plan, load_plan
from isaerft.errors import one_line, unknown_name
from isaerft.layout import Results, SubjectFolder

if TYPE_CHECKING:
    from isaerft.llm import LanguageModel
    from isaerft.subjects.load import LoadedModel, LoadedSubject

T = TypeVar("T")
MOST_OF_A_GPU = 0.25
"""Share of a GPU's memory that a process may hold while it waits for its next verb."""

StudyFile = Annotated[Path, typer.Option("--study", help="Config file of the study.")]
ResultsFolder = Annotated[Path | None, typer.Option("--results", help="Results folder.", show_default="results/STUDY")]
SubjectName = Annotated[str, typer.Option("--subject", help="Subject in the config, or one of its twins.")]
BehaviorName = Annotated[str, typer.Option("--behavior", help="Behavior in the config, or one of its twins.")]
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
    options, folder = opened.plan.subjects[subject], opened.results.subject(opened.plan.origin(subject))
    load = partial(load_model, options, folder, device, max_length=study.max_length, seed=_model_seed(opened, subject))
    return _once(load, folder, options)


def open_subject(opened: Opened, subject: str, behavior: str | None = None) -> LoadedSubject:
    """Load a subject; a twin with permuted decoder rows loads its base subject.

    With `behavior`, the model reads prompts as that behavior's options say.
    """
    from isaerft.subjects.device import set_up_torch
    from isaerft.subjects.load import load_subject

    plan = opened.plan
    base, device = plan.base_subject(subject), set_up_torch(plan)
    options, folder, sae = (
        plan.subjects[base],
        opened.results.subject(plan.origin(base)),
        opened.results.subject(base).sae,
    )
    load = partial(
        load_subject,
        *(options, folder.path, device),
        sae=sae,
        max_length=plan.study.max_length,
        seed=_model_seed(opened, base),
    )
    loaded = _once(load, folder, options, sae)
    if behavior is None:
        return loaded
    return replace(loaded, language=loaded.language.prompted(plan.behavior_of(behavior)))


def _model_seed(opened: Opened, subject: str) -> int | None:
    """Return the seed from which a subject's model is drawn; None for a model as it is."""
    return opened.plan.world_seed(subject) if opened.plan.randomizes_model(subject) else None


@contextmanager
def loaded_once() -> Iterator[None]:
    """Let verbs that run in this process share the model and SAE that the last of them loaded."""
    global _last
    _last = {}
    try:
        yield
    finally:
        _last = None


@contextmanager
def as_in_a_process_of_its_own() -> Iterator[None]:
    """Undo afterwards what a verb sets for its own process: torch's threads and random numbers, and the ledger."""
    import torch

    threads = torch.get_num_threads()
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(gpus):
            yield
    finally:
        torch.set_num_threads(threads)
        ledger.keep(None)


def leave_room() -> None:
    """Let go of what is loaded if it fills so much of a GPU that other processes could not load it, too."""
    import torch

    if _last and torch.cuda.is_initialized():
        total = torch.cuda.get_device_properties().total_memory
        torch.cuda.empty_cache()
        if torch.cuda.memory_allocated() > MOST_OF_A_GPU * total:
            _last.clear()
            torch.cuda.empty_cache()


_last: dict[str, Any] | None = None


def _once(load: partial[T], folder: SubjectFolder, options: config.Subject, sae: Path | None = None) -> T:
    """Return what `load` loads, or what the last such call loaded with the same arguments from the same files."""
    if _last is None:
        return load()
    places = [folder.model, sae or folder.sae, *([Path(options.model)] if options.model else [])]
    files = [file for place in places for file in sorted(place.rglob("*")) if file.is_file()]
    stamps = [(str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files]
    key = repr((load.func.__name__, load.args, load.keywords, stamps))
    if key not in _last:
        _last.clear()
        _last[key] = load()
    loaded: T = _last[key]
    return loaded


def open_llm(plan: Plan, name: str | None) -> LanguageModel | None:
    """Return a language model of the study; None for a part that asks none."""
    if name is None:
        return None
    from isaerft.llm import LanguageModel

    return LanguageModel.of(plan, name)
