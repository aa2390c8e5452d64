"""The main figure: the primary result of each behavior beside its controls."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from isaerft.report.figures.canvas import (
    BLUE,
    GREY,
    INK,
    SHADE,
    beside,
    chance_line,
    control_handle,
    headline,
    legend_below,
    look,
    new_figure,
    no_rows,
    result_handle,
    styled,
)
from isaerft.report.selection import (
    BOUNDS,
    CHANCE,
    RESULT,
    Primary,
    Tables,
    controls_in,
    find_primary,
    primary_rows,
    subjects_of,
    table,
    to_exceed,
)
from isaerft.report.text import count, distinct, fixed, number, plural, shorten

MAX_LABEL = 34
HEADING = -0.95
SPREAD = 0.34
SIDE = (8, 42, 80, 118)  # points to the right of the axes


@styled
def agreement(tables: Tables) -> Figure:
    """Draw one row per behavior: estimate and interval of the result, and of each control below it.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        Needs `agreement`. The rows marked primary name the combination; controls are the rows that agree with it in
        adapter, measure, source, judge and statistic.
    """
    whole = table(tables, "agreement")
    primary = find_primary(whole)
    if primary is None:
        return no_rows("agreement.csv marks no primary result")
    rows = primary_rows(whole, primary)
    subjects = subjects_of(rows)
    n_lines = [rows.loc[rows["subject"] == name, "behavior"].nunique() + 1.4 for name in subjects]
    controls = controls_in(rows)
    line_height = (0.14 + 0.085 * (1 + len(controls))) * (1.0 if max(n_lines) < 30 else 0.75)
    figure = new_figure(8.2, 1.9 + 0.5 * len(subjects) + line_height * sum(n_lines))
    panels = figure.subplots(len(subjects), 1, squeeze=False, sharex=True, height_ratios=n_lines)[:, 0]
    for axes, subject in zip(panels, subjects, strict=True):
        _panel(axes, rows[rows["subject"] == subject], primary, controls)
        if len(subjects) > 1:
            axes.set_title(shorten(subject, 60), pad=24)
    panels[-1].set_xlim(*_limits(rows, primary.statistic))
    panels[-1].set_xlabel(f"{primary.statistic_name} of expected against measured change, over latents")
    headline(figure, f"Agreement at the primary combination: {primary}")
    legend_below(figure, _legend(rows, controls, primary.statistic))
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, primary: Primary, controls: list[str]) -> None:
    """Draw one subject's rows, strongest result at the top, the median over behaviors at the bottom."""
    result = rows[rows["control"] == RESULT].set_index("behavior")["estimate"]
    behaviors = sorted(dict.fromkeys(rows["behavior"]), key=lambda name: (-_sortable(result.get(name)), name))
    places = {name: float(place) for place, name in enumerate(behaviors)}
    overall = len(behaviors) + 0.4
    for place in list(places.values())[::2]:
        axes.axhspan(place - 0.5, place + 0.5, color=SHADE, lw=0, zorder=0)
    axes.axhline(overall - 0.7, color=GREY, lw=0.8)
    chance_line(axes, CHANCE.get(primary.statistic))
    series = [RESULT, *controls]
    steps = np.linspace(-SPREAD, SPREAD, len(series)) if controls else np.zeros(1)
    for position, (name, step) in enumerate(zip(series, steps, strict=True)):
        _series(axes, rows[rows["control"] == name], places, overall, float(step), name, position)
    _limits_of_sight(axes, rows[rows["control"] == RESULT], places)
    _side_columns(axes, rows, places)
    axes.set_yticks([*places.values(), overall], [*distinct(behaviors, MAX_LABEL), "overall (median)"])
    axes.get_yticklabels()[-1].set_fontweight("bold")
    axes.set_ylim(overall + 0.6, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _series(
    axes: Axes,
    rows: pd.DataFrame,
    places: dict[str, float],
    overall: float,
    step: float,
    control: str,
    position: int,
) -> None:
    """Draw the result or one control: intervals, points, and the median with the range over behaviors."""
    rows = rows[rows["estimate"].notna()]
    if rows.empty:
        return
    is_result = control == RESULT
    colour, marker = (BLUE, "o") if is_result else look(control, position - 1)
    heights = rows["behavior"].map(places).to_numpy(float) + step
    known = (rows["ci_low"].notna() & rows["ci_high"].notna()).to_numpy()
    axes.hlines(
        heights[known],
        rows["ci_low"].to_numpy()[known],
        rows["ci_high"].to_numpy()[known],
        color=colour,
        lw=2.0 if is_result else 0.9,
        alpha=1.0 if is_result else 0.65,
        zorder=3,
    )
    size, face = (6.5, colour) if is_result else (4.2, "white")
    axes.plot(rows["estimate"], heights, ls="", marker=marker, ms=size, color=colour, mfc=face, mew=1.1, zorder=4)
    values = rows["estimate"]
    axes.hlines(overall + step, values.min(), values.max(), color=colour, lw=0.9, ls=(0, (1, 1.5)), zorder=3)
    axes.plot(values.median(), overall + step, marker=marker, ms=size + 1, color=colour, mfc=face, mew=1.4, zorder=4)


def _limits_of_sight(axes: Axes, result: pd.DataFrame, places: dict[str, float]) -> None:
    """Mark the noise ceiling and the minimum detectable effect of each behavior where the table has them."""
    for column, colour, style in (("noise_ceiling", INK, "-"), ("minimum_detectable_effect", INK, (0, (1, 1)))):
        known = result[result[column].notna()]
        heights = known["behavior"].map(places).to_numpy(float)
        axes.vlines(known[column], heights - 0.44, heights + 0.44, color=colour, lw=1.4, ls=style, zorder=2)


def _side_columns(axes: Axes, rows: pd.DataFrame, places: dict[str, float]) -> None:
    """Write result, highest control, p-value and numbers of latents to the right of the rows."""
    result = rows[rows["control"] == RESULT]
    highest = to_exceed(rows).groupby("behavior")["estimate"].max()
    for x, heading in zip(SIDE, ("result", "highest\ncontrol", "p", "expected\nof latents"), strict=True):
        beside(axes, HEADING, x, heading)
    for row in result.itertuples():
        numbers = f"{count(row.n_expected)} of {count(row.n_latents)}"
        cells = (fixed(row.estimate), fixed(highest.get(row.behavior)), number(row.pvalue, 2), numbers)
        for x, cell in zip(SIDE, cells, strict=True):
            beside(axes, places[str(row.behavior)], x, cell)
    medians = rows.groupby("control", sort=False)["estimate"].median()
    highest_median = to_exceed(rows).groupby("control")["estimate"].median().max()
    note = f"over {plural(int(result['estimate'].notna().sum()), 'behavior')}"
    for x, cell in zip(SIDE, (fixed(medians.get(RESULT)), fixed(highest_median), note), strict=False):
        beside(axes, len(places) + 0.4, x, cell, bold=True)


def _limits(rows: pd.DataFrame, statistic: str) -> tuple[float, float]:
    """Return limits that hold every value drawn and a tenth on both sides of chance, inside the statistic's bounds."""
    columns = ["estimate", "ci_low", "ci_high", "noise_ceiling", "minimum_detectable_effect"]
    values = rows[columns].to_numpy(float)
    values = values[np.isfinite(values)]
    chance = CHANCE.get(statistic)
    values = np.append(values, [] if chance is None else [chance - 0.1, chance + 0.1])
    if not values.size:
        return 0.0, 1.0
    margin = 0.03 * max(values.max() - values.min(), 0.1)
    low, high = BOUNDS.get(statistic, (-np.inf, np.inf))
    return max(values.min() - margin, low - margin), min(values.max() + margin, high + margin)


def _legend(rows: pd.DataFrame, controls: list[str], statistic: str) -> list[Line2D]:
    """Return legend entries for what the figure holds."""
    handles = [result_handle("result, with its interval")]
    handles += [control_handle(name, position) for position, name in enumerate(controls)]
    if statistic in CHANCE:
        handles.append(Line2D([], [], color=INK, lw=0.9, ls=(0, (4, 3)), label=f"chance ({CHANCE[statistic]:g})"))
    result = rows[rows["control"] == RESULT]
    if result["noise_ceiling"].notna().any():
        handles.append(Line2D([], [], color=INK, marker="|", ms=9, mew=1.4, ls="", label="noise ceiling (seeds)"))
    if result["minimum_detectable_effect"].notna().any():
        handles.append(Line2D([], [], color=INK, lw=1.4, ls=(0, (1, 1)), label="minimum detectable effect"))
    handles.append(Line2D([], [], color=GREY, lw=1.2, ls=(0, (1, 1.5)), label="overall: range over behaviors"))
    return handles


def _sortable(value: float | None) -> float:
    """Return a number to sort by; undefined goes last."""
    return -np.inf if value is None or np.isnan(value) else float(value)
