"""The forest plot: labeled lines from top to bottom, each with points and intervals of one or more series."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from isaerft.report.figures.canvas import DASHED, INK, PALE, SHADE, Style
from isaerft.report.text import distinct

Key = TypeVar("Key", bound=Hashable)
SPREAD = 0.32
"""Series of one line lie within this distance of its height."""
GAP = 0.4
"""Space above a heading, in lines."""


@dataclass
class Lines(Generic[Key]):
    """Heights of the lines of a forest plot, downwards from 0.

    Attributes
    ----------
    heights : dict of key to float
    headings : dict of float to str
        Height of each bold label -> its text.
    bands : list of (float, float)
        Shaded ranges: every other line, or each group below a heading.
    """

    heights: dict[Key, float] = field(default_factory=dict)
    headings: dict[float, str] = field(default_factory=dict)
    bands: list[tuple[float, float]] = field(default_factory=list)

    @property
    def end(self) -> float:
        """Height of the lowest line or heading."""
        return max([0.0, *self.heights.values(), *self.headings])

    def footer(self, text: str) -> float:
        """Add a bold line below all others; return its height."""
        height = self.end + 1 + GAP
        self.headings[height] = text
        return height

    def at(self, keys: Iterable[Key], offset: float = 0.0) -> NDArray[np.float64]:
        """Return the heights of keys, shifted by `offset`; (n,) float, NaN for a key without a line."""
        return np.array([self.heights.get(key, np.nan) for key in keys], dtype=float) + offset


def stack(keys: Iterable[Key], heading: Callable[[Key], str] | None = None) -> Lines[Key]:
    """Return the lines of distinct keys in order; `heading` gives the bold line above each group of keys."""
    lines: Lines[Key] = Lines()
    last, height = None, -1.0
    for position, key in enumerate(dict.fromkeys(keys)):
        top = heading(key) if heading else None
        if heading is None:
            lines.bands += [] if position % 2 else [(position - 0.5, position + 0.5)]
        elif top != last:
            height += 1 + (GAP if last is not None else 0.0)
            lines.headings[height], last = str(top), top
            lines.bands.append((height + 0.5, height + 0.5))
        height += 1
        lines.heights[key] = height
        if heading is not None:
            lines.bands[-1] = (lines.bands[-1][0], height + 0.5)
    return lines


def frame(
    axes: Axes,
    lines: Lines[Key],
    *,
    labels: Mapping[Key, str] | None = None,
    width: int = 36,
    references: Iterable[tuple[float, bool]] = (),
    rules: bool = False,
) -> None:
    """Draw bands or rules, labels and reference lines.

    Parameters
    ----------
    axes : Axes
    lines : Lines
    labels : mapping of key to str, optional
        The keys themselves if not given.
    width : int
        Columns of the longest label.
    references : iterable of (float, bool)
        Values marked by a vertical line, and whether it is solid.
    rules : bool
        Whether each line has a thin rule, in place of bands.
    """
    for height in lines.heights.values() if rules else ():
        axes.axhline(height, color=PALE, lw=0.4, zorder=0)
    for top, bottom in () if rules else lines.bands:
        axes.axhspan(top, bottom, color=SHADE, lw=0, zorder=0)
    for value, solid in references:
        axes.axvline(value, color=INK, lw=0.8, ls="-" if solid else DASHED, zorder=1)
    plain = distinct([(labels or {}).get(key, key) for key in lines.heights], width)
    bold = distinct(lines.headings.values(), width)
    axes.set_yticks([*lines.heights.values(), *lines.headings], [*plain, *bold])
    for label in axes.get_yticklabels()[len(plain) :]:
        label.set_fontweight("bold")
    axes.set_ylim(lines.end + 0.6, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def dodge(n: int) -> list[float]:
    """Return the offsets of `n` series around the height of their line."""
    return [float(offset) for offset in np.linspace(-SPREAD, SPREAD, n)] if n > 1 else [0.0]


def points(
    axes: Axes,
    values: ArrayLike,
    heights: ArrayLike,
    look: Style,
    *,
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
    hollow: ArrayLike | None = None,
    limits: tuple[float, float] = (-np.inf, np.inf),
) -> None:
    """Draw one series: a marker at each value, and a line from `low` to `high` where both are defined.

    Parameters
    ----------
    axes : Axes
    values, heights : (n,) array_like of float
        Undefined values (NaN) have no marker.
    look : Style
    low, high : (n,) array_like of float, optional
    hollow : (n,) array_like of bool, optional
        Markers that are not filled; by default what `look` says.
    limits : (float, float)
        Values outside get an arrow at the edge instead.
    """
    x, y = np.asarray(values, dtype=float), np.asarray(heights, dtype=float)
    if low is not None and high is not None:
        ends = np.column_stack([np.asarray(low, dtype=float), np.asarray(high, dtype=float)])
        known = np.isfinite(ends).all(axis=1)
        axes.hlines(
            y[known], ends[known, 0], ends[known, 1], color=look.colour, lw=look.width, alpha=look.alpha, zorder=3
        )
    hollows = np.full(len(x), not look.filled) if hollow is None else np.asarray(hollow, dtype=bool)
    for marker, at, inside in (
        (look.marker, x, (x >= limits[0]) & (x <= limits[1])),
        ("<", np.full(len(x), limits[0]), x < limits[0]),
        (">", np.full(len(x), limits[1]), x > limits[1]),
    ):
        for is_hollow, face in ((False, look.colour), (True, "white")):
            shown = inside & (hollows == is_hollow)
            if shown.any():
                # A white edge tells filled markers apart where they overlap.
                edged = is_hollow or look.marker == "|"
                edge = {"mec": look.colour, "mew": 1.1} if edged else {"mec": "white", "mew": 0.4}
                marks: dict[str, Any] = {"ms": look.size + (not edged) * 0.8, "color": look.colour, "mfc": face, **edge}
                axes.plot(at[shown], y[shown], ls="", marker=marker, zorder=4, clip_on=marker == look.marker, **marks)
