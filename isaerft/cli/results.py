"""Verbs from explanations to result tables, figures and pages."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from isaerft import ledger
from isaerft.cli.options import (
    AdapterName,
    JudgeName,
    ResultsFolder,
    ScorerName,
    SourceName,
    StudyFile,
    SubjectName,
    check_name,
    open_llm,
    open_study,
    tell,
)
from isaerft.errors import InputError

app = typer.Typer()


@app.command("verify")
def verify(study: StudyFile, results: ResultsFolder = None) -> None:
    """Find finished files that have changed since they were written, after a crash or power loss, and remove them.

    Snakemake then makes them again.
    """
    _, layout = open_study(study, results)
    found = ledger.damaged(layout.root)
    for path, why in found:
        tell(f"removed {path}: {why}")
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    tell(f"{ledger.n_noted(layout.root):,} files noted below {layout.root}; {len(found):,} damaged")


@app.command("design")
def design(study: StudyFile, subject: SubjectName, results: ResultsFolder = None) -> None:
    """Draw the case-control sample of a subject's latents, before any explanation is requested."""
    plan, layout = open_study(study, results)
    check_name("subject", subject, plan.subjects)
    from isaerft.analysis.design import draw_sample

    draw_sample(plan, layout, subject)


@app.command("explain")
def explain(study: StudyFile, subject: SubjectName, source: SourceName, results: ResultsFolder = None) -> None:
    """Get one source's explanations of a subject's latents, or of the case-control sample."""
    plan, layout = open_study(study, results)
    check_name("subject", subject, plan.subjects)
    options = plan.study.sources[check_name("source", source, plan.study.sources)]
    from isaerft import explanations
    from isaerft.explanations import latents_to_explain

    folder = layout.subject(subject)
    sample = layout.design(subject) if plan.samples([source]) else None
    d_sae = folder.read_cards()[0]["d_sae"]
    found = explanations.explain(
        source,
        options,
        subject_dir=folder.path,
        d_sae=d_sae,
        latents=latents_to_explain(folder.read_latents(), plan.study.agreement.min_firing_rate, sample),
        only=sample is not None,
        llm=open_llm(plan, options.llm),
    )
    explanations.write_explanations(found, layout.explanations(subject, source), d_sae=d_sae)


@app.command("labels")
def labels(
    study: StudyFile,
    subject: SubjectName,
    source: SourceName,
    out: Annotated[
        Path | None, typer.Option("--out", help="CSV file for all of them.", show_default="only a summary is printed")
    ] = None,
    results: ResultsFolder = None,
) -> None:
    """List all that was found at Neuronpedia: every maker's explanations, their side, and their published scores.

    It reads what `isaerft explain` has looked up, and asks nothing.
    """
    plan, layout = open_study(study, results)
    check_name("subject", subject, plan.study.subjects)
    options = plan.study.sources[check_name("source", source, plan.study.sources)]
    from isaerft.explanations.neuronpedia.labels import LABELS, known_labels, lines_about_makers

    found = known_labels(options, layout.subject(subject).path)
    tell("\n".join(lines_about_makers(found)))
    if out is not None:
        LABELS.write(found, out)


@app.command("judge")
def judge(
    study: StudyFile, subject: SubjectName, source: SourceName, judge: JudgeName, results: ResultsFolder = None
) -> None:
    """Predict from each explanation the effect of training on each behavior."""
    plan, layout = open_study(study, results)
    check_name("subject", subject, plan.subjects)
    check_name("source", source, plan.study.sources)
    options = plan.study.judges[check_name("judge", judge, plan.study.judges)]
    from isaerft.explanations import read_explanations
    from isaerft.judges import judge_explanations, write_judgements

    found = read_explanations(layout.explanations(subject, source))
    folder, llm = layout.subject(subject).path, open_llm(plan, options.llm)
    judged = judge_explanations(judge, options, found, plan.described, subject_dir=folder, llm=llm)
    write_judgements(judged, layout.judgements(subject, source, judge))


