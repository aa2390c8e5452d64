"""Which part of the fall in loss does the largest component of each learned map carry, and does it recur?"""

from __future__ import annotations

import pandas as pd

from isaerft.report.figures.canvas import (
    GREY,
    Drawing,
    NoRowsError,
    Style,
    legend_below,
    new_drawing,
    series_style,
    title,
)
from isaerft.report.figures.forest import dodge, frame, points, stack
from isaerft.report.selection import Tables, real, table
from isaerft.report.text import words

LIMITS = (-0.25, 1.25)
CHANCE = Style("random directions, matched alike", GREY, "|", size=6.6)


def draw_components(tables: Tables) -> Drawing:
    """Draw the component of each map whose removal costs most: its part in the fall in loss, and its recurrence."""
    rows = real(table(tables, "map_components"))
    rows = rows[(rows["component"] > 0) & rows["lost_without"].notna()]
    if rows.empty:
        raise NoRowsError("map_components.csv has no component of an adapter that lowered the loss")
    several = rows["subject"].nunique() > 1
    rows = rows.assign(line=rows["subject"] + ": " + rows["behavior"] if several else rows["behavior"])
    rows = rows.loc[rows.groupby(["line", "adapter", "seed"], sort=False)["lost_without"].idxmax()]
    adapters, lines = list(dict.fromkeys(rows["adapter"])), stack(rows["line"])
    drawing = new_drawing(9.4, 1.7 + (0.16 + 0.13 * len(adapters)) * (lines.end + 1))
    effect, reads, writes = drawing.subplots(1, 3, sharey=True, width_ratios=(4, 2, 2))
    frame(effect, lines, references=((0.0, True), (1.0, False)))
    for axes in (reads, writes):
        frame(axes, lines, references=((0.0, True), (1.0, False)))
        axes.set(xlim=(-0.03, 1.03), xlabel="absolute cosine")
    looks = [series_style(words(name), i) for i, name in enumerate(adapters)]
    for name, look, offset in zip(adapters, looks, dodge(len(adapters)), strict=True):
        own = _over_seeds(rows[rows["adapter"] == name])
        at = lines.at(own["line"], offset)
        points(effect, own["kept_alone"], at, Style("", look.colour, look.marker, filled=False), limits=LIMITS)
        ends = {"low": own["low"], "high": own["high"]}
        points(effect, own["lost_without"], at, look, limits=LIMITS, **ends)
        for axes, side in ((reads, "read"), (writes, "write")):
            points(axes, own[f"{side}_chance"], at, CHANCE)
            points(axes, own[f"{side}_recurrence"], at, look)
    effect.set(title="Part in the fall in loss", xlabel="share of the fall in held-out loss", xlim=LIMITS)
    reads.set_title("Reads the same")
    writes.set_title("Writes the same")
    title(drawing, "Learned maps: the component of each that matters most")
    handles = [
        Style("lost without the component (range over seeds)", GREY, "o").handle("-"),
        Style("kept by the component alone", GREY, "o", filled=False).handle(),
        CHANCE.handle(),
    ]
    legend_below(drawing, [*handles, *(look.handle() for look in looks)], columns=3)
    return drawing


def _over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Return means over seeds for each line, with the range of what is lost."""
    names = [
        "lost_without",
        "kept_alone",
        *(f"{side}_{of}" for side in ("read", "write") for of in ("recurrence", "chance")),
    ]
    groups = rows.groupby("line", sort=False)
    found = groups[names].mean()
    low, high = (groups["lost_without"].agg(how) for how in ("min", "max"))
    return found.assign(low=low, high=high).reset_index()
