"""Verbs of calibration: of the package's own statistics, in simulated worlds, and of a study's own tests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isaerft.cli.options import ResultsFolder, StudyFile, SubjectName, check_name, open_study, tell
from isaerft.config import load_calibration
from isaerft.layout import Results

app = typer.Typer()
ConfigFile = Annotated[Path, typer.Option("--config", help="Config file of the calibration study.")]
Folder = Annotated[Path, typer.Option("--results", help="Results folder.")]
FOLDER = Path("results/calibration")


@app.command("calibrate")
def calibrate(
    study: StudyFile,
    subject: SubjectName,
    results: ResultsFolder = None,
    draws: Annotated[int, typer.Option("--draws", min=20, help="Null studies that are drawn, of either kind.")] = 400,
) -> None:
    """Tell how often a study's own tests are wrong: on random directions through its dictionary, with its labels.

    No rule of the workflow calls it; it needs what `snakemake` made of the study.
    """
    plan, layout = open_study(study, results)
    check_name("subject", subject, plan.study.subjects)
    from isaerft.analysis.own_calibration import summary_of, write_own_calibration

    tell(summary_of(write_own_calibration(plan, layout, subject, n_draws=draws)))


@app.command("calibration-part")
def calibration_part(
    config: ConfigFile,
    part: Annotated[str, typer.Option("--part", help="Part of the calibration study.")],
    results: Folder = FOLDER,
) -> None:
    """Run one part of the calibration study: tests and intervals in worlds whose truth is known."""
    options = load_calibration(config)
    check_name("part", part, options.parts)
    from isaerft.analysis.calibration import write_part

    write_part(options, part, Results(results))


@app.command("calibration")
def calibration(config: ConfigFile, results: Folder = FOLDER) -> None:
    """Join the parts of the calibration study into one table, and write its page and figure."""
    options = load_calibration(config)
    from isaerft.report.write import write_calibration

    write_calibration(options, Results(results))
