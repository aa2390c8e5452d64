"""The calibration study: do tests hold their level, do intervals cover, are effects and wrong explanations found?"""

from __future__ import annotations

import itertools
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, PercentFormatter

from isaerft.report.figures.canvas import (
    DASHED,
    INK,
    SHADE,
    Drawing,
    NoRowsError,
    new_drawing,
    series_style,
    title,
)
from isaerft.report.figures.forest import dodge, frame, points, stack
from isaerft.report.selection import Tables, table
from isaerft.report.text import words

LEVEL = 0.05
NAIVE = "naive_"
DETAILS = "_case_control$"
"""Tests that the table shows and the figure does not: the same tests on a sample."""
LOWEST = 0.01
"""False-positive rates below this are drawn at the left edge of the logarithmic axis."""
WANTED_RATES, WANTED_COVERAGE = (0.04, 0.06), (0.93, 0.97)


def draw_calibration(tables: Tables) -> Drawing:
    """Draw false-positive rates by null world and test, power, wrong explanations found, and coverage."""
    rows = with_settings(table(tables, "calibration"))
    rates = rows[rows["quantity"] == "false_positive_rate"]
    rates = rates[rates["level"].astype(float) == LEVEL] if len(rates) else rates
    if rates.empty:
        raise NoRowsError("no false-positive rate was counted")
    rates = rates[~rates["test"].str.contains(DETAILS)]
    naive = rates["test"].str.startswith(NAIVE)
    worlds = list(dict.fromkeys(rates["world"]))
    drawing = new_drawing(12.5, max(7.6, 2.0 + 0.4 * len(worlds)))
    mosaic: list[Any] = [["ours", "naive", "power"], ["ours", "naive", "wrong"], ["ours", "naive", "coverage"]]
    panels = drawing.subplot_mosaic(mosaic, width_ratios=(5, 4, 4.5))
    _rates(panels["ours"], rates[~naive], worlds, "Our tests: false positives at p ≤ 0.05")
    _rates(panels["naive"], rates[naive], worlds, "Naive tests")
    panels["naive"].tick_params(axis="y", labelleft=False)
    _power(panels["power"], rows[rows["quantity"] == "power"])
    _wrong(panels["wrong"], rows[rows["quantity"] == "wrong_explanations_auroc"])
    coverage = rows[rows["quantity"] == "coverage"]
    _coverage(panels["coverage"], coverage[coverage["world"].isna()])
    title(drawing, "Calibration: our tests and naive ones, where the truth is known")
    return drawing


def with_settings(table: pd.DataFrame) -> pd.DataFrame:
    """Return calibration.csv with a column for every key of its settings, empty (NaN) where a row has none."""
    settings = [dict(part.split("=", 1) for part in text.split("; ") if "=" in part) for text in table["setting"]]
    return pd.concat([table.reset_index(drop=True), pd.DataFrame(settings, index=range(len(table)))], axis=1)


def _rates(axes: Axes, rows: pd.DataFrame, worlds: list[str], heading: str) -> None:
    """Draw false-positive rates, one line per null world and one series per test."""
    lines = stack(worlds)
    frame(axes, lines, labels={name: words(name) for name in worlds}, references=[(LEVEL, False)])
    axes.axvspan(*WANTED_RATES, color=INK, alpha=0.08, lw=0, zorder=0.5)
    tests = list(dict.fromkeys(rows["test"]))
    for position, (test, offset) in enumerate(zip(tests, dodge(len(tests)), strict=True)):
        own = rows[rows["test"] == test]
        ends = [own[end].clip(LOWEST) for end in ("value", "ci_low", "ci_high")]
        look = series_style(words(test.removeprefix(NAIVE)), position)
        points(axes, ends[0], lines.at(own["world"], offset), look, low=ends[1], high=ends[2])
        axes.plot([], [], ls="", color=look.colour, marker=look.marker, label=look.label)
    axes.set_xscale("log")
    axes.set_xlim(LOWEST, 1.1)
    axes.set_xticks([0.01, 0.05, 0.1, 0.2, 0.5, 1.0])
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(title=heading, xlabel="share of null worlds (band: 4 to 6 %)")
    if tests:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.07), ncols=2)


def _power(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw power over effect size: a color for each test, as on the left, and a line for each number of latents."""
    tests = list(dict.fromkeys(rows["test"])) if len(rows) else []
    sizes = sorted({int(n) for n in rows["n"]}, reverse=True) if len(rows) else []
    for linestyle, n in zip(itertools.cycle(["-", "--", ":"]), sizes, strict=False):
        axes.plot([], [], color=INK, ls=linestyle, label=f"{n:,} latents")
        for position, test in enumerate(tests):
            own = rows[(rows["test"] == test) & (rows["n"].astype(int) == n)].astype({"odds_ratio": float})
            line = own.sort_values("odds_ratio")
            _curve(axes, line["odds_ratio"], line, position, "", linestyle)
    _finish(axes, "Power (colors as on the left)", "odds ratio of the right explanations")
    axes.set_ylim(-0.03, 1.03)
    if sizes:
        axes.legend(loc="center right")


def _wrong(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw how well wrong explanations are separated from right ones."""
    for position, (ratio, own) in enumerate(rows.groupby("odds_ratio", sort=False) if len(rows) else ()):
        line = own.assign(wrong=own["wrong"].astype(float)).sort_values("wrong")
        _curve(axes, line["wrong"], line, position, f"odds {ratio}", "-", interval=True)
    axes.axhline(0.5, color=INK, lw=0.9, ls=DASHED)
    _finish(axes, "AUROC of wrong explanations", "share of explanations that are wrong")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _coverage(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw how often each interval contains the truth."""
    axes.axhspan(*WANTED_COVERAGE, color=SHADE, zorder=0)
    names = list(dict.fromkeys(rows["interval"])) if len(rows) else []
    rows = rows.fillna({"odds_ratio": ""}) if len(rows) else rows  # intervals of judges know no odds ratio
    for position, (ratio, own) in enumerate(rows.groupby("odds_ratio", sort=False) if len(rows) else ()):
        at = [names.index(name) + 0.25 * (position - 0.5) for name in own["interval"]]
        _curve(axes, at, own, position, f"odds {ratio}" if ratio else "judges", "", interval=True)
    axes.set_xticks(range(len(names)), [words(name) for name in names], rotation=30, ha="right")
    axes.set_title("Coverage at 95 % (shaded: 93 to 97 %)")
    lowest = min(0.88, float(rows["ci_low"].min()) - 0.01) if names else 0.88
    axes.set_ylim(lowest, 1.0)
    if names:
        axes.legend(loc="lower center", ncols=3)


def _curve(
    axes: Axes,
    x: pd.Series | list[float],
    rows: pd.DataFrame,
    position: int,
    label: str,
    linestyle: str,
    *,
    interval: bool = False,
) -> None:
    """Draw `value` over `x`, with its interval if asked for."""
    look = series_style(label, position)
    error = [rows["value"] - rows["ci_low"], rows["ci_high"] - rows["value"]] if interval else None
    marks: dict[str, Any] = {"color": look.colour, "marker": look.marker, "ms": 3.5, "lw": 1.3, "elinewidth": 1.2}
    axes.errorbar(x, rows["value"], error, ls=linestyle, label=label or "_", **marks)


def _finish(axes: Axes, heading: str, label: str) -> None:
    """Put title, label, grid and legend on a panel."""
    axes.set_title(heading)
    axes.set_xlabel(label)
    axes.grid(axis="y", color="#E6E6E6", lw=0.6)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right")
