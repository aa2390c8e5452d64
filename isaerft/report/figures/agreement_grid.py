"""Which choice matters: median agreement of every combination beside its controls."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from isaerft.report.figures.canvas import (
    BLUE,
    GREY,
    INK,
    PALE,
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
from isaerft.report.figures.dose_response import Doses
from isaerft.report.selection import (
    CHANCE,
    RESULT,
    Primary,
    Tables,
    controls_in,
    find_primary,
    table,
    to_exceed,
    with_controls,
)
from isaerft.report.text import plural, shorten, words

MAX_LINES = 240
LINE_HEIGHT = 0.165
HIGHLIGHT = "#FFF3C4"
_LINE = ["subject", "source", "judge", "adapter"]


class _Line(NamedTuple):
    """One line of the plot: a heading (judge and adapter empty) or a combination, and its height."""

    subject: str
    source: str
    judge: str
    adapter: str
    height: float


@styled
def agreement_grid(tables: Tables, doses: Doses | None = None) -> Figure:
    """Draw the median over behaviors for every adapter, measure, source and judge, with the medians of the controls.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        Needs `agreement`. The statistic is the primary one.
    doses : mapping of str to (str, float), optional
        Source -> (its family, share of its explanations that is known to be wrong); sources that are wrong on purpose
        are left to the dose-response figure.
    """
    whole = table(tables, "agreement")
    primary = find_primary(whole)
    if primary is None:
        return no_rows("agreement.csv marks no primary result")
    rows = with_controls(whole)
    rows = rows[(rows["statistic"] == primary.statistic).astype(bool)]
    wrong = [source for source, (_, share) in (doses or {}).items() if share > 0]
    rows = rows[~rows["source"].isin(wrong).astype(bool) | (rows["source"] == primary.source).astype(bool)]
    medians = rows.groupby([*_LINE, "measure", "control"], sort=False, observed=True)["estimate"].median()
    medians = medians.dropna().reset_index()
    lines, n_left_out = _lines(medians)
    measures = list(dict.fromkeys(medians["measure"]))
    controls = controls_in(medians)
    figure = new_figure(2.6 + 2.4 * max(len(measures), 2), 1.7 + LINE_HEIGHT * (lines[-1].height + 1 if lines else 1))
    panels = figure.subplots(1, max(len(measures), 1), squeeze=False, sharex=True, sharey=True)[0]
    for axes, measure in zip(panels, measures, strict=False):
        _panel(axes, medians[medians["measure"] == measure], lines, controls, primary, measure)
    _label(panels[0], lines, several_subjects=medians["subject"].nunique() > 1)
    n_behaviors = rows["behavior"].nunique()
    for axes in panels:
        axes.set_xlabel(f"median {primary.statistic_name}")
    title = f"Agreement of every combination: median over {plural(n_behaviors, 'behavior')}"
    if n_left_out:
        title += f" (the first {MAX_LINES}; {plural(n_left_out, 'more', 'more')} in the table)"
    headline(figure, title)
    legend_below(figure, _legend(controls, primary))
    return figure


def _lines(medians: pd.DataFrame) -> tuple[list[_Line], int]:
    """Return headings and combinations from top to bottom, and how many combinations are left out."""
    combinations = medians[_LINE].drop_duplicates()
    order = {name: list(dict.fromkeys(combinations[name])) for name in _LINE}
    ranked = sorted(
        combinations.itertuples(index=False, name=None),
        key=lambda line: [order[name].index(value) for name, value in zip(_LINE, line, strict=True)],
    )
    lines: list[_Line] = []
    height = 0.0
    for combination in ranked[:MAX_LINES]:
        if not lines or lines[-1][:2] != combination[:2]:
            height += 1.4 if lines else 0.0
            lines.append(_Line(*combination[:2], "", "", height))
        height += 1.0
        lines.append(_Line(*combination, height))
    return lines, max(len(ranked) - MAX_LINES, 0)


def _panel(
    axes: Axes, medians: pd.DataFrame, lines: list[_Line], controls: list[str], primary: Primary, measure: str
) -> None:
    """Draw one measure's column."""
    heights = {line[:4]: line.height for line in lines if line.adapter}
    at = medians.assign(height=[heights.get(key) for key in medians[_LINE].itertuples(index=False, name=None)])
    at = at[at["height"].notna()]
    chance_line(axes, CHANCE.get(primary.statistic))
    for line in lines:
        if line.adapter:
            axes.axhline(line.height, color=PALE, lw=0.4, zorder=0)
        chosen = (line.adapter, measure, line.source, line.judge)
        if chosen == (primary.adapter, primary.measure, primary.source, primary.judge):
            axes.axhspan(line.height - 0.5, line.height + 0.5, color=HIGHLIGHT, lw=0, zorder=0)
    result = at[at["control"] == RESULT]
    highest = to_exceed(at).groupby("height")["estimate"].max()
    spans = result.set_index("height")["estimate"].to_frame("result").join(highest.rename("control")).dropna()
    for above, colour in ((True, BLUE), (False, GREY)):
        part = spans[(spans["result"] >= spans["control"]) == above]
        axes.hlines(part.index, part["control"], part["result"], color=colour, lw=2.6, alpha=0.35, zorder=2)
    for position, name in enumerate(controls):
        colour, marker = look(name, position)
        points = at[at["control"] == name]
        axes.plot(points["estimate"], points["height"], ls="", marker=marker, ms=3.6, color=colour, mfc="white")
    axes.plot(result["estimate"], result["height"], ls="", marker="o", ms=5, color=BLUE, zorder=4)
    axes.set_title(words(measure))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _label(axes: Axes, lines: list[_Line], *, several_subjects: bool) -> None:
    """Write the headings in bold and the combinations below them, at the left of the first panel."""
    labels = []
    for line in lines:
        heading = f"{line.subject}: {line.source}" if several_subjects else line.source
        labels.append(shorten(f"{line.judge} · {line.adapter}" if line.adapter else heading, 40))
    axes.set_yticks([line.height for line in lines], labels)
    for line, label in zip(lines, axes.get_yticklabels(), strict=True):
        label.set_fontweight("normal" if line.adapter else "bold")
        label.set_color(INK if not line.adapter else GREY)
        label.set_fontsize(8.5 if not line.adapter else 8)
    if lines:
        axes.set_ylim(lines[-1].height + 0.7, -0.7)


def _legend(controls: list[str], primary: Primary) -> list[Line2D | Patch]:
    """Return legend entries for what the figure holds."""
    handles: list[Line2D | Patch] = [result_handle()]
    handles += [control_handle(name, position) for position, name in enumerate(controls)]
    handles.append(Line2D([], [], color=BLUE, lw=2.6, alpha=0.35, label="from highest control up to result"))
    handles.append(Line2D([], [], color=GREY, lw=2.6, alpha=0.35, label="result below highest control"))
    handles.append(Patch(color=HIGHLIGHT, label="primary combination"))
    if primary.statistic in CHANCE:
        handles.append(Line2D([], [], color=INK, lw=0.9, ls=(0, (4, 3)), label="chance"))
    return handles
