"""How verbs are declared, and what nearly all of them do first: read the study and check the names they were given."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from isaerft import config
from isaerft.errors import unknown_name

if TYPE_CHECKING:
    from isaerft.subjects.load import LoadedSubject

Verb = Callable[[argparse.Namespace], None]
VERBS: dict[str, tuple[Verb, tuple[str, ...], str]] = {}
SHUFFLED_TOO = ("capture", "train", "changes")
ARGUMENTS = {
    "study": "the study's config file",
    "subject": "name of the subject in the config (or its -permuted twin)",
    "behavior": "name of the behavior in the config (or its -shuffled twin)",
    "adapter": "name of the adapter in the config",
    "source": "name of the explanation source in the config",
    "judge": "name of the judge in the config",
    "scorer": "name of the scorer in the config",
    "dir": "the subject's folder",
    "poison": "folder with the train.jsonl and heldout.jsonl of the behavior whose rows are planted",
    "records": "folder with the behavior's train.jsonl and heldout.jsonl",
    "cache": "the behavior's cached activations (.safetensors)",
    "contrast": "folder with the cached activations of the behaviors that a baseline is fitted against",
    "adapters": "folder with one folder per trained adapter",
    "sample": "the sample of latents that the study speaks of (.parquet)",
    "explanations": "the source's explanations (.parquet)",
    "changes": "folder with {subject}/{behavior}.parquet",
    "judgements": "folder with {source}/{judge}.parquet",
    "results": "the study's results folder",
    "tables": "folder with the result tables",
    "figures": "folder with the figures",
    "pages": "folder with the tables' pages",
    "input": "a data file",
    "description": "what the behavior is, in a sentence",
    "name": "which one",
    "out": "what to write",
    "auroc": "the agreement to be seen, were there no noise (or give --odds-ratio)",
    "odds-ratio": "the same as odds of a larger change, expected over other latents (or give --auroc)",
    "expected-share": "share of the latents that a behavior is expected to change (default 0.1)",
    "reliability": "reliability of a single seed's ranking of the latents (default 0.5)",
    "design-effect": "variance that strata and clusters add to the null, as a factor (default 1)",
    "alpha": "level of the test (default 0.05)",
    "config": "the calibration study's config file",
    "part": "name of one part of the calibration study",
    "parts": "folder with the parts' tables",
}
OPTIONAL = {"behavior.input", "behavior.poison", "explain.sample", "agreement.sample", "train.contrast"} | {
    f"power.{name}" for name in ("auroc", "odds-ratio", "expected-share", "reliability", "design-effect", "alpha")
}
NUMBERS = {"auroc", "odds-ratio", "expected-share", "reliability", "design-effect", "alpha"}
NAMES = {"subject", "behavior", "adapter", "source", "judge", "scorer", "description", "part"}


def verb(name: str, *arguments: str) -> Callable[[Verb], Verb]:
    """Register a verb with its arguments; its docstring is its help."""

    def register(function: Verb) -> Verb:
        VERBS[name] = (function, arguments, (function.__doc__ or "").strip())
        return function

    return register


def plan_of(options: argparse.Namespace) -> config.Plan:
    """Read the config and check the names on the command line against it; say plainly which are valid."""
    plan = config.load_plan(options.study)
    # A random-dictionary twin is trained on the base subject's cache; everything else it shares with that subject.
    twins = plan.permuted_subjects if hasattr(options, "cache") else {}
    # A behavior with exchanged completions is trained and scored; nothing else is done with it.
    shuffled = plan.shuffled_behaviors if options.verb in SHUFFLED_TOO else {}
    for kind, group in (
        ("subject", {**plan.study.subjects, **twins}),
        ("behavior", {**plan.study.behaviors, **shuffled}),
        ("adapter", plan.study.adapters),
        ("source", plan.study.sources),
        ("judge", plan.study.judges),
        ("scorer", plan.study.scorers),
    ):
        given = getattr(options, kind, None)
        if given is not None and given not in group:
            raise unknown_name(kind, given, group)
    return plan


def load_subject_of(plan: config.Plan, options: argparse.Namespace) -> LoadedSubject:
    """Load the subject that was asked for; a random-dictionary twin begins as the subject it belongs to."""
    from isaerft.subjects.load import load_subject, set_up_torch

    return load_subject(
        plan.study.subjects[plan.permuted_subjects.get(options.subject, options.subject)],
        options.dir,
        set_up_torch(plan),
    )
