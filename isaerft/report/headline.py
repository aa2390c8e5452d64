"""The numbers that a reader meets first: the primary result and each control, summed up over behaviors."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from isaerft.report.selection import RESULT, Tables, controls_in, find_primary, primary_rows, subjects_of, table

P_LEVEL = 0.01
Q_LEVEL = 0.05


@dataclass(frozen=True)
class Share:
    """How many of the behaviors whose value is defined fall below a level; `n` 0 means that none is defined."""

    k: int
    n: int


@dataclass(frozen=True)
class Line:
    """The result (control 'none') or one control of a subject, over behaviors.

    Attributes
    ----------
    median, low, high : float or None
        Median, smallest and largest estimate over behaviors; None when no estimate is defined.
    n_behaviors : int
        Behaviors whose estimate is defined.
    n_missing : int
        Behaviors whose estimate is undefined.
    significant : Share
        Behaviors with p < `P_LEVEL`.
    discovered : Share
        Behaviors with q < `Q_LEVEL`.
    """

    subject: str
    control: str
    median: float | None
    low: float | None
    high: float | None
    n_behaviors: int
    n_missing: int
    significant: Share
    discovered: Share


def headlines(tables: Tables) -> list[Line]:
    """Return, subject by subject, the line of the result followed by the lines of its controls."""
    whole = table(tables, "agreement")
    primary = find_primary(whole)
    if primary is None:
        return []
    rows = primary_rows(whole, primary)
    lines = []
    for subject in subjects_of(rows):
        own = rows[(rows["subject"] == subject).astype(bool)]
        lines += [_line(subject, name, own[own["control"] == name]) for name in [RESULT, *controls_in(own)]]
    return lines


def _line(subject: str, control: str, rows: pd.DataFrame) -> Line:
    """Sum up one control's rows."""
    known = rows["estimate"].dropna()
    empty = known.empty
    return Line(
        subject,
        control,
        None if empty else float(known.median()),
        None if empty else float(known.min()),
        None if empty else float(known.max()),
        n_behaviors=len(known),
        n_missing=len(rows) - len(known),
        significant=_below(rows["pvalue"], P_LEVEL),
        discovered=_below(rows["qvalue"], Q_LEVEL),
    )


def _below(values: pd.Series, level: float) -> Share:
    """Count the defined values below a level."""
    known = values.dropna()
    return Share(int((known < level).sum()), len(known))
