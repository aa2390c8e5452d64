"""Do a behavior's changes fit its own explanations better than other behaviors' explanations?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from isaerft.report.figures.canvas import INK, PALE, headline, new_figure, no_rows, styled
from isaerft.report.selection import CHANCE, Primary, Tables, find_primary, matching, real, subjects_of, table
from isaerft.report.text import distinct, fixed, shorten

MAX_BEHAVIORS = 60
MAX_WRITTEN = 24
MAX_LABEL = 26


class OwnLargest(NamedTuple):
    """In how many rows the own column is larger than every other, of the rows where that can be said."""

    k: int
    n: int


def square(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one subject's rows as trained_on x judged_for, columns in the order of the rows, own behaviors first."""
    wide = rows.pivot_table(index="trained_on", columns="judged_for", values="estimate", sort=False, dropna=False)
    trained = list(dict.fromkeys(rows["trained_on"]))
    judged = list(dict.fromkeys(rows["judged_for"]))
    return wide.reindex(
        index=trained, columns=[*(n for n in trained if n in judged), *(n for n in judged if n not in trained)]
    )


def own_largest(matrix: pd.DataFrame) -> OwnLargest:
    """Count the rows whose own column is larger than all others; rows without own value or rival are not counted."""
    k = n = 0
    for name, row in matrix.iterrows():
        if name not in matrix.columns or np.isnan(row[name]):
            continue
        rivals = row.drop(name).dropna()
        if len(rivals):
            n += 1
            k += bool(row[name] > rivals.max())
    return OwnLargest(k, n)


def primary_specificity(tables: Tables) -> tuple[Primary | None, dict[str, pd.DataFrame]]:
    """Return the primary combination and, for each real subject, its behavior x behavior matrix there."""
    primary = find_primary(table(tables, "agreement"))
    if primary is None:
        return None, {}
    rows = matching(real(table(tables, "specificity")), primary)
    return primary, {name: square(rows[(rows["subject"] == name).astype(bool)]) for name in subjects_of(rows)}


@styled
def specificity(tables: Tables) -> Figure:
    """Draw the behavior x behavior heat map of each subject, own column outlined and row maximum dotted.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        Needs `specificity`, and `agreement` for the primary combination.
    """
    primary, matrices = primary_specificity(tables)
    if primary is None:
        return no_rows("agreement.csv marks no primary result")
    if not matrices:
        return no_rows("specificity.csv has none at the primary combination")
    largest = min(max(max(matrix.shape) for matrix in matrices.values()), MAX_BEHAVIORS)
    side = max(2.6, (0.44 if largest <= MAX_WRITTEN else 0.24) * largest)
    figure = new_figure((side + 2.9) * len(matrices), side + 2.0)
    panels = figure.subplots(1, len(matrices), squeeze=False)[0]
    values = np.concatenate([matrix.to_numpy(float).ravel() for matrix in matrices.values()])
    norm = _norm(values, CHANCE.get(primary.statistic))
    for axes, (subject, matrix) in zip(panels, matrices.items(), strict=True):
        k, n = own_largest(matrix)
        mesh = _heat_map(axes, matrix.iloc[:MAX_BEHAVIORS, :MAX_BEHAVIORS], norm)
        title = f"Own column is largest in {k} of {n}" + (
            "" if max(matrix.shape) <= MAX_BEHAVIORS else f" ({MAX_BEHAVIORS} of {max(matrix.shape)} shown)"
        )
        axes.set_title(title if len(matrices) == 1 else f"{shorten(subject, 24)}: {title.lower()}", loc="center")
    headline(figure, f"Specificity: {primary}")
    bar = figure.colorbar(mesh, ax=list(panels), shrink=0.7, pad=0.02, aspect=25)
    bar.set_label(
        f"{primary.statistic_name} (white: chance)" if primary.statistic in CHANCE else primary.statistic_name
    )
    bar.outline.set_visible(False)
    bar.solids.set(rasterized=False, edgecolor="face")  # without an edge, viewers show seams between the steps
    return figure


def _norm(values: np.ndarray, chance: float | None) -> TwoSlopeNorm:
    """Return a colour scale that is white at chance and as wide on both sides."""
    finite = values[np.isfinite(values)]
    centre = chance if chance is not None else (float(np.median(finite)) if finite.size else 0.0)
    reach = max(float(np.abs(finite - centre).max()) if finite.size else 0.0, 0.05)
    return TwoSlopeNorm(centre, centre - reach, centre + reach)


def _heat_map(axes: Axes, matrix: pd.DataFrame, norm: TwoSlopeNorm) -> object:
    """Draw cells, values, the outline of each own column and the dot at each row's maximum."""
    values = matrix.to_numpy(float)
    colours = colormaps["PuOr_r"].with_extremes(bad="#DDDDDD")
    mesh = axes.pcolormesh(np.ma.masked_invalid(values), cmap=colours, norm=norm, edgecolors="white", linewidth=0.6)
    written = max(matrix.shape) <= MAX_WRITTEN
    for i, name in enumerate(matrix.index):
        if name in matrix.columns:
            j = matrix.columns.get_loc(name)
            axes.add_patch(Rectangle((j + 0.03, i + 0.03), 0.94, 0.94, fill=False, ec=INK, lw=1.8, zorder=3))
        row = values[i]
        for j in np.flatnonzero(row == np.nanmax(row)) if np.isfinite(row).any() else ():
            dark = abs(norm(row[j]) - 0.5) > 0.32
            axes.plot(j + 0.5, i + 0.78, "o", ms=4, mfc="white" if dark else INK, mec="none", zorder=4)
        for j in range(len(row)) if written else ():
            dark = np.isfinite(row[j]) and abs(norm(row[j]) - 0.5) > 0.32
            text = fixed(row[j]).replace("0.", ".", 1) if abs(row[j]) < 1 else fixed(row[j])
            axes.text(j + 0.5, i + 0.45, text, ha="center", va="center", fontsize=8, color="white" if dark else INK)
    axes.set_xticks(np.arange(matrix.shape[1]) + 0.5, distinct(matrix.columns, MAX_LABEL))
    axes.tick_params(axis="x", labelrotation=45, length=0)
    for label in axes.get_xticklabels():
        label.set(ha="right", rotation_mode="anchor")
    axes.set_yticks(np.arange(matrix.shape[0]) + 0.5, distinct(matrix.index, MAX_LABEL))
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="explanations judged for", ylabel="changes from training on", aspect="equal")
    axes.invert_yaxis()
    for spine in axes.spines.values():
        spine.set(visible=True, color=PALE)
    return mesh