@app.command("embed-windows")
def embed_windows(study: StudyFile, subject: SubjectName, scorer: ScorerName, results: ResultsFolder = None) -> None:
    """Make the vectors of the windows that an embedding scorer reads, once for the explanations of all sources."""
    plan, layout = open_study(study, results)
    check_name("subject", subject, plan.study.subjects)
    options = plan.study.scorers[check_name("scorer", scorer, plan.study.scorers)]
    if not plan.embeds_windows(scorer):
        raise InputError(
            f"scorer {scorer!r} keeps no vectors of windows",
            allowed=", ".join(filter(plan.embeds_windows, plan.study.scorers)) or "none in this study",
            remedy="run `isaerft score`, which needs none",
        )
    from isaerft import scorers
    from isaerft.explanations import latents_to_explain
    from isaerft.explanations.contexts import read_contexts
    from isaerft.registry import SCORERS

    folder = layout.subject(subject)
    alive = latents_to_explain(folder.read_latents(), plan.study.agreement.min_firing_rate)
    asked, contexts = scorers.questions_of(options.scores), read_contexts(folder.scored)
    texts = scorers.texts_of(contexts, alive, asked, plan.study.seed)
    vectors = SCORERS[options.kind or scorer].embed(texts, options)
    scorers.write_windows(texts, vectors, layout.windows(subject, scorer))


@app.command("score")
def score(
    study: StudyFile, subject: SubjectName, source: SourceName, scorer: ScorerName, results: ResultsFolder = None
) -> None:
    """Score one source's explanations by a scorer's scores, with the score of exchanged ones as a baseline."""
    plan, layout = open_study(study, results)
    check_name("subject", subject, plan.study.subjects)
    check_name("source", source, plan.study.sources)
    options = plan.study.scorers[check_name("scorer", scorer, plan.study.scorers)]
    from isaerft import scorers
    from isaerft.explanations import latents_to_explain, read_explanations
    from isaerft.explanations.contexts import read_contexts

    folder = layout.subject(subject)
    alive = latents_to_explain(folder.read_latents(), plan.study.agreement.min_firing_rate)
    found = read_explanations(layout.explanations(subject, source))
    found = found[found["latent_index"].isin(alive)]
    asked, seed = scorers.questions_of(options.scores), plan.study.seed
    tasks = scorers.tasks_of(read_contexts(folder.scored), found, asked, seed, options.n_latents)
    windows = scorers.read_windows(layout.windows(subject, scorer)) if plan.embeds_windows(scorer) else None
    scored = scorers.score_explanations(
        scorer, options, tasks, seed=seed, subject_dir=folder.path, llm=open_llm(plan, options.llm), windows=windows
    )
    scorers.write_scores(scored, layout.scores(subject, source, scorer))


@app.command("agreement")
def agreement(study: StudyFile, subject: SubjectName, adapter: AdapterName, results: ResultsFolder = None) -> None:
    """Test whether the latents that changed are those whose explanations said they should."""
    plan, layout = open_study(study, results)
    check_name("subject", subject, plan.subjects)
    check_name("adapter", adapter, plan.analyzed_adapters(subject))
    from isaerft.analysis.agreement import write_agreement

    write_agreement(plan, layout, subject, adapter)


@app.command("audit")
def audit(study: StudyFile, subject: SubjectName, results: ResultsFolder = None) -> None:
    """Find the latents that a suspect data set trains unlike a clean one, and what their explanations say."""
    plan, layout = open_study(study, results)
    check_name("subject", subject, plan.study.subjects)
    from isaerft.analysis.audit import write_audits

    write_audits(plan, layout, subject)


@app.command("tables")
def tables(study: StudyFile, results: ResultsFolder = None) -> None:
    """Make every result table of the study."""
    plan, layout = open_study(study, results)
    from isaerft.analysis import write_tables

    write_tables(plan, layout)


@app.command("figures")
def figures(study: StudyFile, results: ResultsFolder = None) -> None:
    """Draw every figure of the study from its tables."""
    plan, layout = open_study(study, results)
    from isaerft.report.write import write_figures

    write_figures(plan, layout)


@app.command("pages")
def pages(study: StudyFile, results: ResultsFolder = None) -> None:
    """Write every table as an HTML page, with the meaning of its columns."""
    plan, layout = open_study(study, results)
    from isaerft.report.write import write_pages

    write_pages(plan, layout)


@app.command("latent-pages")
def latent_pages(study: StudyFile, results: ResultsFolder = None) -> None:
    """Write the page of single latents: what explanations say of each, and what training changed."""
    plan, layout = open_study(study, results)
    from isaerft.report.latents import write_latent_pages

    write_latent_pages(plan, layout)


@app.command("answers-page")
def answers_page(study: StudyFile, results: ResultsFolder = None) -> None:
    """Write the page of answers before and after training."""
    plan, layout = open_study(study, results)
    from isaerft.report.write import write_answers_page

    write_answers_page(plan, layout)


@app.command("summary")
def summary(study: StudyFile, results: ResultsFolder = None) -> None:
    """Write the page to read first."""
    plan, layout = open_study(study, results)
    from isaerft.report.write import write_summary

    write_summary(plan, layout)
