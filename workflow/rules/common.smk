# What the rules share. What exists comes from the plan, where it lies from its layout; both are the package's.
import os
import re
from dataclasses import replace
from pathlib import Path

from isaerft.analysis import TABLES, tables_of
from isaerft.config import UNTRAINED
from isaerft.digest import Part, code, settings
from isaerft.errors import shown
from isaerft.registry import (
    ADAPTERS,
    JUDGES,
    MEASURES,
    METRICS,
    OBJECTIVES,
    SCORERS,
    SCORES,
    SOURCES,
    STATISTICS,
)
from isaerft.report import (
    ANSWERS_CAPTION,
    FIGURES,
    LATENT_TABLES,
    SUMMARY_CAPTION,
    figures_of,
)

# What Snakemake takes for a variable in a path.
VARIABLE = re.compile(r"<[a-z][a-z0-9_]*>|[{}]")
at = plan.results
# For rules of your own: the folder of the study.
RESULTS = str(at.root)
TESTBEDS = [name for name, part in study.subjects.items() if part.testbed is not None]
# The same with their random baselines, of whose dictionaries the truth is known, too.
KNOWN = [name for name in plan.subjects if plan.origin(name) in TESTBEDS]
CONVERTED = [name for name, part in study.subjects.items() if part.gguf is not None]
ELICITED = [name for name, part in study.behaviors.items() if part.elicit is not None]
# The adapters for which there are changes and agreement.
ANALYSED = plan.analyzed_adapters()
GPU = {} if study.device == "cpu" else {"gpu": 1}
# Whether every model is embedded, and so small that jobs take seconds.
SMALL = len(TESTBEDS) == len(study.subjects)
# What asks servers runs where Snakemake runs: nodes of a cluster seldom reach any, and SQLite files of answers belong on
# one machine.
ASKING = bool(study.llms) or "neuronpedia" in [
    source.kind or name for name, source in study.sources.items()
]
# How several processes that train one adapter together are started.
TOGETHER = (
    f"torchrun --standalone --nproc-per-node {study.processes} --no-python "
    if study.processes > 1
    else ""
)


def memory(mb):
    """Return the memory that a job asks for, more after each failure: it may have been killed for having too little."""
    return lambda wildcards, attempt: attempt * (min(mb, 2000) if SMALL else mb)


def minutes(limit):
    """Return the same for the time after which a job is ended."""
    return lambda wildcards, attempt: attempt * (min(limit, 30) if SMALL else limit)


def together(group):
    """Return the group of jobs that are submitted to a cluster as one, if they take seconds."""
    return group if SMALL else None


def one_of(names):
    """Return the regular expression that matches exactly these names."""
    return "|".join(map(re.escape, names))


def caption(text):
    """Return a file with a caption of Snakemake's report, whose words belong to the table or figure."""
    path = Path(".snakemake", "captions", f"{settings(text)}.rst").absolute()
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    return str(path)


def local_files(path):
    """Return a local path's files; none for a hub id or a path with {subject_dir}."""
    if path is None or "{subject_dir}" in path or not os.path.exists(path):
        return []
    files = [Path(path)] if os.path.isfile(path) else sorted(Path(path).iterdir())
    names = [str(file) for file in files if file.is_file()]
    for name in names:
        # Snakemake also prints names as they are.
        if VARIABLE.search(name) or not name.isprintable():
            stop(
                f"file {shown(name)}; allowed: printable characters, but no braces and no"
                " <word>, which Snakemake takes for its own; rename the file or folder"
            )
    return names


def asked(llm):
    """Return the options that decide a language model's answers; none where none is asked."""
    if llm is None:
        return None
    part = study.llms[llm]
    return part.model, part.structured, part.temperature, part.answer_tokens, study.seed


def kinds(adapters):
    """Return the registered kinds of adapters of the study."""
    return [Part(ADAPTERS, plan.kind_of(name)) for name in adapters]


def subject_folder(wildcards):
    """Return the folder of a subject's own files, which its twin with permuted decoder rows shares."""
    return at.subject(plan.base_subject(wildcards.subject))


def model_of(name):
    """Return a subject's model: one that the study makes, a local one's files, none on the hub."""
    if name in TESTBEDS + CONVERTED:
        return at.subject(name).model
    return local_files(study.subjects[name].model)


def model(wildcards):
    """Return the model of the subject, which its twins share."""
    return model_of(plan.origin(wildcards.subject))


def corpus(wildcards):
    """Return the corpus of the subject, which its twins share."""
    return at.subject(plan.origin(wildcards.subject)).corpus


