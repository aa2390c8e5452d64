"""Verbs of the calibration study, which measures the package's own statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isaerft.cli.options import check_name
from isaerft.config import load_calibration
from isaerft.layout import Results

app = typer.Typer()
ConfigFile = Annotated[Path, typer.Option("--config", help="Config file of the calibration study.")]
Folder = Annotated[Path, typer.Option("--results", help="Results folder.")]
FOLDER = Path("results/calibration")


@app.command("calibrate")
def calibrate(
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
