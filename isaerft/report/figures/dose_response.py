"""Does agreement fall as explanations are made wrong? The check that the test measures explanations at all."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from isaerft.report.figures.canvas import (
    BLUE,
    INK,
    chance_line,
    control_handle,
    headline,
    legend_below,
    look,
    new_figure,
    no_rows,
    styled,
)
from isaerft.report.selection import (
    CHANCE,
    RESULT,
    Primary,
    Tables,
    controls_in,
    find_primary,
    matching,
    subjects_of,
    table,
    with_controls,
)
from isaerft.report.text import plural, shorten, words

Doses = Mapping[str, tuple[str, float]]
MAX_THIN_LINES = 60


@styled
def dose_response(tables: Tables, doses: Doses | None = None) -> Figure:
    """Draw agreement over the share of wrong explanations, one panel per family of sources and subject.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        Needs `agreement`; adapter, measure, judge and statistic are the primary ones.
    doses : mapping of str to (str, float), optional
        Source -> (its family, share of its explanations that is known to be wrong, in 0..1).
    """
    whole = table(tables, "agreement")
    primary = find_primary(whole)
    if primary is None:
        return no_rows("agreement.csv marks no primary result")
    rows = matching(with_controls(whole), primary, without=("source",))
    known = dict(doses or {})
    rows = rows[rows["source"].isin(list(known)).astype(bool) & rows["estimate"].notna()]
    if rows.empty:
        return no_rows("no source with a known share of wrong explanations")
    rows = rows.assign(
        family=[known[source][0] for source in rows["source"]], share=[known[source][1] for source in rows["source"]]
    )
    families, subjects = list(dict.fromkeys(family for family, _ in known.values())), subjects_of(rows)
    families = [family for family in families if (rows["family"] == family).any()]
    controls = controls_in(rows)
    figure = new_figure(1.4 + 3.5 * len(families), 1.2 + 3.2 * len(subjects))
    grid = figure.subplots(len(subjects), len(families), squeeze=False, sharex=True, sharey=True)
    for line, subject in zip(grid, subjects, strict=True):
        for axes, family in zip(line, families, strict=True):
            chosen = rows[(rows["subject"] == subject).astype(bool) & (rows["family"] == family)]
            _panel(axes, chosen, primary, controls)
            axes.set_title(words(family) if len(subjects) == 1 else shorten(f"{subject}: {words(family)}", 44))
    for axes in grid[-1]:
        axes.set_xlabel("share of explanations made wrong")
    for axes in grid[:, 0]:
        axes.set_ylabel(primary.statistic_name)
    headline(figure, f"Dose-response: {primary.adapter} · {primary.measure} · {primary.judge}")
    legend_below(figure, _legend(controls, primary, rows["behavior"].nunique()))
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, primary: Primary, controls: list[str]) -> None:
    """Draw one family: behaviors, their interquartile range and median, and the medians of the controls."""
    chance_line(axes, CHANCE.get(primary.statistic), horizontal=True)
    result = rows[rows["control"] == RESULT]
    for _, line in list(result.groupby("behavior", sort=False))[:MAX_THIN_LINES]:
        line = line.sort_values("share")
        axes.plot(line["share"], line["estimate"], color=BLUE, lw=0.7, alpha=0.4, zorder=2)
    spread = result.groupby("share")["estimate"].quantile([0.25, 0.5, 0.75]).unstack()
    if len(spread):
        axes.fill_between(spread.index, spread[0.25], spread[0.75], color=BLUE, alpha=0.15, lw=0, zorder=1)
        axes.plot(spread.index, spread[0.5], color=BLUE, lw=2.2, marker="o", ms=5, zorder=4)
    for position, name in enumerate(controls):
        colour, marker = look(name, position)
        middle = rows[rows["control"] == name].groupby("share")["estimate"].median()
        axes.plot(middle.index, middle, color=colour, lw=1, ls="--", marker=marker, ms=4, mfc="white", zorder=3)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlim(-0.03, 1.03)
    axes.grid(axis="y", color="#E6E6E6", lw=0.6)


def _legend(controls: list[str], primary: Primary, n_behaviors: int) -> list[Line2D | Patch]:
    """Return legend entries for what the figure holds."""
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=BLUE, lw=2.2, marker="o", ms=5, label=f"median over {plural(n_behaviors, 'behavior')}"),
        Patch(color=BLUE, alpha=0.15, lw=0, label="interquartile range"),
        Line2D([], [], color=BLUE, lw=0.7, alpha=0.5, label="each behavior"),
    ]
    handles += [control_handle(name, position, "--") for position, name in enumerate(controls)]
    if primary.statistic in CHANCE:
        handles.append(Line2D([], [], color=INK, lw=0.9, ls=(0, (4, 3)), label="chance"))
    return handles