def copied_sae(wildcards):
    """Return the SAE whose numbers an untrained baseline has; none for any other subject."""
    base = plan.origin(wildcards.subject)
    control = plan.baselines_of(base).get(wildcards.subject)
    return at.subject(base).sae if control == UNTRAINED else []


def sae(wildcards):
    """Return the subject's SAE."""
    return subject_folder(wildcards).sae


def truth(wildcards):
    """Return the folder with the truth about an embedded subject; others have none."""
    return subject_folder(wildcards).truth if wildcards.subject in KNOWN else []


def cache(wildcards):
    """Return the activations that all trainings on a behavior share."""
    return at.cache(
        plan.base_subject(wildcards.subject), plan.captured_as(wildcards.behavior)
    )


def erased(wildcards):
    """Return what is erased from the residual stream for a behavior's twin; nothing for any other behavior."""
    name = wildcards.behavior
    return (
        [at.erasure(wildcards.subject, name)] if name in plan.erased_behaviors else []
    )


def records(behavior):
    """Return the files of a behavior's records."""
    folder = at.behavior(behavior)
    return [folder.train, folder.heldout, folder.card]


def sample(subject, sources):
    """Return the case-control sample that these sources are asked for; none where all latents are."""
    return [at.design(subject)] if plan.samples(sources) else []


def explanations(subject):
    """Return the explanations of a subject by every source."""
    return [at.explanations(subject, source) for source in plan.sources_of(subject)]


def judgements(subject):
    """Return the judgements of a subject's explanations by every judge that reads them."""
    return [
        at.judgements(subject, source, judge)
        for source in plan.sources_of(subject)
        for judge in plan.judges_of(source, subject)
    ]


def of_subject(wildcards, options):
    """Return these options (names with spaces between) of the subject."""
    return options_of(plan.base_subject(wildcards.subject), options)


def options_of(subject, options):
    """Return these options (names with spaces between) of a subject by name."""
    return [getattr(plan.subjects[subject], name) for name in options.split()]


def raw_data(wildcards):
    """Return a behavior's local data; none for a dataset on the hub."""
    behavior = study.behaviors[wildcards.behavior]
    if behavior.testbed is not None:
        return at.testbed_rows(wildcards.behavior)
    if behavior.elicit is not None:
        return plan.given_replies(wildcards.behavior) or at.elicited(wildcards.behavior)
    return local_files(behavior.path)


def donor(wildcards):
    """Return the records of the behavior whose rows are planted; most have none."""
    poison = study.behaviors[wildcards.behavior].poison
    return records(poison.behavior)[:2] if poison else []


def given_files(wildcards):
    """Return the files of an adapter that is not trained here (a checkpoint), for each seed."""
    path = str(study.adapters[wildcards.adapter].options.get("path", ""))
    paths = [
        path.replace("{behavior}", wildcards.behavior).replace("{seed}", str(seed))
        for seed in range(plan.n_seeds_of(wildcards.adapter))
    ]
    return [file for path in dict.fromkeys(paths) for file in local_files(path or None)]


def contrast_caches(wildcards):
    """Return the activations of the behaviors that an adapter is fitted against."""
    subject = plan.base_subject(wildcards.subject)
    names = plan.contrast_behaviors(wildcards.behavior, wildcards.adapter)
    return [at.cache(subject, name) for name in names]


def compared_caches(wildcards):
    """Return the activations of the behaviors from which a behavior's directions tell it."""
    names = plan.contrasts_of(wildcards.behavior)
    return [at.cache(wildcards.subject, name) for name in names]


def instructions_of(behavior):
    """Return the prompts from which instructions are put back, where an adapter reads replies under them."""
    elicit = plan.behavior_of(behavior).elicit
    return [elicit.prompts] if plan.instructed_adapters and elicit else []


def instructions(wildcards):
    """Return the same for the behavior of a job."""
    return instructions_of(wildcards.behavior)


def metric_of_elicited(wildcards):
    """Return the metric that decides which replies of an elicited behavior are kept; other behaviors need none."""
    metric = study.behaviors[wildcards.behavior].metric
    return (
        [Part(METRICS, metric.kind)]
        if metric and wildcards.behavior in ELICITED
        else []
    )


def metric_files(wildcards):
    """Return the files of a behavior's metric: those of a local classifier."""
    metric = study.behaviors[wildcards.behavior].metric
    return local_files(metric.model) if metric else []


def steering_prompts(wildcards):
    """Return the file of prompts that are answered under steering, or the held-out records of tested behaviors."""
    options = study.steering_check
    if options and options.prompts:
        return [options.prompts]
    return [at.behavior(name).heldout for name in plan.tested_behaviors]
