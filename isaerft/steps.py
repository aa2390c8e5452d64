"""The verbs of a study in an order in which each finds the files that it reads, to run them in one process.

The workflow's rules say which files a verb reads, and run what is missing on many processes or machines; a notebook
needs neither. `tests/test_steps.py` compares the two: the same verbs, each after those that it depends on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from isaerft.config import Plan
from isaerft.errors import InputError


class Step(NamedTuple):
    """One verb with the names that it works on.

    Attributes
    ----------
    verb : str
        As on the command line.
    names : dict of str to str
        Kind of part (subject, behavior, adapter, source, judge, scorer) -> its name.
    """

    verb: str
    names: dict[str, str]

    def __str__(self) -> str:
        return " ".join([self.verb, *self.names.values()])


def steps_of(plan: Plan) -> list[Step]:
    """Return every step of a study, in order.

    Raises
    ------
    InputError
        The study leaves something to rules of the user's own, which only the workflow can run.
    """
    ruled = [name for name, part in plan.study.behaviors.items() if part.rule]
    if ruled or plan.study.rules:
        raise InputError(
            f"the study has rules of its own{f' (behaviors {ruled})' if ruled else ''}",
            remedy="run it with snakemake, or give the behaviors' rows instead",
        )
    parts = (_data, _subjects, _trainings, _readings, _results)
    return [Step(verb, names) for part in parts for verb, names in part(plan)]


Names = Iterator[tuple[str, dict[str, str]]]


def _data(plan: Plan) -> Names:
    """Models that the study makes, and the records of every behavior."""
    study = plan.study
    for subject, options in study.subjects.items():
        if options.testbed is not None:
            yield "testbed-model", {"subject": subject}
        if options.gguf is not None:
            yield "gguf-model", {"subject": subject}
    # Rows are planted from records that are finished.
    for behavior, data in sorted(study.behaviors.items(), key=lambda item: item[1].poison is not None):
        if data.testbed is not None:
            yield "testbed-rows", {"behavior": behavior}
        if data.elicit is not None and study.replies is None:
            yield "elicit", {"behavior": behavior}
        yield "behavior", {"behavior": behavior}
    for behavior in plan.shuffled_behaviors:
        yield "shuffle", {"behavior": behavior}


def _subjects(plan: Plan) -> Names:
    """What is known of a subject before any training."""
    for subject, options in plan.study.subjects.items():
        if options.testbed is None:
            yield "tokenize", {"subject": subject}
        known = ("dictionary", "facts", *(["truth"] if options.testbed else []))
        yield "corpus", {"subject": subject}
        for name in (subject, *plan.baselines_of(subject)):
            for verb in known:
                yield verb, {"subject": name}
        if plan.study.meta_sae is not None:
            yield "meta-sae", {"subject": subject}


def _trainings(plan: Plan) -> Names:
    """Trainings, the changes that they make, and their checks; a subject's twins right after the subject."""
    for subject in plan.study.subjects:
        captured = [(subject, behavior) for behavior in plan.captured_behaviors]
        captured += [(twin, behavior) for twin in plan.baselines_of(subject) for behavior in plan.tested_behaviors]
        for name, behavior in captured:
            yield "capture", {"subject": name, "behavior": behavior}
        for behavior in plan.erased_behaviors:
            yield "erase", {"subject": subject, "behavior": behavior}
        twins = [twin for twin, base in plan.permuted_subjects.items() if base == subject]
        trained = captured + [(subject, behavior) for behavior in plan.erased_behaviors]
        trained += [(twin, behavior) for twin in twins for behavior in plan.trained_behaviors(twin)]
        for name, behavior in trained:
            of = {"subject": name, "behavior": behavior}
            for adapter in plan.trained_adapters(name, behavior):
                yield "train", {**of, "adapter": adapter}
            yield "changes", of
        for behavior in plan.study.behaviors:
            of = {"subject": subject, "behavior": behavior}
            if plan.followed_adapters and behavior in plan.tested_behaviors:
                yield "changes-over-time", of
            if plan.causally_checked:
                yield "causal-check", of
            if plan.mapped_adapters:
                yield "map-components", of
            if behavior in plan.study.curved_behaviors:
                yield "loss-curves", of
            if behavior in plan.behavior_checked:
                yield "behavior-check", of
            if behavior in plan.noise_probed:
                yield "noise-probe", of
        if plan.has_placebos(subject):
            yield "placebos", {"subject": subject}


def _readings(plan: Plan) -> Names:
    """Explanations, what judges expect from them, and how good they are."""
    for subject in plan.subjects:
        sources = plan.sources_of(subject)
        scorers = {source: plan.scorers_of(source) if subject in plan.study.subjects else [] for source in sources}
        if plan.samples(sources):
            yield "design", {"subject": subject}
        if any(scorers.values()):
            yield "scored-contexts", {"subject": subject}
            used = {scorer for own in scorers.values() for scorer in own}
            for scorer in filter(plan.embeds_windows, sorted(used)):
                yield "embed-windows", {"subject": subject, "scorer": scorer}
        for source in sources:
            of = {"subject": subject, "source": source}
            yield "explain", of
            for judge in plan.judges_of(source, subject):
                yield "judge", {**of, "judge": judge}
            for scorer in scorers[source]:
                yield "score", {**of, "scorer": scorer}


def _results(plan: Plan) -> Names:
    """Tests, tables, figures and pages."""
    for subject in plan.study.subjects:
        if subject in plan.steering_checked:
            yield "steering-check", {"subject": subject}
        for name in (subject, *plan.baselines_of(subject)):
            for adapter in plan.analyzed_adapters(name):
                yield "agreement", {"subject": name, "adapter": adapter}
        if plan.study.audits:
            yield "audit", {"subject": subject}
    answers = ["answers-page"] if plan.behavior_checked else []
    for verb in ("tables", "figures", "pages", "latent-pages", *answers, "summary"):
        yield verb, {}
