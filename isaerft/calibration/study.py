"""Run one part of the calibration study.

`isaerft.config.Calibration` holds the sizes of the study and lists its parts (`parts`).
"""

from __future__ import annotations

from collections.abc import Callable

from isaerft.calibration.audits import audit_null_rows
from isaerft.calibration.coverage import behavior_rows, interval_rows, judge_rows
from isaerft.calibration.nulls import null_rows
from isaerft.calibration.power import power_rows
from isaerft.calibration.results import Row
from isaerft.calibration.verdicts import verdict_error_rows, verdict_rows
from isaerft.calibration.worlds import WORLDS
from isaerft.config import Calibration
from isaerft.errors import InputError


def _world(word: str) -> str:
    if word not in WORLDS:
        raise ValueError(word)
    return word


_KINDS: dict[str, tuple[Callable[..., list[Row]], tuple[Callable[[str], object], ...]]] = {
    "null": (null_rows, (_world, int)),
    "power": (power_rows, (int,)),
    "intervals": (interval_rows, (float,)),
    "across": (behavior_rows, (float,)),
    "verdicts": (verdict_rows, (float,)),
    "verdict_errors": (verdict_error_rows, ()),
    "judges": (judge_rows, (int,)),
    "audits": (audit_null_rows, ()),
}


def run_part(part: str, sizes: Calibration) -> list[Row]:
    """Return the rows of one part of the calibration study.

    Parameters
    ----------
    part : str
        A kind and its values: "null-confounded-1000" (world, latents), "power-400" (latents),
        "intervals-1.9" or "across-1.9" (odds ratio), "verdicts-0.1" (share of wrong explanations), "judges-140"
        (explanations), "verdict_errors", "audits".
    sizes : Calibration
        Numbers of worlds, latents, behaviors and exchanges.

    Raises
    ------
    InputError
        There is no such part.
    """
    kind, *words = part.split("-")
    try:
        rows, parsers = _KINDS[kind]
        values = [parse(word) for parse, word in zip(parsers, words, strict=True)]
    except (KeyError, ValueError):
        raise InputError(
            f"part {part!r} of the calibration study",
            allowed="null-WORLD-LATENTS, power-LATENTS, intervals-ODDS, across-ODDS, "
            "verdicts-SHARE, verdict_errors, judges-EXPLANATIONS, audits; worlds: " + ", ".join(WORLDS),
        ) from None
    return rows(*values, sizes)
