"""The calibration study: do tests hold their level, do intervals cover, are effects and wrong explanations found?"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, PercentFormatter

from isaerft.report.figures.canvas import (
    INK,
    SHADE,
    headline,
    legend_below,
    new_figure,
    no_rows,
    series,
    styled,
)
from isaerft.report.selection import Tables, table
from isaerft.report.text import words

LEVEL = 0.05
NAIVE = "naive_"
ASKED = {"rates": (0.04, 0.06), "coverage": (0.93, 0.97)}
LOWEST = 0.01


@styled
def calibration(tables: Tables) -> Figure:
    """Draw false-positive rates by test and null world, power, coverage, and how well wrong explanations are found.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        Needs `calibration` of the calibration study; other quantities are left out.
    """
    rows = with_settings(table(tables, "calibration"))
    rates = rows[(rows["quantity"] == "false_positive_rate") & ~rows.get("n_bins", pd.Series(index=rows.index)).notna()]
    rates = rates[rates["level"].astype(float) == LEVEL] if len(rates) else rates
    if rates.empty:
        return no_rows("no false-positive rate was counted")
    tests = sorted(dict.fromkeys(rates["test"]), key=lambda name: name.startswith(NAIVE))
    worlds = list(dict.fromkeys(rates["world"]))
    figure = new_figure(10.5, max(6.6, 1.6 + 0.33 * len(tests)))
    panels = figure.subplot_mosaic([["rates", "power"], ["rates", "wrong"], ["rates", "coverage"]], width_ratios=(5, 4))
    _rates(panels["rates"], rates, tests, worlds)
    _power(panels["power"], rows[rows["quantity"].isin(["power", "planned_power"])])
    _wrong(panels["wrong"], rows[rows["quantity"] == "wrong_explanations_auroc"])
    _coverage(panels["coverage"], rows[rows["quantity"] == "coverage"])
    headline(figure, "Calibration: the tests, and those that they replace, where the truth is known")
    legend_below(figure, [_handle(words(world), place) for place, world in enumerate(worlds)], columns=4)
    return figure


def with_settings(table: pd.DataFrame) -> pd.DataFrame:
    """Return calibration.csv with a column for every key of its settings, empty (NaN) where a row has none."""
    parts = [dict(part.split("=", 1) for part in text.split("; ") if "=" in part) for text in table["setting"]]
    return pd.concat([table.reset_index(drop=True), pd.DataFrame(parts, index=range(len(table)))], axis=1)


def _rates(axes: Axes, rows: pd.DataFrame, tests: list[str], worlds: list[str]) -> None:
    axes.axvspan(*ASKED["rates"], color=SHADE, zorder=0)
    axes.axvline(LEVEL, color=INK, lw=0.9, ls=(0, (4, 3)), zorder=1)
    for place, world in enumerate(worlds):
        colour, marker = series(place)
        own = rows[rows["world"] == world]
        heights = [-tests.index(name) + 0.5 - (place + 1) / (len(worlds) + 1) for name in own["test"]]
        axes.plot(own["value"].clip(LOWEST), heights, color=colour, marker=marker, ms=4, ls="", zorder=3)
    ours = sum(not name.startswith(NAIVE) for name in tests)
    if 0 < ours < len(tests):
        axes.axhline(0.5 - ours, color=INK, lw=0.8)
    for place in range(len(tests)):
        axes.axhline(-place - 0.5, color=SHADE, lw=0.8, zorder=0)
    axes.set_xscale("log")
    axes.set_xlim(LOWEST, 1.1)
    axes.set_xticks([0.01, 0.05, 0.1, 0.2, 0.5, 1.0])
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks([-place for place in range(len(tests))], [words(name) for name in tests])
    axes.set_ylim(-len(tests) + 0.5, 0.5)
    axes.set_title("False positives at p ≤ 0.05")
    axes.set_xlabel("share of null worlds (shaded: 4 to 6 %)")


def _power(axes: Axes, rows: pd.DataFrame) -> None:
    rows = rows[rows["test"] == "auroc"] if len(rows) else rows
    for place, (latents, own) in enumerate(rows.groupby("n", sort=False)):
        colour, marker = series(place)
        for quantity, style in (("power", "-"), ("planned_power", ":")):
            line = own[own["quantity"] == quantity].astype({"odds_ratio": float}).sort_values("odds_ratio")
            shown = f"{int(latents):,} latents" if quantity == "power" else None
            axes.plot(
                line["odds_ratio"], line["value"], style, color=colour, marker=marker, ms=3.5, lw=1.3, label=shown
            )
    _finish(axes, "Power of AUROC (dotted: as planned)", "odds ratio of the right explanations")


def _wrong(axes: Axes, rows: pd.DataFrame) -> None:
    for place, (ratio, own) in enumerate(rows.groupby("odds_ratio", sort=False) if len(rows) else ()):
        colour, marker = series(place)
        line = own.assign(wrong=own["wrong"].astype(float)).sort_values("wrong")
        error = [line["value"] - line["ci_low"], line["ci_high"] - line["value"]]
        axes.errorbar(
            line["wrong"], line["value"], error, color=colour, marker=marker, ms=3.5, lw=1.3, label=f"odds {ratio}"
        )
    axes.axhline(0.5, color=INK, lw=0.9, ls=(0, (4, 3)))
    _finish(axes, "AUROC of wrong explanations", "share of explanations that are wrong")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))


def _coverage(axes: Axes, rows: pd.DataFrame) -> None:
    axes.axhspan(*ASKED["coverage"], color=SHADE, zorder=0)
    names = list(dict.fromkeys(rows["interval"])) if len(rows) else []
    rows = rows.fillna({"odds_ratio": ""}) if len(rows) else rows  # intervals of judges know no odds ratio
    for place, (ratio, own) in enumerate(rows.groupby("odds_ratio", sort=False) if len(rows) else ()):
        colour, marker = series(place)
        at = [names.index(name) + 0.25 * (place - 0.5) for name in own["interval"]]
        error = [own["value"] - own["ci_low"], own["ci_high"] - own["value"]]
        axes.errorbar(
            at,
            own["value"],
            error,
            color=colour,
            marker=marker,
            ms=3.5,
            ls="",
            lw=1.2,
            label=f"odds {ratio}" if ratio else "judges",
        )
    axes.set_xticks(range(len(names)), [words(name) for name in names], rotation=30, ha="right")
    axes.set_title("Coverage at 95 % (shaded: 93 to 97 %)")
    if names:
        axes.legend(loc="lower left")
    axes.set_ylim(min(0.88, float(rows["ci_low"].min()) - 0.01) if names else 0.88, 1.0)


def _finish(axes: Axes, title: str, label: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(label)
    axes.grid(axis="y", color="#E6E6E6", lw=0.6)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right")


def _handle(name: str, place: int) -> Line2D:
    colour, marker = series(place)
    return Line2D([], [], color=colour, marker=marker, ls="", ms=4.5, label=f"null world: {name}")
