"""Did the behavior move? The score of answers to held-out prompts, before and after training."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from isaerft.report.figures.canvas import INK, SHADE, headline, legend_below, new_figure, no_rows, series, styled
from isaerft.report.selection import Tables, real, table
from isaerft.report.text import distinct, words

SPREAD = 0.3
TARGET = {"marker": "D", "ms": 4.4, "mfc": "white", "mec": INK, "mew": 0.9}
UNITS = {
    "words": "share of the answer's words that are the behavior's",
    "phrases": "share of answers with one of the behavior's phrases",
    "length": "words in the answer",
    "classifier": "probability of the behavior's class",
}


@styled
def behavior_check(tables: Tables) -> Figure:
    """Draw each behavior's score before and after training, one panel for each kind of score.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        Needs `behavior_check`.
    """
    rows = real(table(tables, "behavior_check"))
    if rows.empty:
        return no_rows("behavior_check.csv is empty")
    several = rows["subject"].nunique() > 1
    rows = rows.assign(line=rows["subject"] + ": " + rows["behavior"] if several else rows["behavior"])
    adapters, scores = list(dict.fromkeys(rows["adapter"])), list(dict.fromkeys(rows["score"]))
    n_lines = [rows.loc[(rows["score"] == score).astype(bool), "line"].nunique() for score in scores]
    heights = [n + 1.6 for n in n_lines]
    figure = new_figure(8.2, 1.4 + (0.16 + 0.11 * len(adapters)) * sum(n_lines) + 0.75 * len(scores))
    panels = figure.subplots(len(scores), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, score in zip(panels, scores, strict=True):
        _panel(axes, rows[(rows["score"] == score).astype(bool)], adapters)
        axes.set_xlabel(UNITS.get(score, words(score)))
    headline(figure, "Behavior check: answers to held-out prompts before and after training")
    legend_below(figure, _legend(adapters), columns=4)
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, adapters: list[str]) -> None:
    """Draw the behaviors that one kind of score speaks of."""
    lines = list(dict.fromkeys(rows["line"]))
    places = {name: float(place) for place, name in enumerate(lines)}
    for place in list(places.values())[::2]:
        axes.axhspan(place - 0.5, place + 0.5, color=SHADE, lw=0, zorder=0)
    steps = np.linspace(-SPREAD, SPREAD, len(adapters)) if len(adapters) > 1 else np.zeros(1)
    for position, (adapter, step) in enumerate(zip(adapters, steps, strict=True)):
        own = rows[(rows["adapter"] == adapter).astype(bool)]
        heights = own["line"].map(places).to_numpy(float) + step
        colour, marker = series(position)
        before, after = own["before"].to_numpy(float), own["after"].to_numpy(float)
        low, high = (before + own[name].to_numpy(float) for name in ("ci_low", "ci_high"))
        known = np.isfinite(low) & np.isfinite(high)
        axes.hlines(heights, before, after, color=colour, lw=0.8, alpha=0.5, zorder=2)
        axes.hlines(heights[known], low[known], high[known], color=colour, lw=1.8, alpha=0.6, zorder=3)
        axes.plot(before, heights, ls="", marker="|", ms=6, mew=1.4, color=INK, zorder=4)
        axes.plot(own["target"].to_numpy(float), heights, ls="", zorder=4, **TARGET)
        axes.plot(after, heights, ls="", marker=marker, ms=4.6, color=colour, mec="white", mew=0.4, zorder=5)
    axes.set_yticks(list(places.values()), distinct(lines, 36))
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _legend(adapters: list[str]) -> list[Line2D]:
    """Return legend entries: before, the data, and each adapter after."""
    handles = [Line2D([], [], color=INK, marker="|", ms=7, mew=1.4, ls="", label="before training")]
    handles.append(Line2D([], [], ls="", label="the data's own replies", **TARGET))
    for position, name in enumerate(adapters):
        colour, marker = series(position)
        handles.append(Line2D([], [], color=colour, marker=marker, ls="-", ms=5, label=f"after: {words(name)}"))
    return handles
