"""When do the expected latents change? Shares of the final change, and agreement, over the steps of training."""

from __future__ import annotations

from isaerft.report.figures.canvas import (
    BLUE,
    GREY,
    ORANGE,
    Drawing,
    NoRowsError,
    Style,
    chance_line,
    legend_below,
    new_drawing,
    title,
)
from isaerft.report.selection import Tables, find_primary, real, table
from isaerft.report.text import words

COLUMNS, MAX_PANELS = 4, 12
EXPECTED = Style("share of final change, expected latents", BLUE, "o")
OTHERS = Style("share of final change, all others", GREY, "s", filled=False)
AGREEMENT = Style("agreement, with its interval over seeds", ORANGE, "D", size=3.6)


def draw_changes_over_time(tables: Tables) -> Drawing:
    """Draw one panel for each behavior, of the primary adapter where it was followed, else of the first one."""
    rows = real(table(tables, "changes_over_time"))
    rows = rows[rows["step"].notna()]
    if rows.empty:
        raise NoRowsError("changes_over_time.csv has no checkpoint")
    primary, followed = find_primary(table(tables, "agreement")), list(dict.fromkeys(rows["adapter"]))
    adapter = primary.adapter if primary is not None and primary.adapter in followed else followed[0]
    rows = rows[rows["adapter"] == adapter]
    chance = primary.facts.chance if primary is not None else None
    several = rows["subject"].nunique() > 1
    panels = list(rows.groupby(["subject", "behavior"], sort=False))[:MAX_PANELS]
    n_columns = min(COLUMNS, len(panels))
    n_rows = -(-len(panels) // n_columns)
    drawing = new_drawing(1.2 + 2.3 * n_columns, 1.5 + 1.9 * n_rows)
    grid = drawing.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, ((subject, behavior), own) in zip(grid.flat, panels, strict=False):
        steps = own["step"].to_numpy(float)
        for look, column in ((EXPECTED, "share_expected"), (OTHERS, "share_others"), (AGREEMENT, "estimate")):
            face = look.colour if look.filled else "white"
            axes.plot(steps, own[column], color=look.colour, marker=look.marker, ms=look.size, mfc=face, lw=1.2)
        low, high = own["ci_low"].to_numpy(float), own["ci_high"].to_numpy(float)
        axes.fill_between(steps, low, high, color=AGREEMENT.colour, alpha=0.18, lw=0)
        chance_line(axes, chance, horizontal=True)
        axes.set_xscale("log")
        axes.set_title(f"{subject}: {behavior}" if several else behavior)
    for axes in grid[-1]:
        axes.set_xlabel("training step")
    title(drawing, f"Changes over time: {words(adapter)}")
    legend_below(drawing, [look.handle("-") for look in (EXPECTED, OTHERS, AGREEMENT)])
    return drawing
