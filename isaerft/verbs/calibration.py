"""Verbs of the calibration study."""

from __future__ import annotations

import argparse
from pathlib import Path

from isaerft import config
from isaerft.errors import unknown_name
from isaerft.verbs.base import verb


@verb("calibrate", "config", "part", "out")
def calibrate(options: argparse.Namespace) -> None:
    """Run one part of the calibration study: worlds whose truth is known, and how tests and intervals do in them."""
    chosen = config.load_calibration(options.config)
    if options.part not in chosen.parts:
        raise unknown_name("part", options.part, chosen.parts)
    from isaerft.calibration import run_part, table_of
    from isaerft.table import write_table

    write_table("calibration", table_of(run_part(options.part, chosen)), options.out)


@verb("calibration", "config", "parts", "out")
def calibration(options: argparse.Namespace) -> None:
    """Put the parts of the calibration study together as one table."""
    chosen = config.load_calibration(options.config)
    import pandas as pd

    from isaerft.table import read_table, write_table

    parts = [read_table("calibration", Path(options.parts) / f"{part}.csv") for part in chosen.parts]
    write_table("calibration", pd.concat(parts, ignore_index=True), options.out)
