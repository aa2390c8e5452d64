"""Three checks of training: did the loss fall, did the behavior move, and do the most changed latents carry it?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.lines import Line2D

from isaerft.report.figures.canvas import (
    GREY,
    INK,
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

MAX_PANELS = 3
REMAINS = (-1.0, 2.0)
"""Shares of a fall in loss that the causal check shows; values beyond them are shown by an arrow."""
BEFORE = Style("before training", INK, "|", size=6.6)
ON_TRAIN = Style("after, on training rows", GREY, "o", filled=False)
TARGET = Style("the data's own replies", INK, "D", size=4.4, filled=False)
UNITS = {
    "words": "share of the answer's words that are the behavior's",
    "phrases": "share of answers with one of the behavior's phrases",
    "length": "words in the answer",
    "classifier": "probability of the behavior's class",
}


def draw_training(tables: Tables) -> Drawing:
    """Draw held-out loss before and after, loss on training rows where known, and loss recovered, one dot per seed."""
    rows = _rows(tables, "training")
    adapters = list(dict.fromkeys(rows["adapter"]))
    lines = stack(rows["line"])
    drawing = new_drawing(8.6, 1.6 + (0.16 + 0.1 * len(adapters)) * (lines.end + 1))
    loss, recovered = drawing.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    frame(loss, lines)
    frame(recovered, lines, references=((0.0, True), (1.0, False)))
    looks = [series_style(f"after: {words(name)}", i) for i, name in enumerate(adapters)]
    for name, look, offset in zip(adapters, looks, dodge(len(adapters)), strict=True):
        own = rows[rows["adapter"] == name]
        own = own.assign(height=lines.at(own["line"], offset))
        medians = own.groupby("height")[["heldout_loss_base", "heldout_loss_adapted"]].median()
        ends = medians["heldout_loss_base"], medians["heldout_loss_adapted"]
        loss.hlines(medians.index, *ends, color=look.colour, lw=1, alpha=0.55, zorder=2)
        points(loss, own["heldout_loss_base"], own["height"], BEFORE)
        points(loss, own["train_loss_adapted"], own["height"], replace(look, filled=False))
        points(loss, own["heldout_loss_adapted"], own["height"], look)
        points(recovered, own["loss_recovered"], own["height"], look)
    loss.set(title="Held-out loss", xlabel="nats per token of the completion")
    reference = ", ".join(map(words, dict.fromkeys(rows["reference"].dropna()))) or "the reference"
    measured = rows["loss_recovered"].notna().any()
    recovered.set_title("Loss recovered")
    recovered.set_xlabel(f"share of {reference}'s fall in loss" if measured else "not measured: no reference adapter")
    title(drawing, "Training: held-out loss before and after, one mark per seed")
    seen = [ON_TRAIN.handle()] if rows["train_loss_adapted"].notna().any() else []
    legend_below(drawing, [BEFORE.handle(), *seen, *(look.handle() for look in looks)], columns=4)
    return drawing


def draw_behavior_check(tables: Tables) -> Drawing:
    """Draw each behavior's score before and after training, one panel for each metric."""
    rows = _rows(tables, "behavior_check")
    adapters, scores = list(dict.fromkeys(rows["adapter"])), list(dict.fromkeys(rows["score"]))
    stacks = [stack(rows.loc[rows["score"] == score, "line"]) for score in scores]
    n_lines = [len(lines.heights) for lines in stacks]
    drawing = new_drawing(8.2, 1.4 + (0.16 + 0.11 * len(adapters)) * sum(n_lines) + 0.75 * len(scores))
    panels = drawing.subplots(len(scores), 1, squeeze=False, height_ratios=[n + 1.6 for n in n_lines])[:, 0]
    looks = [series_style(f"after: {words(name)}", i) for i, name in enumerate(adapters)]
    for axes, score, lines in zip(panels, scores, stacks, strict=True):
        frame(axes, lines)
        axes.set_xlabel(UNITS.get(score, words(score)))
        for name, look, offset in zip(adapters, looks, dodge(len(adapters)), strict=True):
            own = rows[(rows["score"] == score) & (rows["adapter"] == name)]
            at = lines.at(own["line"], offset)
            axes.hlines(at, own["before"], own["after"], color=look.colour, lw=0.8, alpha=0.5, zorder=2)
            points(axes, own["before"], at, BEFORE)
            points(axes, own["target"], at, TARGET)
            ends = {"low": own["before"] + own["ci_low"], "high": own["before"] + own["ci_high"]}
            points(axes, own["after"], at, look, **ends)
    title(drawing, "Behavior check: answers to held-out prompts before and after training")
    handles = [BEFORE.handle(), TARGET.handle(), *(look.handle("-") for look in looks)]
    legend_below(drawing, handles, columns=4)
    return drawing


def draw_causal_check(tables: Tables) -> Drawing:
    """Draw what remains of the fall in loss without the most changed latents, and without matched ones, for each k."""
    rows = _rows(tables, "causal_check")
    adapters, ks = list(dict.fromkeys(rows["adapter"])), sorted(set(rows["k"]))[:MAX_PANELS]
    lines = stack(rows["line"])
    drawing = new_drawing(3.2 + 2.9 * len(ks), 1.7 + (0.16 + 0.13 * len(adapters)) * (lines.end + 1))
    panels = drawing.subplots(1, len(ks), squeeze=False, sharex=True, sharey=True)[0]
    looks = [series_style(words(name), i) for i, name in enumerate(adapters)]
    for axes, k in zip(panels, ks, strict=True):
        frame(axes, lines, references=((0.0, True), (1.0, False)))
        axes.set(title=f"{k} latents set back", xlabel="share of the fall in loss that remains")
        for name, look, offset in zip(adapters, looks, dodge(len(adapters)), strict=True):
            for latents, width in (("matched_random", 0.8), ("most_changed", 1.6)):
                own = rows[(rows["adapter"] == name) & (rows["k"] == k) & (rows["latents"] == latents)]
                kind = Style("", look.colour, look.marker, width=width, filled=latents == "most_changed")
                ends = {"low": own["ci_low"], "high": own["ci_high"]}
                points(axes, own["loss_recovered"], lines.at(own["line"], offset), kind, limits=REMAINS, **ends)
    values = rows[["loss_recovered", "ci_low", "ci_high"]].to_numpy(float)
    shown = np.append(values[np.isfinite(values)], [0.0, 1.0]).clip(*REMAINS)
    panels[0].set_xlim(shown.min() - 0.06, shown.max() + 0.06)
    title(drawing, "Causal check: most changed latents against matched random ones")
    handles: list[Artist] = [
        Style("without the most changed latents", GREY, "o").handle(),
        Style("without matched random latents", GREY, "o", filled=False).handle(),
    ]
    if (np.abs(values - np.mean(REMAINS)) > np.ptp(REMAINS) / 2).any():
        handles.append(Line2D([], [], color=GREY, marker=">", ls="", ms=4.6, label="outside the axis"))
    legend_below(drawing, [*handles, *(look.handle() for look in looks)], columns=4)
    return drawing


def _rows(tables: Tables, name: str) -> pd.DataFrame:
    """Return a table's rows of real subjects, with a column `line`: the behavior, and its subject if several."""
    rows = real(table(tables, name))
    if rows.empty:
        raise NoRowsError(f"{name}.csv is empty")
    several = rows["subject"].nunique() > 1
    return rows.assign(line=rows["subject"] + ": " + rows["behavior"] if several else rows["behavior"])
