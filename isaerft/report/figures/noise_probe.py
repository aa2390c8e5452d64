"""How do the answers of each model respond to noise? Scores over the level of the noise."""

from __future__ import annotations

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
from isaerft.report.selection import Tables, real, table
from isaerft.report.text import words

COLUMNS, MAX_PANELS = 4, 16
BASE = Style("unchanged model", GREY, "s", filled=False)
PLACES = {"residual": "noise in residual stream", "weights": "noise in weights"}


def draw_noise_probe(tables: Tables) -> Drawing:
    """Draw a panel for each behavior and place of the noise, and in it a line for each model."""
    rows = real(table(tables, "noise_probe"))
    if rows.empty:
        raise NoRowsError("noise_probe.csv has no rows")
    several = rows["subject"].nunique() > 1
    looks = {name: series_style(words(name), n) for n, name in enumerate(rows["adapter"].dropna().unique())}
    panels = list(rows.groupby(["subject", "behavior", "place"], sort=False))[:MAX_PANELS]
    n_columns = min(COLUMNS, len(panels))
    n_rows = -(-len(panels) // n_columns)
    drawing = new_drawing(1.2 + 2.3 * n_columns, 1.6 + 2.0 * n_rows)
    grid = drawing.subplots(n_rows, n_columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, ((subject, behavior, place), own) in zip(grid.flat, panels, strict=False):
        for name, line in own.groupby("adapter", sort=False, dropna=False):
            look = looks.get(name, BASE)
            at, score = line["level"].to_numpy(float), line["score"].to_numpy(float)
            face = look.colour if look.filled else "white"
            axes.plot(at, score, color=look.colour, marker=look.marker, ms=look.size, mfc=face, lw=1.2)
            low, high = (line[f"score_ci_{end}"].fillna(line["score"]).to_numpy(float) for end in ("low", "high"))
            axes.fill_between(at, low, high, color=look.colour, alpha=0.15, lw=0)
        axes.set(title=f"{subject}: {behavior}" if several else behavior, xlabel=PLACES[place])
        axes.set_ylabel(f"score ({own['metric'].iloc[0]})")
    title(drawing, "Answers under noise")
    legend_below(drawing, [look.handle("-") for look in (BASE, *looks.values())])
    return drawing
