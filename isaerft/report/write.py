"""What the command line calls: read result tables, write figures and pages, each whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from isaerft import analysis
from isaerft.config import Plan
from isaerft.errors import InputError, unknown_name
from isaerft.io import read_text, write_text
from isaerft.layout import Results
from isaerft.report.figures import FIGURES, figures_of, save_svg
from isaerft.report.pages import answers_page, table_page
from isaerft.report.selection import SOURCES, source_facts
from isaerft.report.summary import ANSWERS, summary_page


def write_figures(plan: Plan | None, results: Results, names: Iterable[str] | None = None) -> None:
    """Draw figures from the result tables and write them as SVG.

    Parameters
    ----------
    plan : Plan or None
        The study; None for the calibration study.
    results : Results
        Where its tables are and its figures go.
    names : iterable of str, optional
        Figures to draw; all that the study has if not given.

    Raises
    ------
    InputError
        A figure is unknown, or a table that it reads is missing or broken.
    """
    chosen = list(names) if names is not None else figures_of(plan) if plan else []
    for name in chosen:
        if name not in FIGURES:
            raise unknown_name("figure", name, FIGURES)
    needed = dict.fromkeys(table for name in chosen for table in FIGURES[name].tables)
    tables = _read(results, needed)
    if plan is not None:
        tables[SOURCES] = source_facts(plan)
    for name in chosen:
        save_svg(FIGURES[name].make(tables), results.figure(name))


def write_figure(name: str, plan: Plan | None, results: Results) -> None:
    """Draw one figure; see `write_figures`."""
    write_figures(plan, results, [name])


def write_pages(results: Results, names: Iterable[str] | None = None) -> None:
    """Write the page of each table.

    Parameters
    ----------
    results : Results
    names : iterable of str, optional
        Tables to show; all that are there if not given.

    Raises
    ------
    InputError
        A table is unknown, missing or broken, or there is none.
    """
    chosen = list(names) if names is not None else _present(results)
    if not chosen:
        raise InputError(f"{str(results.root)!r} has no tables", remedy="run the study that makes them")
    for name, frame in _read(results, chosen).items():
        write_text(results.page(name), table_page(analysis.table(name), frame))


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
    present = [name for name in analysis.tables_of(plan) if name == "agreement" or results.table(name).is_file()]
    tables = _read(results, present)
    pages = [*tables, *([ANSWERS] if plan.behavior_checked else [])]
    base = Path(os.path.relpath(results.page(ANSWERS).parent, results.summary.parent))
    drawn = [name for name in figures_of(plan) if results.figure(name).is_file()]
    figures = {name: results.figure(name).read_bytes() for name in drawn}
    links = {name: (base / results.page(name).name).as_posix() for name in pages}
    page = summary_page(plan.study.study, tables, catalogue=analysis.TABLES, figures=figures, links=links)
    write_text(results.summary, page)


def _present(results: Results) -> list[str]:
    """Return the names of the tables that are there."""
    return [name for name in analysis.TABLES if results.table(name).is_file()]


def _read(results: Results, names: Iterable[str]) -> dict[str, pd.DataFrame]:
    """Read tables by name."""
    return {name: analysis.table(name).read(results.table(name)) for name in names}
