"""The parts of the calibration study, each run by itself."""

from __future__ import annotations

from collections.abc import Callable

from isaerft.calibration.coverage import across_rows, interval_rows, judge_rows
from isaerft.calibration.nulls import bins_rows, null_rows
from isaerft.calibration.power import power_rows, verdict_rows
from isaerft.calibration.rows import Row, Sizes
from isaerft.calibration.worlds import WORLDS
from isaerft.errors import InputError


def _world(word: str) -> str:
    if word not in WORLDS:
        raise ValueError(word)
    return word


_KINDS: dict[str, tuple[Callable[..., list[Row]], tuple[Callable[[str], object], ...]]] = {
    "null": (null_rows, (_world, int)),
    "bins": (bins_rows, (_world, int)),
    "power": (power_rows, (int,)),
    "intervals": (interval_rows, (float,)),
    "across": (across_rows, (float,)),
    "verdicts": (verdict_rows, (float,)),
    "judges": (judge_rows, (int,)),
}


def rows_of(part: str, sizes: Sizes) -> list[Row]:
    """Return the rows of one part.

    Parameters
    ----------
    part : str
        A kind and what it is about: "null-confounded-1000" (world, latents), "bins-confounded-1000", "power-400"
        (latents), "intervals-1.9" or "across-1.9" (odds ratio), "verdicts-0.1" (share of wrong explanations),
        "judges-140" (explanations).

    Raises
    ------
    InputError
        There is no such part.
    """
    kind, *given = part.split("-")
    try:
        rows, allowed = _KINDS[kind]
        values = [check(word) for check, word in zip(allowed, given, strict=True)]
    except (KeyError, ValueError):
        raise InputError(
            f"part {part!r} of the calibration study",
            allowed="null-WORLD-LATENTS, bins-WORLD-LATENTS, power-LATENTS, intervals-ODDS, across-ODDS, "
            "verdicts-SHARE, judges-EXPLANATIONS; worlds: " + ", ".join(WORLDS),
        ) from None
    return rows(*values, sizes)
