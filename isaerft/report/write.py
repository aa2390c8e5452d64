"""Read result tables, write figures and pages, each whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from isaerft import analysis
from isaerft.config import Calibration, Plan
from isaerft.errors import unknown_name
from isaerft.io import read_text, write_text
from isaerft.layout import Results
from isaerft.report.figures import FIGURES, figures_of
from isaerft.report.figures.canvas import save_svg
from isaerft.report.pages import answers_page, table_page
from isaerft.report.seconds import stage_seconds
from isaerft.report.selection import SOURCES, setup_of, source_facts
from isaerft.report.summary import ANSWERS, LATENTS, summary_page, summary_top
from isaerft.report.template import page, render
from isaerft.report.verdict import Verdict, verdicts


def write_figures(plan: Plan, results: Results, names: Iterable[str] | None = None) -> None:
    """Draw figures from the result tables and write them as SVG.

    Parameters
    ----------
    plan : Plan
    results : Results
    names : iterable of str, optional
        All figures that the study has if not given.

    Raises
    ------
    InputError
        A figure is unknown, or a table that it reads is missing or broken.
    """
    chosen = figures_of(plan) if names is None else list(names)
    for name in chosen:
        if name not in FIGURES:
            raise unknown_name("figure", name, FIGURES)
    tables = _read(results, dict.fromkeys(table for name in chosen for table in FIGURES[name].tables))
    tables[SOURCES] = source_facts(plan)
    for name in chosen:
        save_svg(FIGURES[name].make(tables), results.figure(name))


def write_figure(name: str, plan: Plan, results: Results) -> None:
    """Draw one figure; see `write_figures`."""
    write_figures(plan, results, [name])


def write_pages(plan: Plan, results: Results) -> None:
    """Write the page of every table that the study has; a missing or broken table is an `InputError`."""
    for name, frame in _read(results, analysis.tables_of(plan)).items():
        path = results.page(name)
        latents = Path(os.path.relpath(results.latent_page, path.parent)).as_posix()
        page = table_page(analysis.table(name), frame, latent_page=latents, subjects=plan.study.subjects)
        write_text(path, page)


def write_answers_page(plan: Plan, results: Results) -> None:
    """Write the page of answers to held-out prompts before and after training."""
    groups = {}
    for subject in plan.study.subjects:
        for behavior in plan.behavior_checked:
            heading = f"{subject}: {behavior}" if len(plan.study.subjects) > 1 else behavior
            text = read_text(results.behavior_check(subject, behavior).answers)
            # Not splitlines: a model's text may hold line separators that JSON leaves as they are.
            groups[heading] = [json.loads(line) for line in text.split("\n") if line]
    write_text(results.page(ANSWERS), answers_page(groups, plan.study.behavior_check.shown))


def write_summary(plan: Plan, results: Results) -> None:
    """Write the study's summary page, from those of its tables and figures that are there.

    Raises
    ------
    InputError
        The agreement table is missing, or a table is broken.
    """
    tables = _present(plan, results)
    pages = [*tables, *([ANSWERS] if plan.behavior_checked else [])]
    base = Path(os.path.relpath(results.page(ANSWERS).parent, results.summary.parent))
    drawn = [name for name in figures_of(plan) if results.figure(name).is_file()]
    figures = {name: results.figure(name).read_bytes() for name in drawn}
    links = {name: (base / results.page(name).name).as_posix() for name in pages}
    links[LATENTS] = results.latent_page.relative_to(results.summary.parent).as_posix()
    seconds = stage_seconds(results.benchmarks) if plan.study.record_seconds else None
    whole = summary_page(
        plan.study.study,
        tables,
        catalogue=analysis.TABLES,
        figures=figures,
        links=links,
        setup=setup_of(plan),
        seconds=seconds,
    )
    write_text(results.summary, whole)


_BRIEF = '<div class="page summary">{{ top }}</div>'


@dataclass(frozen=True)
class Brief:
    """The first part of a study's summary, for a notebook.

    Attributes
    ----------
    verdicts : list of Verdict
    page : str
        A self-contained page.
    """

    verdicts: list[Verdict]
    page: str


def summary_of(plan: Plan, results: Results) -> Brief:
    """Return the first part of a study's summary; a missing or broken table is an `InputError`."""
    tables, setup = _present(plan, results), setup_of(plan)
    return Brief(verdicts(tables, setup), page(plan.study.study, render(_BRIEF, top=summary_top(tables, setup))))


def _present(plan: Plan, results: Results) -> dict[str, pd.DataFrame]:
    """Read those of a study's tables that are there; the agreement table must be."""
    names = analysis.tables_of(plan)
    return _read(results, [name for name in names if name == "agreement" or results.table(name).is_file()])


def write_calibration(options: Calibration, results: Results) -> None:
    """Join the parts of the calibration study into its table, and write its page and figure.

    Raises
    ------
    InputError
        A part is missing or broken.
    """
    table = analysis.table("calibration")
    parts = [table.read(results.calibration_part(part)) for part in options.parts]
    table.write(pd.concat(parts, ignore_index=True), results.table("calibration"))
    frame = table.read(results.table("calibration"))
    write_text(results.page("calibration"), table_page(table, frame))
    save_svg(FIGURES["calibration"].make({"calibration": frame}), results.figure("calibration"))


def _read(results: Results, names: Iterable[str]) -> dict[str, pd.DataFrame]:
    """Read tables by name."""
    return {name: analysis.table(name).read(results.table(name)) for name in names}
