"""The calibration study: how the tests and intervals of `isaerft.stats` do in worlds whose truth is known."""

from isaerft.calibration.parts import rows_of
from isaerft.calibration.rows import Row, Sizes
from isaerft.calibration.worlds import WORLDS, Dictionary, Drawn, World, draw, world_of

__all__ = ["WORLDS", "Dictionary", "Drawn", "Row", "Sizes", "World", "draw", "rows_of", "world_of"]
