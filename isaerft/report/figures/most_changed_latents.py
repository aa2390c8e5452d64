"""The latents that each behavior changed most, with their explanations."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from isaerft.report.figures.canvas import (
    BLUE,
    GREY,
    ORANGE,
    Drawing,
    NoRowsError,
    beside,
    legend_below,
    new_drawing,
    primary_of,
    title,
)
from isaerft.report.selection import Tables, matching, real, table
from isaerft.report.text import distinct, number, shorten, undefined

TOP = 5
"""Latents shown of each behavior."""
MAX_PANELS = 24
MAX_EXPLANATION = 62
MAX_HEADING = 42
FIGURE_SPACE = "\N{FIGURE SPACE}"
_COLOURS = {"expected": BLUE, "unexpected": ORANGE, "not judged": GREY}


def draw_most_changed_latents(tables: Tables) -> Drawing:
    """Draw the most changed latents of each behavior at the primary combination, with their explanations."""
    primary = primary_of(tables)
    rows = matching(real(table(tables, "most_changed_latents")), primary)
    if rows.empty:
        raise NoRowsError("most_changed_latents.csv has none at the primary combination")
    groups = [(key, group.nsmallest(TOP, "rank")) for key, group in rows.groupby(["subject", "behavior"], sort=False)]
    shown = groups[:MAX_PANELS]
    n_bars = [len(group) + 1.3 for _, group in shown]
    drawing = new_drawing(8.6, 1.2 + 0.19 * sum(n_bars))
    panels = drawing.subplots(len(shown), 1, squeeze=False, height_ratios=n_bars)[:, 0]
    low = 1.05 * min(0.0, *(group["change"].min() / _reach(group) for _, group in shown))
    high = 1.05 * max(0.0, *(group["change"].max() / _reach(group) for _, group in shown))
    several = rows["subject"].nunique() > 1
    headings = distinct([f"{subject}: {name}" if several else name for (subject, name), _ in shown], MAX_HEADING)
    for axes, heading, (_, group) in zip(panels, headings, shown, strict=True):
        _panel(axes, group)
        axes.set_xlim(low * _reach(group), high * _reach(group))
        axes.set_title(heading, fontsize=9, pad=3)
    more = f" ({len(shown)} of {len(groups)} behaviors)" if len(groups) > len(shown) else ""
    title(drawing, f"Most changed latents: {primary}{more}")
    used = {kind for _, group in shown for kind in map(expectation, group["verdict"], group["expected_effect"])}
    handles = [
        Patch(color=colour, label=f"change {name}" if name != "not judged" else name)
        for name, colour in _COLOURS.items()
        if name in used
    ]
    if any((group["verdict"] == "unstable").fillna(False).any() for _, group in shown):
        handles.append(Patch(fc="white", ec=GREY, hatch="////", lw=0.8, label="not stable over seeds"))
    legend_below(drawing, handles, columns=4)
    return drawing


def expectation(verdict: object, expected_effect: object) -> str:
    """Return whether a change was expected: by its verdict, or else by the sign of the expected effect."""
    if not undefined(verdict) and verdict in ("expected", "unexpected"):
        return str(verdict)
    if undefined(expected_effect):
        return "not judged"
    return "expected" if float(expected_effect) > 0 else "unexpected"  # type: ignore[arg-type]


def _reach(group: pd.DataFrame) -> float:
    """Return the largest size of change in a group, which sets the scale of its bars."""
    return float(group["change"].abs().max()) or 1.0


def _panel(axes: Axes, group: pd.DataFrame) -> None:
    """Draw one behavior's bars on their own scale, the change written at the right end."""
    for place, row in enumerate(group.itertuples()):
        colour = _COLOURS[expectation(row.verdict, row.expected_effect)]
        if not undefined(row.verdict) and row.verdict == "unstable":
            axes.barh(place, row.change, height=0.72, fc="white", ec=colour, hatch="////", lw=0.8)
        else:
            axes.barh(place, row.change, height=0.72, color=colour, lw=0)
        beside(axes, place, 6, number(row.change, 2))
    axes.axvline(0, color=GREY, lw=0.8)
    digits = len(str(int(group["latent_index"].max())))
    labels = [
        f"{shorten(row.explanation, MAX_EXPLANATION) if not undefined(row.explanation) else 'no explanation'}"
        f"  {f'#{int(row.latent_index)}'.ljust(digits + 1, FIGURE_SPACE)}"
        for row in group.itertuples()
    ]
    axes.set_yticks(range(len(group)), labels)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(group) - 0.4, -0.6)
    axes.set_xticks([])
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
