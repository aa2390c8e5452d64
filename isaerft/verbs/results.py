"""Verbs from explanations to tables, figures and pages."""

from __future__ import annotations

import argparse

from isaerft.layout import Results
from isaerft.verbs.base import plan_of, verb


@verb("design", "study", "subject", "dir", "changes", "out")
def design(options: argparse.Namespace) -> None:
    """Draw the latents that a case-control study speaks of, before anything is asked about them."""
    plan = plan_of(options)
    from isaerft.analysis.design import draw_sample

    draw_sample(plan, Results(plan.results), options.subject)


@verb("explain", "study", "subject", "source", "dir", "sample", "out")
def explain(options: argparse.Namespace) -> None:
    """Get one source's explanations of a subject's latents, or of a sample of them."""
    plan = plan_of(options)
    from isaerft import explanations
    from isaerft.explanations.base import latents_asked
    from isaerft.layout import SubjectFolder
    from isaerft.llm import LanguageModel

    folder, chosen = SubjectFolder(options.dir), plan.study.sources[options.source]
    d_sae = folder.read_cards()[0]["d_sae"]
    found = explanations.explain(
        options.source,
        chosen,
        subject_dir=options.dir,
        d_sae=d_sae,
        latents=latents_asked(folder.read_latents(), plan.study.agreement.min_firing_rate, options.sample),
        only=options.sample is not None,
        llm=None if chosen.llm is None else LanguageModel.of(plan, chosen.llm),
    )
    explanations.write_explanations(found, options.out, d_sae=d_sae)


@verb("judge", "study", "subject", "source", "judge", "dir", "explanations", "out")
def judge(options: argparse.Namespace) -> None:
    """Judge what each explanation leads one to expect of every behavior."""
    plan = plan_of(options)
    from isaerft.explanations import read_explanations
    from isaerft.judges import judge_explanations, write_judgements
    from isaerft.llm import LanguageModel

    chosen = plan.study.judges[options.judge]
    found = read_explanations(options.explanations)
    llm = None if chosen.llm is None else LanguageModel.of(plan, chosen.llm)
    judged = judge_explanations(options.judge, chosen, found, plan.described, subject_dir=options.dir, llm=llm)
    write_judgements(judged, options.out)


@verb("score", "study", "subject", "source", "scorer", "dir", "explanations", "out")
def score(options: argparse.Namespace) -> None:
    """Score one source's explanations: detection, fuzzing and output, each beside its measured floor."""
    plan = plan_of(options)
    from isaerft import scorers as scoring
    from isaerft.explanations import read_explanations
    from isaerft.explanations.base import latents_asked
    from isaerft.explanations.local import read_contexts
    from isaerft.layout import SubjectFolder
    from isaerft.llm import LanguageModel

    folder, chosen = SubjectFolder(options.dir), plan.study.scorers[options.scorer]
    alive = latents_asked(folder.read_latents(), plan.study.agreement.min_firing_rate)
    found = read_explanations(options.explanations)
    found = found[found["latent_index"].isin(alive)]
    tasks = scoring.tasks_of(read_contexts(folder.scored), found, plan.study.seed, chosen.n_latents)
    llm = None if chosen.llm is None else LanguageModel.of(plan, chosen.llm)
    scored = scoring.score_explanations(options.scorer, chosen, tasks, seed=plan.study.seed, llm=llm)
    scoring.write_scores(scored, options.out)


@verb("agreement", "study", "subject", "adapter", "dir", "changes", "explanations", "judgements", "sample", "out")
def agreement(options: argparse.Namespace) -> None:
    """Test whether the latents that changed are those whose explanations said they should."""
    plan = plan_of(options)
    from isaerft.analysis.agreement import write_agreement

    write_agreement(plan, Results(plan.results), options.subject, options.adapter)


@verb("audit", "study", "subject", "results", "out")
def audit(options: argparse.Namespace) -> None:
    """Say which latents a suspect set of data trains unlike a clean one, and what their explanations say."""
    from isaerft.analysis.audit import write_audits

    write_audits(plan_of(options), Results(options.results), options.subject)


@verb("tables", "study", "results", "out")
def tables(options: argparse.Namespace) -> None:
    """Collect the parts into the study's result tables."""
    from isaerft.analysis import write_tables

    write_tables(plan_of(options), Results(options.results), options.out)


@verb("figure", "name", "study", "tables", "out")
def figure(options: argparse.Namespace) -> None:
    """Draw one figure from the result tables."""
    plan = plan_of(options)
    from isaerft.report.write import write_figure

    write_figure(str(options.name), plan, Results(options.tables.parent))


@verb("pages", "tables", "out")
def pages(options: argparse.Namespace) -> None:
    """Write the page of every result table."""
    from isaerft.report.write import write_pages

    write_pages(Results(options.tables.parent))


@verb("answers-page", "study", "results", "out")
def answers_page(options: argparse.Namespace) -> None:
    """Write the page of answers before and after training."""
    plan = plan_of(options)
    from isaerft.report.write import write_answers_page

    write_answers_page(plan, Results(options.results))


@verb("summary", "study", "tables", "figures", "pages", "out")
def summary(options: argparse.Namespace) -> None:
    """Write the page to read first."""
    plan = plan_of(options)
    from isaerft.report.write import write_summary

    write_summary(plan, Results(options.tables.parent))
