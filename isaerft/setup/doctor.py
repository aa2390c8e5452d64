"""Check a machine, and a study on it, before hours are spent: one line for each thing that can go wrong.

>>> for finding in examine("config/mine.yaml"):  # doctest: +SKIP
...     print(finding)
OK       config: config/mine.yaml is valid
warning  HF_TOKEN: not set, and google/gemma-2-2b may be gated; accept the licence on huggingface.co, ...
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from isaerft.behaviors.detect import understand
from isaerft.config import Behavior, Plan, Subject, load_plan
from isaerft.directory import saes_directory
from isaerft.errors import InputError, unknown_name
from isaerft.planning import cost_lines as llm_lines
from isaerft.setup import machine
from isaerft.setup.estimate import NUMBER_BYTES, Estimate, cost_lines, estimate, size
from isaerft.setup.facts import ModelFacts, SaeFacts, listed_sae, model_facts, sae_facts
from isaerft.setup.machine import Finding, Torch
from isaerft.setup.measured import sizes_of

# Organizations whose models ask for a licence.
GATED = ("google/gemma", "meta-llama/", "mistralai/")
# Specificity compares behaviors: with two, one exchange is all there is (docs/statistics.md).
FEW_BEHAVIORS = 5
READ_OPTIONS = ("path", "columns", "where", "format", "ids", "system", "max_unusable_share")


def examine(study: str | Path | None = None) -> Iterator[Finding]:
    """Yield what was found of this machine, and of a study on it.

    Parameters
    ----------
    study : path, optional
        Config file of the study.
    """
    plan = None
    if study is not None:
        try:
            plan = load_plan(study)
            yield Finding("OK", "config", f"{study} is valid")
        except InputError as error:
            yield Finding("fault", "config", str(error))
    yield from machine.packages()
    yield from machine.programs()
    seen = machine.torch_here()
    yield seen if isinstance(seen, Finding) else _device(seen, plan)
    yield machine.hub(needed=_from_hub(plan) if plan else [])
    yield from _tokens(plan)
    if plan is not None:
        yield from of_study(plan, seen if isinstance(seen, Torch) else None)
    else:
        yield machine.disk(Path("results"))
    yield machine.worker()
    yield machine.slurm()


def of_study(plan: Plan, seen: Torch | None = None) -> Iterator[Finding]:
    """Yield what was found of a study: its data, models, SAEs, design and cost."""
    for name, behavior in plan.study.behaviors.items():
        if behavior.path is not None:
            yield _data(name, behavior)
    for name, subject in plan.study.subjects.items():
        if subject.testbed is None:
            yield from _subject(name, subject, plan, seen)
    yield from _design(plan)
    try:
        yield from _cost(plan)
    except InputError as error:  # what is wrong with the data or a model's files was said above
        yield Finding("warning", "cost", f"cannot be estimated ({error.problem})")


def _cost(plan: Plan) -> Iterator[Finding]:
    sizes = sizes_of(plan)
    found = estimate(plan, sizes.shapes, sizes.rows, sizes.latents)
    for line in cost_lines(found, cores=machine.cores()):
        what, _, text = line.partition(": ")
        yield Finding("OK", f"cost, {what}", text)
    known = all(plan.results.subject(name).card.is_file() for name in plan.study.subjects)
    for line in llm_lines(plan, plan.results) if plan.study.llms and known else []:
        yield Finding("OK", "cost, language models", line)
    for line in sizes.assumed:
        yield Finding("OK", "cost, assumed", line)
    yield machine.disk(Path(plan.results.root), _still_needed(plan, found))


def _still_needed(plan: Plan, found: Estimate) -> float:
    """Return the bytes that a study will still write, given what its folder holds."""
    root = Path(plan.results.root)
    there = sum(file.stat().st_size for file in root.rglob("*") if file.is_file()) if root.is_dir() else 0
    return max(0.0, found.total_disk - there)


def _device(seen: Torch, plan: Plan | None) -> Finding:
    wanted = plan.study.device if plan is not None else "auto"
    if wanted != "auto" and wanted not in seen.devices:
        remedy = f"set `device: auto`, or one of {', '.join(seen.devices)}"
        return Finding("fault", "device", f"the study wants {wanted!r}, but {seen.text}", remedy)
    return Finding("OK", "device", seen.text)


def _from_hub(plan: Plan) -> list[str]:
    """Return the models and data sets that are not on this machine."""
    wanted = []
    for subject in plan.study.subjects.values():
        if subject.model is not None and not os.path.isdir(subject.model) and not _is_cached(subject.model):
            wanted.append(subject.model)
        listed = listed_sae(subject)
        if subject.release is not None and (listed is None or not _is_cached(listed.weights.repo, "")):
            wanted.append(f"{subject.release}, {subject.sae_id}")
        if subject.corpus.dataset is not None and not _is_cached(subject.corpus.dataset, "", kind="datasets"):
            wanted.append(subject.corpus.dataset)
    data = [part.dataset for part in plan.study.behaviors.values() if part.dataset is not None]
    return [*dict.fromkeys([*wanted, *(name for name in data if not _is_cached(name, "", kind="datasets"))])]


def _is_cached(name: str, file: str = "config.json", kind: str = "models") -> bool:
    """Tell whether the hub's cache holds something of a repository: a file, or anything."""
    if os.path.exists(name):
        return True
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE, f"{kind}--{name.replace('/', '--')}", "snapshots")
    return any(folder.glob(f"*/{file or '*'}"))


