"""Does agreement fall as explanations are made wrong? The check that the test measures explanations at all."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from isaerft.report.figures.canvas import (
    BLUE,
    Drawing,
    NoRowsError,
    chance_handles,
    chance_line,
    control_style,
    legend_below,
    new_drawing,
    primary_of,
    title,
)
from isaerft.report.selection import (
    RESULT,
    SOURCES,
    Primary,
    Tables,
    controls_in,
    matching,
    subjects_of,
    table,
    with_controls,
)
from isaerft.report.text import plural, shorten, words

MAX_THIN_LINES = 60


def draw_dose_response(tables: Tables) -> Drawing:
    """Draw agreement over the known share of wrong explanations, one panel per side and subject."""
    primary = primary_of(tables)
    doses = tables[SOURCES].dropna(subset="wrong_share") if SOURCES in tables else pd.DataFrame({"source": []})
    rows = matching(with_controls(table(tables, "agreement")), primary, without=("source",))
    rows = rows[rows["estimate"].notna()].merge(doses, on="source")
    if rows.empty:
        raise NoRowsError("no source with a known share of wrong explanations")
    sides = [side for side in dict.fromkeys(doses["side"]) if (rows["side"] == side).any()]
    subjects, controls = subjects_of(rows), controls_in(rows)
    drawing = new_drawing(1.4 + 3.5 * len(sides), 1.2 + 3.2 * len(subjects))
    grid = drawing.subplots(len(subjects), len(sides), squeeze=False, sharex=True, sharey=True)
    for row_of_panels, subject in zip(grid, subjects, strict=True):
        for axes, side in zip(row_of_panels, sides, strict=True):
            _panel(axes, rows[(rows["subject"] == subject) & (rows["side"] == side)], primary, controls)
            heading = f"explanations of {words(side)}"
            axes.set_title(heading if len(subjects) == 1 else shorten(f"{subject}: {heading}", 44))
    for axes in grid[-1]:
        axes.set_xlabel("share of explanations made wrong")
    for axes in grid[:, 0]:
        axes.set_ylabel(primary.title)
    title(drawing, f"Dose-response: {primary.adapter} · {primary.measure} · {primary.judge}")
    median = f"median over {plural(rows['behavior'].nunique(), 'behavior')}"
    handles: list[Artist] = [
        Line2D([], [], color=BLUE, lw=2.2, marker="o", ms=5, label=median),
        Patch(color=BLUE, alpha=0.15, lw=0, label="interquartile range"),
        Line2D([], [], color=BLUE, lw=0.7, alpha=0.5, label="each behavior"),
    ]
    handles += [control_style(name, position).handle("--") for position, name in enumerate(controls)]
    legend_below(drawing, [*handles, *chance_handles(primary.facts.chance)])
    return drawing


def _panel(axes: Axes, rows: pd.DataFrame, primary: Primary, controls: list[str]) -> None:
    """Draw one side: behaviors, their interquartile range and median, and the medians of the controls."""
    chance_line(axes, primary.facts.chance, horizontal=True)
    result = rows[rows["control"] == RESULT]
    for _, line in list(result.groupby("behavior", sort=False))[:MAX_THIN_LINES]:
        line = line.sort_values("wrong_share")
        axes.plot(line["wrong_share"], line["estimate"], color=BLUE, lw=0.7, alpha=0.4, zorder=2)
    spread = result.groupby("wrong_share")["estimate"].quantile([0.25, 0.5, 0.75]).unstack()
    if len(spread):
        axes.fill_between(spread.index, spread[0.25], spread[0.75], color=BLUE, alpha=0.15, lw=0, zorder=1)
        axes.plot(spread.index, spread[0.5], color=BLUE, lw=2.2, marker="o", ms=5, zorder=4)
    for position, name in enumerate(controls):
        look = control_style(name, position)
        middle = rows[rows["control"] == name].groupby("wrong_share")["estimate"].median()
        marks: dict[str, Any] = {"color": look.colour, "marker": look.marker, "mfc": "white", "ms": 4}
        axes.plot(middle.index, middle, lw=1, ls="--", zorder=3, **marks)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlim(-0.03, 1.03)
    axes.grid(axis="y", color="#E6E6E6", lw=0.6)
