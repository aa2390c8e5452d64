# What the rules share: the names of the study's parts, and where their inputs stand.
import os
import re
from dataclasses import replace
from pathlib import Path

from isaerft.report.figures import FIGURES as DRAWN, figures_of
from isaerft.report.pages import ANSWERS_CAPTION
from isaerft.report.summary import CAPTION as SUMMARY_CAPTION

RESULTS = plan.results
SUBJECTS = list(study.subjects)
TESTBEDS = [name for name in SUBJECTS if study.subjects[name].testbed is not None]
# A random-dictionary twin shares its subject's folder, cache, explanations, judgements.
BASE = {**{name: name for name in SUBJECTS}, **plan.permuted_subjects}
# The behaviors and their twins, the same prompts with exchanged completions: captured, trained on, scored alike.
CAPTURED = [*study.behaviors, *plan.shuffled_behaviors]
# The adapters for which there are changes and agreement.
TRAINED = plan.analysed_adapters()
GPU = {} if study.device == "cpu" else {"gpu": 1}
# How several processes that train one adapter together are started.
TOGETHER = (
    f"torchrun --standalone --nproc-per-node {study.processes} --no-python "
    if study.processes > 1
    else ""
)
# Behaviors whose data audits compare.
AUDITED = {
    name for audit in study.audits.values() for name in (audit.clean, audit.suspect)
}

TABLES = "subjects training diagnostics most_changed_latents agreement specificity overall coverage seeds".split()
TABLES += ["source_comparison"] if plan.compared_sources else []
TABLES += ["explanation_verdicts"] if len(plan.tested_behaviors) > 1 else []
TABLES += ["causal_check"] if plan.causally_checked else []
if len(study.judges) > 1:
    TABLES += ["judge_quality"]
    if any(judge.reference for judge in study.judges.values()):
        TABLES += ["corrected_agreement"]
TABLES += ["audit", "audit_latents"] if study.audits else []
TABLES += ["behavior_check"] if plan.behavior_checked else []
TABLES += ["calibration"] if plan.dose_arms or plan.known_audits else []
if study.scorers:
    TABLES += ["explanation_scores", "explanation_quality", "agreement_by_quality"]
DOSES = {
    name: (source.side, source.wrong_share)
    for name, source in study.sources.items()
    if source.wrong_share is not None
}
FIGURES = figures_of(plan)
# Answers before and after training, for the eye.
ANSWERS = [f"{RESULTS}/pages/answers.html"] if plan.behavior_checked else []


def one_of(names):
    """Return the regular expression that matches exactly these names."""
    return "|".join(map(re.escape, names))


def local_files(path):
    """Return a local path's files; none for a hub id or a path with {subject_dir}."""
    if path is None or "{" in path or not os.path.exists(path):
        return []
    files = [Path(path)] if os.path.isfile(path) else sorted(Path(path).iterdir())
    return [str(file) for file in files if file.is_file()]


def asked(llm):
    """Return what decides a language model's answers; none where none is asked."""
    if llm is None:
        return None
    part = study.llms[llm]
    return part.model, part.structured, part.temperature, part.answer_tokens, study.seed


def given_files(wildcards):
    """Return the files of what an adapter takes as given (a checkpoint), for each seed."""
    path = str(study.adapters[wildcards.adapter].options.get("path", ""))
    paths = [
        path.replace("{behavior}", wildcards.behavior).replace("{seed}", str(seed))
        for seed in range(study.n_seeds)
    ]
    return [file for path in dict.fromkeys(paths) for file in local_files(path or None)]


def folder(wildcards):
    """Return the folder of a subject's own files."""
    return f"{RESULTS}/subjects/{BASE[wildcards.subject]}"


def model(wildcards):
    """Return the subject's model: the testbed's, a local one's files, none on the hub."""
    name = BASE[wildcards.subject]
    if name in TESTBEDS:
        return f"{RESULTS}/subjects/{name}/model"
    return local_files(study.subjects[name].model)


def truth(wildcards):
    """Return the folder with the truth about an embedded subject; others have none."""
    return f"{folder(wildcards)}/truth" if wildcards.subject in TESTBEDS else []


def cache(wildcards):
    """Return the activations that all trainings on a behavior share."""
    subject, behavior = BASE[wildcards.subject], wildcards.behavior
    return f"{RESULTS}/cache/{subject}/{behavior}.safetensors"


def raw_data(wildcards):
    """Return a behavior's local data; none for a dataset on the hub."""
    behavior = study.behaviors[wildcards.behavior]
    if behavior.testbed is not None:
        return f"{RESULTS}/testbed_rows/{wildcards.behavior}.jsonl"
    return local_files(behavior.path)


def donor(wildcards):
    """Return the records of the behavior whose rows are planted; most have none."""
    poison = study.behaviors[wildcards.behavior].poison
    parts = ["train", "heldout"] if poison else []
    return [f"{RESULTS}/behaviors/{poison.behavior}/{part}.jsonl" for part in parts]


def score_files(behavior):
    """Return the files of a behavior's score: those of a local classifier."""
    score = study.behaviors[behavior].metric
    return local_files(score.model) if score else []


def of_subject(wildcards, options):
    """Return these options (names with spaces between) of the subject."""
    subject = study.subjects[BASE[wildcards.subject]]
    return [getattr(subject, name) for name in options.split()]


def sources_of(subject):
    """Return the sources that speak of this subject."""
    return [
        name
        for name, source in study.sources.items()
        if subject in (source.subjects or SUBJECTS)
    ]


def sample(subject, sources):
    """Return the sample that these sources are asked for; none where all latents are."""
    designs = {plan.design_of(source) for source in sources}
    return [f"{RESULTS}/design/{subject}.parquet"] if "case_control" in designs else []


def judged_of(subject):
    """Return source/judge for every judge that reads a source of this subject."""
    return [
        f"{source}/{judge}"
        for source in sources_of(subject)
        for judge in study.sources[source].judges or study.judges
    ]


def scored_of(subject):
    """Return source/scorer for every scorer of a source of this subject."""
    return [
        f"{source}/{scorer}"
        for source in sources_of(subject)
        for scorer in plan.scorers_of(source)
    ]
