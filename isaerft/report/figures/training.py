"""Did training work? Held-out loss before and after, and the share of the reference adapter's improvement."""

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


@styled
def training(tables: Tables) -> Figure:
    """Draw held-out loss before and after and `loss_recovered`, per behavior and adapter, seeds as dots.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        Needs `training`.
    """
    rows = real(table(tables, "training"))
    if rows.empty:
        return no_rows("training.csv is empty")
    several = rows["subject"].nunique() > 1
    rows = rows.assign(line=rows["subject"] + ": " + rows["behavior"] if several else rows["behavior"])
    lines, adapters = list(dict.fromkeys(rows["line"])), list(dict.fromkeys(rows["adapter"]))
    places = {name: float(place) for place, name in enumerate(lines)}
    steps = dict(
        zip(adapters, np.linspace(-SPREAD, SPREAD, len(adapters)) if len(adapters) > 1 else [0.0], strict=True)
    )
    figure = new_figure(8.6, 1.6 + (0.16 + 0.1 * len(adapters)) * len(lines))
    loss, recovered = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for axes in (loss, recovered):
        for place in list(places.values())[::2]:
            axes.axhspan(place - 0.5, place + 0.5, color=SHADE, lw=0, zorder=0)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    for position, adapter in enumerate(adapters):
        group = rows[(rows["adapter"] == adapter).astype(bool)]
        heights = group["line"].map(places).astype(float) + steps[adapter]
        colour, marker = series(position)
        _loss(loss, group, heights, colour, marker)
        _points(recovered, group["loss_recovered"], heights, colour, marker)
    for value, style in ((0.0, "-"), (1.0, (0, (4, 3)))):
        recovered.axvline(value, color=INK, lw=0.8, ls=style, zorder=1)
    loss.set_yticks(list(places.values()), distinct(lines, 36))
    loss.set_ylim(len(lines) - 0.4, -0.6)
    loss.set(title="Held-out loss", xlabel="nats per token of the completion")
    recovered.set_title("Loss recovered")
    recovered.set_xlabel(_reference_label(rows))
    headline(figure, "Training: before and after")
    legend_below(figure, _legend(adapters), columns=4)
    return figure


def _loss(axes: Axes, group: pd.DataFrame, heights: pd.Series, colour: str, marker: str) -> None:
    """Draw the loss before as a tick, a line to the median after, and each seed's loss after as a dot."""
    for height, cell in group.groupby(heights):
        base, after = cell["heldout_loss_base"].median(), cell["heldout_loss_adapted"].median()
        axes.hlines(height, base, after, color=colour, lw=1, alpha=0.55, zorder=2)
    axes.plot(group["heldout_loss_base"], heights, ls="", marker="|", ms=6, mew=1.4, color=INK, zorder=3)
    _points(axes, group["heldout_loss_adapted"], heights, colour, marker)


def _points(axes: Axes, values: pd.Series, heights: pd.Series, colour: str, marker: str) -> None:
    """Draw one dot per seed."""
    known = values.notna()
    axes.plot(values[known], heights[known], ls="", marker=marker, ms=4.2, color=colour, mec="white", mew=0.4, zorder=4)


def _reference_label(rows: pd.DataFrame) -> str:
    """Return the label of the right panel, naming the reference adapter."""
    names = [words(name) for name in dict.fromkeys(rows["reference"].dropna())]
    if rows["loss_recovered"].isna().all():
        return "not measured: no reference adapter"
    return "share of the fall in loss of " + (", ".join(names) if names else "the reference")


def _legend(adapters: list[str]) -> list[Line2D]:
    """Return legend entries: before, and each adapter after."""
    handles = [Line2D([], [], color=INK, marker="|", ms=7, mew=1.4, ls="", label="before training")]
    for position, name in enumerate(adapters):
        colour, marker = series(position)
        handles.append(
            Line2D([], [], color=colour, marker=marker, ls="", ms=5, label=f"after: {words(name)}, each seed")
        )
    return handles
