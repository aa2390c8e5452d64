"""Verbs of the calibration study."""

from __future__ import annotations

import argparse
from dataclasses import fields
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
    from isaerft.analysis import table
    from isaerft.calibration import Sizes, rows_of
    from isaerft.calibration.rows import table_of

    sizes = Sizes(**{field.name: getattr(chosen, field.name) for field in fields(Sizes)})
    table("calibration").write(table_of(rows_of(options.part, sizes)), options.out)


@verb("calibration", "config", "parts", "out")
def calibration(options: argparse.Namespace) -> None:
    """Put the parts of the calibration study together as one table."""
    chosen = config.load_calibration(options.config)
    import pandas as pd

    from isaerft.analysis import table

    parts = [table("calibration").read(Path(options.parts) / f"{part}.csv") for part in chosen.parts]
    table("calibration").write(pd.concat(parts, ignore_index=True), options.out)
