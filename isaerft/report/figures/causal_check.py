"""Do the most changed latents carry what training reached? What remains without them, beside matched random latents."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from isaerft.report.figures.canvas import GREY, INK, SHADE, headline, legend_below, new_figure, no_rows, series, styled
from isaerft.report.selection import Tables, real, table
from isaerft.report.text import distinct, words

SPREAD = 0.32
MAX_PANELS = 3
LOWEST, HIGHEST = -1.0, 2.0


@styled
def causal_check(tables: Tables) -> Figure:
    """Draw `loss_recovered` without the most changed latents and without matched ones; one panel for each k.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        Needs `causal_check`.
    """
    rows = real(table(tables, "causal_check"))
    if rows.empty:
        return no_rows("causal_check.csv is empty")
    several = rows["subject"].nunique() > 1
    rows = rows.assign(line=rows["subject"] + ": " + rows["behavior"] if several else rows["behavior"])
    lines, adapters = list(dict.fromkeys(rows["line"])), list(dict.fromkeys(rows["adapter"]))
    ks = sorted(set(rows["k"]))[:MAX_PANELS]
    places = {name: float(place) for place, name in enumerate(lines)}
    steps = np.linspace(-SPREAD, SPREAD, len(adapters)) if len(adapters) > 1 else np.zeros(1)
    figure = new_figure(3.2 + 2.9 * len(ks), 1.7 + (0.16 + 0.13 * len(adapters)) * len(lines))
    panels = figure.subplots(1, len(ks), squeeze=False, sharex=True, sharey=True)[0]
    for axes, k in zip(panels, ks, strict=True):
        _frame(axes, places)
        for position, (adapter, step) in enumerate(zip(adapters, steps, strict=True)):
            own = rows[(rows["adapter"] == adapter).astype(bool) & (rows["k"] == k).astype(bool)]
            _adapter(axes, own.assign(height=own["line"].map(places).astype(float) + step), position)
        axes.set_title(f"{k} latents set back")
        axes.set_xlabel("share of the fall in loss that remains")
    panels[0].set_yticks(list(places.values()), distinct(lines, 36))
    panels[0].set_ylim(len(lines) - 0.4, -0.6)
    panels[0].set_xlim(*_limits(rows))
    headline(figure, "Causal check: most changed latents against matched random ones")
    legend_below(figure, _legend(adapters), columns=4)
    return figure


def _frame(axes: Axes, places: dict[str, float]) -> None:
    """Shade every other line and mark 0 (back to the model itself) and 1 (untouched)."""
    for place in list(places.values())[::2]:
        axes.axhspan(place - 0.5, place + 0.5, color=SHADE, lw=0, zorder=0)
    axes.axvline(0, color=INK, lw=0.8, zorder=1)
    axes.axvline(1, color=INK, lw=0.8, ls=(0, (4, 3)), zorder=1)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _adapter(axes: Axes, rows: pd.DataFrame, position: int) -> None:
    """Draw an adapter's shares: open for matched random latents, filled for the most changed."""
    colour, marker = series(position)
    for latents, face, width in (("matched_random", "white", 0.8), ("most_changed", colour, 1.6)):
        kept = rows[(rows["latents"] == latents).astype(bool) & rows["loss_recovered"].notna()]
        known = kept[kept["ci_low"].notna() & kept["ci_high"].notna()]
        axes.hlines(known["height"], known["ci_low"], known["ci_high"], color=colour, lw=width, alpha=0.7, zorder=2)
        axes.plot(
            kept["loss_recovered"],
            kept["height"],
            ls="",
            marker=marker,
            ms=4.6,
            color=colour,
            mfc=face,
            mew=1,
            zorder=4,
        )


def _limits(rows: pd.DataFrame) -> tuple[float, float]:
    """Return limits that hold 0, 1 and all values, but no more than a share far outside can mean."""
    values = rows[["loss_recovered", "ci_low", "ci_high"]].to_numpy(float)
    values = np.append(values[np.isfinite(values)], [0.0, 1.0]).clip(LOWEST, HIGHEST)
    return values.min() - 0.06, values.max() + 0.06


def _legend(adapters: list[str]) -> list[Line2D]:
    """Return legend entries: what filled and open mean, and each adapter."""
    handles = [
        Line2D([], [], color=GREY, marker="o", ls="", ms=4.6, label="without the most changed latents"),
        Line2D([], [], color=GREY, marker="o", ls="", ms=4.6, mfc="white", label="without matched random latents"),
    ]
    for position, name in enumerate(adapters):
        colour, marker = series(position)
        handles.append(Line2D([], [], color=colour, marker=marker, ls="", ms=5, label=words(name)))
    return handles
