"""What the verbs of the command line call: read tables, make one output, write it whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from isaerft.errors import InputError, unknown_name
from isaerft.io import read_text, write_text
from isaerft.report import captions
from isaerft.report.figures import FIGURES, Doses, save_svg
from isaerft.report.pages import answers_page, summary_page, table_page
from isaerft.table import TABLES, read_table

ANSWERS = "answers.html"


def write_figure(name: str, tables_dir: str | Path, out: str | Path, doses: Doses | None = None) -> None:
    """Draw figure `name` from the tables in `tables_dir` and write it as SVG to `out`.

    Parameters
    ----------
    name : str
        One of `isaerft.report.figures.FIGURES`.
    tables_dir : path
        Folder of the study's CSV tables.
    out : path
        File to write.
    doses : mapping of str to (str, float), optional
        Source -> (its family, known share of wrong explanations); only the figures about sources use it.

    Raises
    ------
    InputError
        The figure is unknown, a share is not in 0..1, or a table that it reads is missing or broken.
    """
    if name not in FIGURES:
        raise unknown_name("figure", name, FIGURES)
    kind = FIGURES[name]
    for source, (_, share) in (doses or {}).items():
        if not 0 <= share <= 1:
            raise InputError(f"source {source!r} has a share of wrong explanations of {share!r}", allowed="0 to 1")
    tables = {needed: read_table(needed, Path(tables_dir) / f"{needed}.csv") for needed in kind.tables}
    options = {"doses": doses} if kind.wants_doses else {}
    save_svg(kind.build(tables, **options), out)


def write_table_page(name: str, tables_dir: str | Path, out: str | Path) -> None:
    """Write the HTML twin of table `name` to `out`.

    Raises
    ------
    InputError
        The table is unknown, missing or broken.
    """
    if name not in TABLES:
        raise unknown_name("table", name, TABLES)
    frame = read_table(name, Path(tables_dir) / f"{name}.csv")
    write_text(out, table_page(name, frame, captions.TABLES[name]))


def write_table_pages(tables_dir: str | Path, out: str | Path) -> None:
    """Write the HTML twin of every table in `tables_dir` to the folder `out`, each as NAME.html.

    Raises
    ------
    InputError
        There is no table, or one is broken.
    """
    present = [name for name in TABLES if (Path(tables_dir) / f"{name}.csv").is_file()]
    if not present:
        raise InputError(f"{str(tables_dir)!r} holds no table", remedy="run the study that makes them")
    for name in present:
        write_table_page(name, tables_dir, Path(out) / f"{name}.html")


def write_answers_page(folders: Mapping[str, str | Path], shown: int, out: str | Path) -> None:
    """Write the page of answers before and after training to `out`.

    Parameters
    ----------
    folders : mapping of str to path
        Heading -> folder with the answers.jsonl of a behavior check.
    shown : int
        Answers shown of each adapter.
    """
    # Not splitlines: a model's text may hold line separators that JSON leaves as they are.
    texts = {heading: read_text(Path(folder) / "answers.jsonl") for heading, folder in folders.items()}
    groups = {heading: [json.loads(line) for line in text.split("\n") if line] for heading, text in texts.items()}
    write_text(out, answers_page(groups, shown))


def write_summary(
    tables_dir: str | Path,
    figures_dir: str | Path,
    out: str | Path,
    study: str,
    pages_dir: str | Path | None = None,
) -> None:
    """Write the study's summary page to `out`, from every table and every SVG figure that is there.

    Parameters
    ----------
    tables_dir, figures_dir : path
        Folders of the CSV tables and the SVG figures; `agreement.csv` must be there.
    out : path
        File to write.
    study : str
        Name of the study.
    pages_dir : path, optional
        Folder in which the tables' pages stand (or will) as NAME.html; `tables_dir` when not given.

    Raises
    ------
    InputError
        The agreement table is missing, or a table is broken.
    """
    folder = Path(tables_dir)
    present = [name for name in TABLES if name == "agreement" or (folder / f"{name}.csv").is_file()]
    tables = {name: read_table(name, folder / f"{name}.csv") for name in present}
    base = os.path.relpath(pages_dir or folder, Path(out).parent)
    links = {name: Path(base, f"{name}.html").as_posix() for name in present}
    there = "behavior_check" in tables and Path(pages_dir or folder, ANSWERS).is_file()
    answers = Path(base, ANSWERS).as_posix() if there else ""
    figures = sorted(Path(figures_dir).glob("*.svg"))
    write_text(out, summary_page(tables, figures, study, links, answers))
