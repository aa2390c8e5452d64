"""Reading a study's YAML file, and every check that needs no data."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from isaerft import registry
from isaerft.config import options
from isaerft.config.audits import check_audits
from isaerft.config.checks import check_checks, check_shuffled
from isaerft.config.llms import check_llms
from isaerft.config.options import Calibration, Study
from isaerft.config.plan import Plan
from isaerft.config.read import read_options
from isaerft.errors import InputError, shown, unknown_name

SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_UNKNOWN_KEY = {"unexpected_keyword_argument", "extra_forbidden"}
Kind = TypeVar("Kind")


def load_plan(path: str | Path) -> Plan:
    """Read and check a study's YAML file; return what the study runs.

    Raises
    ------
    InputError
        The file is missing, is not YAML, or holds a key, name or value that is not allowed.
    """
    return plan_from_dict(read_options(path))


def load_calibration(path: str | Path) -> Calibration:
    """Read and check the YAML file of the calibration study; errors as in `load_plan`."""
    return _validated(Calibration, read_options(path))


def plan_from_dict(values: dict[str, Any]) -> Plan:
    """Build a study's plan from plain values; unknown keys are refused and the nearest valid key is named."""
    study = _validated(Study, values)
    plan = Plan(study)
    _check_names(study)
    _check_registered(study)
    check_audits(study)
    _check_references(plan)
    check_llms(study)
    check_checks(plan)
    check_shuffled(plan)
    for name, behavior in study.behaviors.items():
        _check_behavior(name, behavior)
    for name, subject in study.subjects.items():
        _check_subject(name, subject)
    return plan


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a study's config (for editors; config/schema.json is this, written out)."""
    return TypeAdapter(Study).json_schema()


def _validated(kind: type[Kind], values: dict[str, Any]) -> Kind:
    """Return plain values as options of a kind."""
    adapter = TypeAdapter(kind)
    try:
        return adapter.validate_python(values)
    except ValidationError as error:
        raise _worst_problem(error, adapter.json_schema()) from None


def _worst_problem(error: ValidationError, schema: dict[str, Any]) -> InputError:
    """Turn pydantic's list of problems into one error; an unknown key goes first, for it causes others."""
    problems = sorted(error.errors(), key=lambda problem: problem["type"] not in _UNKNOWN_KEY)
    problem = problems[0]
    location = [str(part) for part in problem["loc"]]
    if problem["type"] in _UNKNOWN_KEY:
        owner = _options_at(schema, location[:-1])
        place = ".".join(location[:-1]) or "the study"
        return unknown_name(f"config key in {place}:", location[-1], owner)
    given = "" if problem["type"] == "missing" else f" = {shown(problem['input'])}"
    return InputError(f"config key {'.'.join(location)}{given}: {problem['msg']}", remedy="see docs/config.md")


def _options_at(schema: dict[str, Any], location: list[str]) -> Iterable[str]:
    """Return the valid keys of the options class at a place such as ['behaviors', 'refusal']."""
    node: dict[str, Any] = schema
    for part in location:
        node = node.get("properties", {}).get(part) or node.get("additionalProperties") or {}
        for choice in [node, *node.get("anyOf", [])]:
            if "$ref" in choice:
                node = schema["$defs"][choice["$ref"].rsplit("/", 1)[-1]]
    return node.get("properties", {})


def _check_names(study: Study) -> None:
    """Names become path parts and wildcards, so only slugs are allowed."""
    groups = ["subjects", "behaviors", "adapters", "sources", "judges", "scorers", "llms", "audits", "candidates"]
    named = [("study", study.study), *((group[:-1], name) for group in groups for name in getattr(study, group))]
    for kind, name in named:
        taken = (options.PERMUTED, options.SHUFFLED) if kind == "behavior" else (options.PERMUTED,)
        if not SLUG.fullmatch(name) or name.endswith(taken):
            raise InputError(
                f"{kind} name {shown(name)}",
                allowed="letters, digits, - and _, beginning with a letter or digit, not ending in "
                + " or ".join(taken),
            )


def _check_registered(study: Study) -> None:
    """Every kind that the config names must be registered (checked without importing it)."""
    for name, part in study.adapters.items():
        registry.ADAPTERS.check(part.kind or name)
        registry.OBJECTIVES.check(part.objective)
    for name, part in study.sources.items():
        registry.SOURCES.check(part.kind or name)
    for name, part in study.judges.items():
        registry.JUDGES.check(part.kind or name)
    for name, part in study.scorers.items():
        registry.SCORERS.check(part.kind or name)
    for measure in study.measures:
        registry.MEASURES.check(measure)
    for statistic in study.agreement.statistics:
        registry.STATISTICS.check(statistic)
    for control in study.controls:
        if control not in options.CONTROLS + options.ASKED_CONTROLS:
            raise unknown_name("control", control, options.CONTROLS + options.ASKED_CONTROLS)


