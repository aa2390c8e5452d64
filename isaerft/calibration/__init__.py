"""The calibration study: how tests and intervals of `isaerft.stats` perform where the truth is known.

`run_part` runs one part of it; the rows of all parts make calibration.csv.
"""

from isaerft.calibration.results import Row, setting, share, table_of
from isaerft.calibration.study import run_part
from isaerft.calibration.worlds import WORLDS, Dictionary, Drawn, World, draw, world_of

__all__ = [
    "WORLDS",
    "Dictionary",
    "Drawn",
    "Row",
    "World",
    "draw",
    "run_part",
    "setting",
    "share",
    "table_of",
    "world_of",
]