def _tokens(plan: Plan | None) -> Iterator[Finding]:
    if plan is None:
        yield from machine.tokens(gated=[], asks_neuronpedia=True, keys={})
        return
    study = plan.study
    models = [part.model for part in study.subjects.values() if part.model]
    kinds = [part.kind or name for name, part in study.sources.items()]
    yield from machine.tokens(
        gated=[name for name in models if name.startswith(GATED) and not os.path.isdir(name)],
        asks_neuronpedia="neuronpedia" in kinds,
        keys={name: part.api_key_env for name, part in study.llms.items() if part.api_key_env},
    )


def _data(name: str, behavior: Behavior) -> Finding:
    """Read a behavior's data as the study will."""
    given = {key: getattr(behavior, key) for key in READ_OPTIONS}
    try:
        found = understand(name, {key: value for key, value in given.items() if value}, detect=False)
    except InputError as error:
        return Finding("fault", f"behavior {name}", str(error))
    left = ", ".join(f"{reason}: {n}" for reason, n in found.left_out.items())
    more = "" if found.is_whole else " first"
    text = f"{len(found.records):,} of the{more} {found.n_rows:,} rows of {behavior.path} can be used"
    return Finding("OK", f"behavior {name}", text + (f" ({left})" if left else ""))


def _subject(name: str, subject: Subject, plan: Plan, seen: Torch | None) -> Iterator[Finding]:
    what = f"subject {name}"
    try:
        model, sae = model_facts(subject), sae_facts(subject)
    except InputError as error:
        yield Finding("fault", what, str(error))
        return
    if model is None:
        remedy = "check the name; a local model is a folder, a GGUF file, or PACKAGE/FILE.gguf"
        yield Finding("warning", what, f"the files of {subject.model} are neither here nor on the hub", remedy)
    else:
        yield from _model(what, subject, model, plan, seen)
    yield from _sae(what, subject, model, sae)


