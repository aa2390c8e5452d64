"""Which scores of explanations find the wrong ones, by what is wrong with them?"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from isaerft.analysis.benchmark import AMONG_WORDS
from isaerft.report.figures.canvas import (
    GREY,
    Drawing,
    NoRowsError,
    Style,
    chance_handles,
    chance_line,
    legend_below,
    new_drawing,
    result_style,
    series_style,
    title,
)
from isaerft.report.figures.forest import Lines, dodge, frame, points, stack
from isaerft.report.selection import Tables, table
from isaerft.report.text import words

MAX_SCORES = 12
"""Series of the figure, those with the highest AUROC; the table has all."""


def draw_benchmark(tables: Tables) -> Drawing:
    """Draw the AUROC of every score by kind of wrongness, one panel per side, share and set of explanations."""
    rows = table(tables, "benchmark").dropna(subset="auroc")
    if rows.empty:
        raise NoRowsError("benchmark.csv is empty")
    rows = rows.assign(series=list(zip(rows["scorer"], rows["score"], strict=True)))
    looks = _looks(rows)
    arms = list(rows[["side", "share"]].drop_duplicates().itertuples(index=False, name=None))
    among = [name for name in AMONG_WORDS if (rows["among"] == name).any()]
    kinds = ["all", *sorted(set(rows["kind"]) - {"all"})]
    lines = stack(kinds)
    height = 0.9 + len(kinds) * (0.2 + 0.09 * len(looks))
    drawing = new_drawing(2.2 + 2.9 * len(arms), 1.4 + height * len(among))
    grid = drawing.subplots(len(among), len(arms), squeeze=False, sharex=True, sharey=True)
    for row_of_panels, name in zip(grid, among, strict=True):
        for axes, (side, share) in zip(row_of_panels, arms, strict=True):
            own = rows[(rows["side"] == side) & (rows["share"] == share) & (rows["among"] == name)]
            _panel(axes, own, lines, looks)
            axes.set_title(f"{words(side)}, {share:.0%} wrong:\n{AMONG_WORDS[name]}")
    for axes in grid[-1]:
        axes.set_xlabel("AUROC of finding wrong ones")
    title(drawing, "Which scores find wrong explanations?")
    legend_below(drawing, [*(look.handle() for look in looks.values()), *chance_handles(0.5)])
    return drawing


def _panel(axes: Axes, rows: pd.DataFrame, lines: Lines[str], looks: dict[tuple[str, str], Style]) -> None:
    frame(axes, lines, labels={kind: "every kind" if kind == "all" else words(kind) for kind in lines.heights})
    chance_line(axes, 0.5)
    for (series, look), offset in zip(looks.items(), dodge(len(looks)), strict=True):
        own = rows[rows["series"] == series]
        points(axes, own["auroc"], lines.at(own["kind"], offset), look, low=own["ci_low"], high=own["ci_high"])
    axes.set_xlim(-0.02, 1.02)


def _looks(rows: pd.DataFrame) -> dict[tuple[str, str], Style]:
    """Return the look of each score: training first, controls last, the others by their AUROC."""
    means = rows[rows["kind"] == "all"].groupby("series")["auroc"].mean()
    order = {"training": 0, "combined": 1, "control": 3}
    ranked = sorted(means.index, key=lambda series: (order.get(series[0], 2), -means[series]))
    shown = [series for series in ranked if series[0] != "control"][:MAX_SCORES]
    controls = [series for series in ranked if series[0] == "control"]
    looks = {}
    for place, (scorer, score) in enumerate([*shown, *controls]):
        label = f"{words(scorer)}: {words(score)}"
        own = result_style(label) if place == 0 and scorer == "training" else series_style(label, place)
        looks[scorer, score] = Style(label, GREY, "|", filled=False) if scorer == "control" else own
    return looks
