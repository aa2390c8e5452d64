"""Whose explanations predict changes best: every source beside the best one, judge by judge."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from isaerft.report.figures.canvas import (
    GREY,
    SERIES,
    SHADE,
    beside,
    chance_line,
    headline,
    legend_below,
    new_figure,
    no_rows,
    styled,
)
from isaerft.report.selection import CHANCE, Primary, Tables, find_primary, matching, real, subjects_of, table
from isaerft.report.sources import worse
from isaerft.report.text import distinct, fixed, shorten, words

SIDES = {"input": ("o", SERIES[0]), "output": ("s", SERIES[1]), "both": ("D", SERIES[3])}
LINE_HEIGHT = 0.22
MAX_LABEL = 30


@styled
def source_comparison(tables: Tables) -> Figure:
    """Draw agreement and specificity of every source, the best of each judge on top, at the primary combination.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        Needs `source_comparison`, and `agreement` for the primary adapter and measure.
    """
    primary = find_primary(table(tables, "agreement"))
    if primary is None:
        return no_rows("agreement.csv marks no primary result")
    rows = matching(real(table(tables, "source_comparison")), primary, without=("source", "judge"))
    rows = rows[rows["estimate"].notna()]
    subjects = subjects_of(rows)
    if not subjects:
        return no_rows("no judge reads several sources that can be compared")
    quantities = list(dict.fromkeys(rows["quantity"]))
    lines = [_lines(rows[rows["subject"] == name]) for name in subjects]
    heights = [max(part["height"]) + 1 for part in lines]
    figure = new_figure(2.6 + 3.4 * len(quantities), 1.4 + LINE_HEIGHT * sum(heights) + 0.4 * len(subjects))
    panels = figure.subplots(
        len(subjects), len(quantities), squeeze=False, sharex="col", sharey="row", height_ratios=heights
    )
    for axes, subject, part in zip(panels, subjects, lines, strict=True):
        own = rows[rows["subject"] == subject].merge(part, on=["judge", "source"])
        for panel, quantity in zip(axes, quantities, strict=True):
            _panel(panel, own[own["quantity"] == quantity], part, quantity, primary)
        _label(axes[0], part, subject if len(subjects) > 1 else "")
    headline(figure, f"Whose explanations predict changes best: {primary.adapter} · {primary.measure}")
    legend_below(figure, _legend(rows))
    return figure


def _lines(rows: pd.DataFrame) -> pd.DataFrame:
    """Return judge, source and height of every line, the best by its first quantity on top, judges in their order."""
    first = rows[rows["quantity"] == rows["quantity"].iloc[0]]
    ranked = first.sort_values("rank", kind="stable")[["judge", "source"]]
    order = {name: place for place, name in enumerate(dict.fromkeys(rows["judge"]))}
    ranked = ranked.iloc[ranked["judge"].map(order).argsort(kind="stable")].reset_index(drop=True)
    return ranked.assign(height=ranked.index + 1.3 * (ranked["judge"].map(order) + 1))


def _panel(axes: Axes, rows: pd.DataFrame, lines: pd.DataFrame, quantity: str, primary: Primary) -> None:
    """Draw one quantity: estimates with intervals; filled are those not known to be worse than the judge's best."""
    for _, group in lines.groupby("judge", sort=False):
        axes.axhspan(group["height"].min() - 0.5, group["height"].max() + 0.5, color=SHADE, lw=0, zorder=0)
    chance_line(axes, CHANCE.get(primary.statistic) if quantity == "agreement" else 0.0)
    for row in rows.itertuples():
        marker, colour = SIDES.get(row.side, SIDES["both"])
        if pd.notna(row.ci_low):
            axes.hlines(row.height, row.ci_low, row.ci_high, color=colour, lw=1.6, zorder=3)
        face = "white" if worse(row) else colour
        axes.plot(row.estimate, row.height, marker=marker, ms=5.5, color=colour, mfc=face, mew=1.2, zorder=4)
        beside(axes, row.height, 6, fixed(row.estimate), bold=row.rank == 1)
    name = primary.statistic_name
    axes.set_xlabel(f"mean {name}" if quantity == "agreement" else f"{name}, own less other behaviors'")
    axes.set_title(words(quantity))
    axes.set_ylim(lines["height"].max() + 0.7, -0.1)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _label(axes: Axes, lines: pd.DataFrame, subject: str) -> None:
    """Write judges in bold and their sources below them, at the left of the first panel."""
    heights, labels, bold = [], [], []
    for judge, group in lines.groupby("judge", sort=False):
        heights += [group["height"].min() - 0.95, *group["height"]]
        heading = f"{subject}: {judge}" if subject else str(judge)
        labels += [shorten(f"judge: {heading}", MAX_LABEL), *distinct(map(words, group["source"]), MAX_LABEL)]
        bold += [True] + [False] * len(group)
    axes.set_yticks(heights, labels)
    for is_heading, label in zip(bold, axes.get_yticklabels(), strict=True):
        label.set_fontweight("bold" if is_heading else "normal")


def _legend(rows: pd.DataFrame) -> list[Line2D]:
    """Return legend entries for the sides that the figure holds, and for what is filled."""
    handles = [
        Line2D([], [], color=colour, marker=marker, ls="", ms=5.5, label=f"explanations of {side}")
        for side, (marker, colour) in SIDES.items()
        if (rows["side"] == side).any()
    ]
    return [*handles, Line2D([], [], color=GREY, marker="o", mfc="white", ls="", label="worse than the judge's best")]
