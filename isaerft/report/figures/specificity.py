"""Do a behavior's changes fit its own explanations better than other behaviors' explanations?"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import TwoSlopeNorm
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from isaerft.report.figures.canvas import INK, PALE, Drawing, NoRowsError, new_drawing, primary_of, title
from isaerft.report.selection import Tables, own_largest, specificity_matrices
from isaerft.report.text import distinct, fixed, shorten

MAX_BEHAVIORS = 60
MAX_WRITTEN = 24
MAX_LABEL = 26


def draw_specificity(tables: Tables) -> Drawing:
    """Draw a heat map of behavior x behavior for each subject."""
    primary = primary_of(tables)
    matrices = specificity_matrices(tables, primary)
    if not matrices:
        raise NoRowsError("specificity.csv has none at the primary combination")
    largest = min(max(max(matrix.shape) for matrix in matrices.values()), MAX_BEHAVIORS)
    side = max(2.6, (0.44 if largest <= MAX_WRITTEN else 0.24) * largest)
    drawing = new_drawing((side + 2.9) * len(matrices), side + 2.0)
    panels = drawing.subplots(1, len(matrices), squeeze=False)[0]
    chance = primary.facts.chance
    norm = _norm(np.concatenate([matrix.to_numpy(float).ravel() for matrix in matrices.values()]), chance)
    for axes, (subject, matrix) in zip(panels, matrices.items(), strict=True):
        k, n = own_largest(matrix)
        mesh = _heat_map(axes, matrix.iloc[:MAX_BEHAVIORS, :MAX_BEHAVIORS], norm)
        size = max(matrix.shape)
        text = f"Own column is largest in {k} of {n}"
        text += f" ({MAX_BEHAVIORS} of {size} shown)" if size > MAX_BEHAVIORS else ""
        axes.set_title(text if len(matrices) == 1 else f"{shorten(subject, 24)}: {text.lower()}", loc="center")
    title(drawing, f"Specificity: {primary}")
    bar = drawing.colorbar(mesh, ax=list(panels), shrink=0.7, pad=0.02, aspect=25)
    bar.set_label(primary.title if chance is None else f"{primary.title} (white: chance)")
    bar.outline.set_visible(False)
    if bar.solids is not None:
        bar.solids.set(rasterized=False, edgecolor="face")  # without an edge, viewers show seams
    return drawing


def _norm(values: NDArray[np.float64], chance: float | None) -> TwoSlopeNorm:
    """Return a color scale that is white at chance and as wide on both sides."""
    finite = values[np.isfinite(values)]
    centre = chance if chance is not None else (float(np.median(finite)) if finite.size else 0.0)
    reach = max(float(np.abs(finite - centre).max()) if finite.size else 0.0, 0.05)
    return TwoSlopeNorm(centre, centre - reach, centre + reach)


def _heat_map(axes: Axes, matrix: pd.DataFrame, norm: TwoSlopeNorm) -> QuadMesh:
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
