"""How far would the numbers of a study move if seeds were drawn again, and do they separate variants of one SAE?"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from isaerft.report.figures.canvas import (
    BLUE,
    ORANGE,
    Drawing,
    NoRowsError,
    Style,
    legend_below,
    new_drawing,
    primary_of,
    title,
)
from isaerft.report.figures.forest import frame, points, stack
from isaerft.report.selection import Primary, Tables, table
from isaerft.report.text import undefined, visible, words

MAX_LINES = 40
"""Lines of one panel; the table has all."""
SEPARATES, MIXES = Style("separates the variants", BLUE, "o"), Style("does not", ORANGE, "s", filled=False)


def draw_reliability(tables: Tables) -> Drawing:
    """Draw a panel for each number, with a line for each subject or group and adapter."""
    rows = _primary_numbers(table(tables, "reliability"), primary_of(tables))
    rows = rows[(rows["table"] != "source_comparison").astype(bool) & rows["reliable_difference"].notna()]
    if rows.empty:
        raise NoRowsError("no number is repeated over seeds or subjects")
    # Groups of subjects first: their noise holds that of training seeds, too.
    rows = rows.assign(last=rows["method"] == "jackknife").sort_values("last", kind="stable")
    if rows["of"].nunique(dropna=False) == 1:
        rows = rows.assign(of=None)
    rows = rows.assign(line=[_line(row) or "all" for row in rows.itertuples()])
    panels = [(name, group.head(MAX_LINES)) for name, group in rows.groupby("number", sort=False)]
    heights = [1.4 + stack(part["line"]).end for _, part in panels]
    drawing = new_drawing(8.4, 1.6 + 0.62 * len(panels) + 0.2 * sum(heights))
    axes = drawing.subplots(len(panels), 1, squeeze=False, height_ratios=[height + 1.6 for height in heights])[:, 0]
    overs = list(dict.fromkeys(rows["over"]))
    looks = {
        over: Style(f"over {words(over)}", (BLUE, ORANGE)[place % 2], "os"[place % 2])
        for place, over in enumerate(overs)
    }
    for own, (name, part) in zip(axes, panels, strict=True):
        _panel(own, part, looks)
        own.set_title(name)
    title(drawing, "The numbers under reseeding; bars reach as far as it explains")
    legend_below(drawing, [look.handle("-") for look in looks.values()])
    return drawing


def _panel(axes: Axes, rows: pd.DataFrame, looks: dict[str, Style]) -> None:
    lines = stack(rows["line"])
    frame(axes, lines, labels={line: line for line in lines.heights}, width=48)
    for over in looks:
        own = rows[(rows["over"] == over).astype(bool)]
        heights, means = lines.at(own["line"]), own["mean"].to_numpy(float)
        reach = own["reliable_difference"].to_numpy(float)
        points(axes, means, heights, looks[over], low=means - reach, high=means + reach)
        for replicates, height in zip(own["replicates"], heights, strict=True):
            values = json.loads(replicates)
            small = Style("", looks[over].colour, "o", size=2.4, filled=False)
            points(axes, values, np.full(len(values), height), small)


def draw_discriminability(tables: Tables) -> Drawing:
    """Draw a line for each number: the share of its variance that lies between variants."""
    rows = _primary_numbers(table(tables, "discriminability"), primary_of(tables))
    rows = rows[rows["share_between"].notna()].head(4 * MAX_LINES)
    if rows.empty:
        raise NoRowsError("no number has replicates in two variants")
    several = rows["over"].nunique() > 1
    named = zip(rows["over"], rows["number"], rows["line"], strict=True)
    rows = rows.assign(key=[": ".join(filter(None, (over if several else "", *rest))) for over, *rest in named])
    lines = stack(rows["key"])
    drawing = new_drawing(8.4, 1.9 + 0.2 * lines.end)
    axes = drawing.subplots()
    frame(axes, lines, width=72, references=((0.0, True),))
    apart = (rows["ci_low"] > 0).fillna(False).astype(bool)
    for look, own in ((SEPARATES, rows[apart]), (MIXES, rows[~apart])):
        points(axes, own["share_between"], lines.at(own["key"]), look, low=own["ci_low"], high=own["ci_high"])
    axes.set(xlabel="share of the variance between variants (ICC)", xlim=(-1.05, 1.05))
    title(drawing, f"Variants of one SAE: {', '.join(dict.fromkeys(map(visible, rows['over'])))}")
    legend_below(drawing, [SEPARATES.handle("-"), MIXES.handle("-")])
    return drawing


def _primary_numbers(frame: pd.DataFrame, primary: Primary) -> pd.DataFrame:
    """Return the rows over all behaviors that are at the primary combination, of any adapter, named for readers."""
    kept = frame["behavior"].isna()
    for name, value in asdict(primary).items():
        if name != "adapter":
            kept &= frame[name].isna() | (frame[name] == value).fillna(False)
    rows = frame[kept.astype(bool)]
    return rows.assign(
        number=[_number(row) for row in rows.itertuples()], line=[_line(row) for row in rows.itertuples()]
    )


def _number(row: Any) -> str:
    """Return what a panel shows."""
    column = "" if row.column in ("estimate", "value", "mean") else f", {words(row.column)}"
    quantity = "" if undefined(row.quantity) else f", {words(row.quantity)}"
    return f"{visible(row.table)}.csv{column}{quantity}"


def _line(row: Any) -> str:
    """Return what a line is of."""
    of = [] if undefined(getattr(row, "of", None)) else [visible(row.of)]
    rest = ", ".join(words(part) for part in (row.adapter, row.detail) if not undefined(part))
    return ": ".join(filter(None, [*of, rest]))
