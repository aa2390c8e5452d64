"""The parts of the calibration study, each run by itself."""

from __future__ import annotations

from collections.abc import Callable

from isaerft.errors import InputError
from isaerft.stats.calibration.coverage import across_rows, interval_rows
from isaerft.stats.calibration.nulls import bins_rows, null_rows
from isaerft.stats.calibration.power import power_rows
from isaerft.stats.calibration.rows import Row, Sizes
from isaerft.stats.calibration.worlds import WORLDS

_KINDS: dict[str, Callable[[list[str], Sizes], list[Row]]] = {
    "null": lambda given, sizes: null_rows(given[0], int(given[1]), sizes),
    "bins": lambda given, sizes: bins_rows(given[0], int(given[1]), sizes),
    "power": lambda given, sizes: power_rows(int(given[0]), sizes),
    "intervals": lambda given, sizes: interval_rows(float(given[0]), sizes),
    "across": lambda given, sizes: across_rows(float(given[0]), sizes),
}


def rows_of(part: str, sizes: Sizes) -> list[Row]:
    """Return the rows of one part.

    Parameters
    ----------
    part : str
        A kind and what it is about: "null-confounded-1000" (world, latents), "bins-confounded-1000", "power-400"
        (latents), "intervals-1.9" or "across-1.9" (odds ratio).

    Raises
    ------
    InputError
        There is no such part.
    """
    kind, *given = part.split("-")
    try:
        if given[:1] and kind in ("null", "bins") and given[0] not in WORLDS:
            raise ValueError
        return _KINDS[kind](given, sizes)
    except (KeyError, ValueError, IndexError):
        raise InputError(
            f"part {part!r} of the calibration study",
            allowed="null-WORLD-LATENTS, bins-WORLD-LATENTS, power-LATENTS, intervals-ODDS, across-ODDS; worlds: "
            + ", ".join(WORLDS),
        ) from None