def _model(what: str, subject: Subject, model: ModelFacts, plan: Plan, seen: Torch | None) -> Iterator[Finding]:
    """Positions, BOS, number format and memory."""
    n_bytes = model.n_parameters * NUMBER_BYTES[subject.dtype]
    yield Finding("OK", what, f"{model}, {size(n_bytes)} in {subject.dtype}")
    lengths = {"max_length": plan.study.max_length, "corpus.context_size": subject.corpus.context_size}
    beyond = {option: length for option, length in lengths.items() if model.positions and length > model.positions}
    said = ", ".join(f"{option} {length}" for option, length in (beyond or lengths).items())
    if beyond:
        remedy = f"lower {' and '.join(beyond)} to {model.positions}"
        yield Finding(
            "fault" if model.has_table else "warning", what, f"{model.positions} positions, but {said}", remedy
        )
    else:
        yield Finding("OK", what, f"{said} within {model.positions or 'unknown'} positions")
    if subject.prepend_bos and model.has_bos is False:
        remedy = "set prepend_bos: false, if its SAE was trained so"
        yield Finding("fault", what, "prepend_bos, but the tokenizer has no BOS token", remedy)
    on_gpu = seen is not None and seen.gpu_bytes is not None and plan.study.device != "cpu"
    free = seen.gpu_bytes if on_gpu and seen else machine.free_memory()
    if seen is not None and subject.dtype != "float32" and not seen.has_bfloat16:
        place = "this GPU" if on_gpu else "this processor"
        yield Finding("warning", what, f"{subject.dtype} is slow on {place}", "set dtype: float32 if memory allows")
    if free is not None and n_bytes * 1.5 > free:
        text = f"its weights take {size(n_bytes)}, and {size(free)} of memory are free"
        yield Finding("fault" if n_bytes > free else "warning", what, text, "use a narrower dtype, or a larger machine")


def _sae(what: str, subject: Subject, model: ModelFacts | None, sae: SaeFacts) -> Iterator[Finding]:
    """The SAE exists, and fits the model as far as files tell; the rule `facts` measures how well."""
    directory, release = saes_directory(), subject.release
    if release is not None and listed_sae(subject) is None and "/" not in release:
        ids = directory.ids_of(release)
        error = (
            unknown_name("sae_id", subject.sae_id, ids) if ids else unknown_name("release", release, directory.releases)
        )
        yield Finding("fault", what, str(error))
        return
    if subject.sae_path is not None and not Path(subject.sae_path, "sae_weights.safetensors").is_file():
        remedy = "save it with SAELens: sae.save_model(folder)"
        yield Finding("fault", what, f"{subject.sae_path} has no sae_weights.safetensors", remedy)
    if model is not None and sae.d_in is not None and "resid" in sae.hook_name and sae.d_in != model.d_model:
        text = f"the SAE reads {sae.d_in} dimensions, the model has {model.d_model}"
        yield Finding("fault", what, text, "choose an SAE that was trained on this model")
    if model is not None and sae.n_below is not None and sae.n_below > model.n_blocks:
        text = f"the SAE is at {sae.hook_name}, the model has {model.n_blocks} blocks"
        yield Finding("fault", what, text, "choose an SAE that was trained on this model")
    if sae.prepend_bos is not None and sae.prepend_bos != subject.prepend_bos:
        text = f"the SAE was trained with prepend_bos {str(sae.prepend_bos).lower()}"
        yield Finding("warning", what, text, f"set prepend_bos: {str(sae.prepend_bos).lower()}")
    width = f"{sae.d_sae:,}" if sae.d_sae else "an unknown number of"
    yield Finding("OK", what, f"SAE of {width} latents at {sae.hook_name or 'the hook that it names'}")


def _design(plan: Plan) -> Iterator[Finding]:
    """What the design of the study leaves unanswered."""
    n = len(plan.tested_behaviors)
    if n < FEW_BEHAVIORS:
        text = f"{n} behavior{'s' * (n > 1)}; specificity, the primary test, compares each with the others"
        yield Finding("warning", "design", text, "add behaviors, such as those of data/elicit/behaviors.yaml")
    unchecked = [name for name in plan.tested_behaviors if name not in plan.scored_behaviors]
    if unchecked:
        text = f"no metric says whether answers change for {', '.join(unchecked[:6])}"
        yield Finding(
            "warning", "design", text, "give them a `metric` (docs/config.md), or go without the behavior check"
        )
    if not plan.has_placebos(next(iter(plan.study.subjects))):
        yield Finding("warning", "design", "no placebo trainings", "set placebos: {n: 9}")