def _check_references(plan: Plan) -> None:
    """Names that point at other parts of the config must exist there."""
    primary, sources = plan.study.primary, plan.study.sources.items()
    for kind, name, valid in [
        ("primary.adapter", primary.adapter, plan.study.adapters),
        ("primary.measure", primary.measure, plan.study.measures),
        ("primary.source", primary.source, plan.study.sources),
        ("primary.judge", primary.judge, plan.study.judges),
        ("primary.statistic", primary.statistic, plan.study.agreement.statistics),
        *([("reference", plan.study.reference, plan.study.adapters)] if plan.study.reference else []),
        *((f"sources.{s}.subjects", name, plan.study.subjects) for s, part in sources for name in part.subjects),
        *((f"sources.{s}.judges", name, plan.study.judges) for s, part in sources for name in part.judges),
        *((f"sources.{s}.adapters", name, plan.analysed_adapters()) for s, part in sources for name in part.adapters),
        *(
            (f"scorers.{s}.sources", name, plan.study.sources)
            for s, part in plan.study.scorers.items()
            for name in part.sources
        ),
        *(
            ("random_dictionary_adapters", name, plan.analysed_adapters())
            for name in plan.study.random_dictionary_adapters
        ),
    ]:
        if name not in valid:
            raise unknown_name(kind, name, valid)
    for name, part in plan.study.adapters.items():
        leaves_latents = registry.ADAPTERS.facts(part.kind or name).leaves_latents(part.options)
        if leaves_latents and name != plan.study.reference:
            raise InputError(
                f"adapter {name!r} is a LoRA above the SAE's hook, which changes no latent",
                allowed="as the `reference` only",
                remedy=f"add `reference: {name}`, or give it `options: {{where: below}}`",
            )
    for name in {name for twin in plan.permuted_subjects for name in plan.analysed_adapters(twin)}:
        if (plan.study.adapters[name].kind or name) == "saved":
            raise InputError(
                f"control 'random_dictionary' for adapter {name!r}, which is saved: it would be the same numbers again",
                remedy="name adapters that are trained under random_dictionary_adapters, or leave the control out",
            )
    _check_contrasts(plan)
    source = plan.study.sources[primary.source]
    unread = source.judges and primary.judge not in source.judges
    untested = source.adapters and primary.adapter not in source.adapters
    if unread or untested or primary.adapter == plan.study.reference:
        raise InputError(
            f"primary {primary.adapter!r}, {primary.source!r}, {primary.judge!r}",
            allowed="an adapter that is not the reference, and a judge and an adapter of the source",
        )
    for kind, parts in (("source", plan.study.sources), ("judge", plan.study.judges)):
        for name, part in parts.items():
            if part.path is not None and "{" not in part.path and not Path(part.path).exists():
                raise InputError(f"{kind} {name!r}: {part.path!r} does not exist", remedy="check the path")
    if not plan.study.judges[primary.judge].tested:
        raise InputError(f"primary.judge {primary.judge!r} is not tested", remedy="leave its `tested: false` out")
    if "mismatched_behavior" in plan.study.controls and len(plan.tested_behaviors) < 2:
        raise InputError(
            "control 'mismatched_behavior' with one behavior", remedy="add a second behavior, or leave the control out"
        )


def _check_contrasts(plan: Plan) -> None:
    """An adapter that is fitted against other text has some for every behavior."""
    for name, behavior in plan.study.behaviors.items():
        words = (options.OTHERS, options.REJECTED)
        if name in words:
            raise InputError(f"behavior name {name!r}", remedy="choose another: it means something under `contrast`")
        valid = [*words, *(other for other in plan.study.behaviors if other != name)]
        if behavior.contrast not in valid:
            raise unknown_name(f"behaviors.{name}.contrast", behavior.contrast, valid)
        for adapter, part in plan.study.adapters.items():
            fitted = registry.ADAPTERS.facts(part.kind or adapter).contrasted
            if fitted and behavior.contrast == options.OTHERS and not plan.contrast_behaviors(name, adapter):
                raise InputError(
                    f"adapter {adapter!r} compares behavior {name!r} with others, and there are none",
                    remedy="add a second behavior, or leave the adapter out",
                )


def _check_behavior(name: str, behavior: options.Behavior) -> None:
    """A behavior has exactly one origin, and a local one is there."""
    origins = [behavior.path is not None, behavior.dataset is not None, behavior.testbed is not None, behavior.rule]
    if sum(origins) != 1:
        raise InputError(
            f"behavior {name!r} names {sum(origins)} origins", allowed="exactly one of path, dataset, testbed, rule"
        )
    if behavior.dataset is not None and not behavior.revision:
        raise InputError(
            f"behavior {name!r}: dataset {behavior.dataset!r} without a revision",
            remedy="add `revision:` with the dataset's commit, so that the data cannot change under the study",
        )
    if behavior.path is not None:
        path = Path(behavior.path)
        if not path.is_file():
            raise InputError(f"behavior {name!r}: file {behavior.path!r} does not exist", remedy="check the path")
        if path.stat().st_size == 0:
            raise InputError(f"behavior {name!r}: file {behavior.path!r} is empty", remedy="check the path")


def _check_subject(name: str, subject: options.Subject) -> None:
    """A subject has one model and one SAE, and says what it needs to be loaded."""
    if (subject.model is None) == (subject.testbed is None):
        raise InputError(f"subject {name!r}", allowed="exactly one of model, testbed")
    if subject.testbed is not None:
        return
    saes = [subject.release is not None, subject.sae_path is not None, subject.train_sae is not None]
    if sum(saes) != 1:
        raise InputError(
            f"subject {name!r} names {sum(saes)} SAEs", allowed="exactly one of release, sae_path, train_sae"
        )
    if (subject.release is None) != (subject.sae_id is None):
        raise InputError(f"subject {name!r}: release and sae_id belong together", remedy="give both")
    if subject.train_sae is not None and not subject.hook_name:
        raise InputError(
            f"subject {name!r}: train_sae without hook_name", remedy="say where, e.g. blocks.2.hook_resid_post"
        )
    corpus = subject.corpus
    if sum([corpus.path is not None, corpus.dataset is not None, corpus.sample]) != 1:
        raise InputError(f"subject {name!r}: its corpus", allowed="exactly one of path, dataset, sample: true")
    for path, what in [(corpus.path, "corpus.path"), (subject.sae_path, "sae_path")]:
        if path is not None and not Path(path).exists():
            raise InputError(f"subject {name!r}: {what} {path!r} does not exist", remedy="check the path")
