"""How few directions does a trained map need, and whose? Shares of the full map's fall in loss against both counts."""

from __future__ import annotations

from dataclasses import replace

from isaerft.report.figures.canvas import (
    GREY,
    Drawing,
    NoRowsError,
    legend_below,
    new_drawing,
    series_style,
    title,
)
from isaerft.report.selection import Tables, real, table
from isaerft.report.text import words

FREE = ("rank_latents", "rank_residual")
LOWEST, HIGHEST = -0.1, 1.15
MAX_SUBJECTS = 6


def draw_loss_curves(tables: Tables) -> Drawing:
    """Draw a row of two panels for each subject: means over behaviors, or of the only behavior."""
    rows = real(table(tables, "loss_curves"))
    rows = rows[rows["recovered"].notna()]
    if rows.empty:
        raise NoRowsError("loss_curves.csv has no behavior whose loss the full map lowers")
    subjects = list(dict.fromkeys(rows["subject"]))[:MAX_SUBJECTS]
    families = list(dict.fromkeys(rows["family"]))
    looks = [replace(series_style(words(name), i), filled=name not in FREE) for i, name in enumerate(families)]
    drawing = new_drawing(8.6, 1.4 + 2.7 * len(subjects))
    panels = drawing.subplots(len(subjects), 2, squeeze=False, sharex="col", sharey=True)
    for (left, right), subject in zip(panels, subjects, strict=True):
        own = rows[rows["subject"] == subject]
        means = own[own["behavior"].fillna("") == ""]
        shown = own if means.empty else means
        for name, look in zip(families, looks, strict=True):
            curve = shown[shown["family"] == name].sort_values("k")
            face = look.colour if look.filled else "white"
            for axes, counts in ((left, curve["k"]), (right, curve["n_parameters"])):
                axes.plot(counts, curve["recovered"], color=look.colour, marker=look.marker, ms=4, mfc=face, lw=1.2)
            low, high = (curve[end].to_numpy(float) for end in ("ci_low", "ci_high"))
            left.fill_between(curve["k"].to_numpy(float), low, high, color=look.colour, alpha=0.12, lw=0)
        for axes in (left, right):
            axes.set_xscale("log", base=2)
            axes.axhline(1, color=GREY, lw=0.8, zorder=1)
        left.set(ylim=(LOWEST, max(HIGHEST, rows["recovered"].max())), ylabel="share of the full map's fall in loss")
        left.set_title(f"{subject}: equal numbers of directions")
        right.set_title(f"{subject}: equal numbers trained")
    panels[-1][0].set_xlabel("directions read, and written")
    panels[-1][1].set_xlabel("numbers that are trained")
    title(drawing, "Linear maps with few directions")
    legend_below(drawing, [look.handle("-") for look in looks])
    return drawing
