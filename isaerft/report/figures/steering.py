"""Does steering each latent do what its explanation claims, and do verdicts tell for which latents it does?"""

from __future__ import annotations

import pandas as pd

from isaerft.report.figures.canvas import (
    BLUE,
    GREY,
    ORANGE,
    Drawing,
    NoRowsError,
    Style,
    chance_handles,
    chance_line,
    legend_below,
    new_drawing,
    title,
)
from isaerft.report.figures.forest import frame, points, stack
from isaerft.report.selection import Tables, real, table

GROUPS = {
    "supported": Style("explanation supported", BLUE, "o"),
    "contradicted": Style("explanation contradicted", ORANGE, "s"),
    "untested": Style("no verdict (matched control)", GREY, "D"),
}
LATENTS_SHOWN = 24
"""Latents of each group in the figure, those with the largest effects; the table has all."""
PREDICTOR = Style("", BLUE, "o", size=5.4)


def draw_steering(tables: Tables) -> Drawing:
    """Draw the claimed effect of every latent, and the AUROC of verdict and scores."""
    latents, summary = real(table(tables, "steering_latents")), real(table(tables, "steering_summary"))
    if latents.empty:
        raise NoRowsError("steering_latents.csv is empty")
    several = latents["subject"].nunique() > 1
    latents = _largest(latents).assign(line=lambda rows: list(zip(rows["subject"], rows["latent_index"], strict=True)))
    lines = stack(latents["line"], heading=dict(zip(latents["line"], latents["group"], strict=True)).__getitem__)
    aurocs = summary[summary["quantity"] == "auroc"]
    aurocs = aurocs.assign(line=list(zip(aurocs["subject"], aurocs["of"], strict=True)))
    told = stack(aurocs["line"])
    heights = told.end + 1.6, lines.end + 1.6
    drawing = new_drawing(8.4, 2.2 + 0.2 * sum(heights))
    areas, effects = drawing.subplots(2, 1, height_ratios=heights)
    said = zip(latents["line"], latents["latent_index"], latents["explanation"], strict=True)
    labels = {line: f"{latent}: {text}" for line, latent, text in said}
    frame(effects, lines, labels=labels, width=48, references=((0.0, True),))
    for group, look in GROUPS.items():
        own = latents[latents["group"] == group]
        ends = {"low": own["ci_low"], "high": own["ci_high"]}
        points(effects, own["effect"], lines.at(own["line"]), look, hollow=~own["confirmed"].astype(bool), **ends)
    effects.set(
        title="Does each latent do what is claimed?",
        xlabel="effect in the claimed direction, in standard deviations of the scores",
    )
    frame(areas, told, labels={key: f"{key[0]}: {key[1]}" if several else key[1] for key in told.heights}, width=48)
    chance_line(areas, 0.5)
    ends = {"low": aurocs["ci_low"], "high": aurocs["ci_high"]}
    points(areas, aurocs["estimate"], told.at(aurocs["line"]), PREDICTOR, **ends)
    areas.set(xlim=(-0.02, 1.02), title="What tells for which latents?", xlabel="AUROC")
    title(drawing, "Steering check: latents amplified and suppressed while the model answers")
    hollow = Style("the interval reaches 0: not confirmed", GREY, "o", filled=False).handle()
    legend_below(drawing, [*(look.handle("-") for look in GROUPS.values()), hollow, *chance_handles(0.5)], columns=3)
    return drawing


def _largest(latents: pd.DataFrame) -> pd.DataFrame:
    """Return the latents of each subject and group with the largest effects, largest first, groups in order."""
    order = latents["group"].map({group: place for place, group in enumerate(GROUPS)})
    ranked = latents.assign(place=order).sort_values(["place", "subject", "effect"], ascending=[True, True, False])
    return ranked.groupby(["place", "subject"], sort=False).head(LATENTS_SHOWN)
