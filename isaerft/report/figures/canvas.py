"""What every figure shares: its look, and how it is made and saved."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.figure
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.lines import Line2D
from matplotlib.text import Text

from isaerft.io import replacing
from isaerft.report.selection import Primary, Tables, find_primary, table
from isaerft.report.text import visible, words

Drawing = matplotlib.figure.Figure

# Okabe and Ito's palette (https://jfly.uni-koeln.de/color/): told apart under every common color blindness.
BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER = "#0072B2", "#D55E00", "#00856A", "#A8478A", "#56B4E9", "#B8860B"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, AMBER, SKY)
# One more than colors, so that 42 series differ.
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
INK, GREY, PALE, SHADE = "#222222", "#767676", "#C8C8C8", "#F4F4F4"
DASHED, DOTTED = (0, (4, 3)), (0, (1, 1.5))
CONTROL_LOOKS = {
    "shuffled_explanations": (GREY, "s"),
    "mismatched_behavior": (ORANGE, "D"),
    "firing_rate_only": (GREEN, "^"),
    "decoder_norm_only": (AMBER, "<"),
    "explanation_length": (SKY, "P"),
    "genericity": (INK, "X"),
    "random_dictionary": (PURPLE, "v"),
    "shuffled_completions": (SKY, ">"),
    "erased_mean": (GREEN, "s"),
    "erased_leace": (GREEN, "D"),
    "erased_iterative": (GREEN, "v"),
    "erased_random": (GREEN, "X"),
    "among_expected": (BLUE, "*"),
    "frozen_decoder": (PURPLE, "^"),
    "frozen_encoder": (PURPLE, "<"),
    "untrained_dictionary": (PURPLE, "s"),
    "random_model": (PURPLE, "X"),
}
CHARACTERS_PER_INCH = 11
LAYOUT_PASSES = 2

_RC: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.parse_math": False,
    "hatch.linewidth": 0.6,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.dpi": 72,
    "svg.fonttype": "none",
    "svg.hashsalt": "isaerft",
}


class NoRowsError(Exception):
    """Raised when there is nothing to draw; the message is shown instead of the figure."""


@dataclass(frozen=True)
class Style:
    """How one series looks; its label is its legend entry."""

    label: str
    colour: str
    marker: str
    size: float = 4.6
    width: float = 1.6
    """Line width of intervals."""
    alpha: float = 0.7
    """Opacity of intervals."""
    filled: bool = True

    def handle(self, linestyle: str = "") -> Line2D:
        """Return the legend entry."""
        face = self.colour if self.filled else "white"
        marks: dict[str, Any] = {"color": self.colour, "marker": self.marker, "ms": self.size + 0.4, "mfc": face}
        return Line2D([], [], ls=linestyle, label=self.label, **marks)


def result_style(label: str = "result") -> Style:
    """Return the look of the result itself."""
    return Style(label, BLUE, "o", size=6.5, width=2.0, alpha=1.0)


def control_style(control: str, position: int) -> Style:
    """Return the look of a control; one that isn't ours gets the next free look."""
    free = SERIES[(position + 4) % len(SERIES)], MARKERS[(position + 5) % len(MARKERS)]
    colour, marker = CONTROL_LOOKS.get(control, free)
    return Style(f"control: {words(control)}", colour, marker, size=4.2, width=0.9, alpha=0.65, filled=False)


def series_style(label: str, position: int) -> Style:
    """Return the look of the series at a position; 42 differ."""
    return Style(label, SERIES[position % len(SERIES)], MARKERS[position % len(MARKERS)])


def style() -> AbstractContextManager[None]:
    """Return a context with matplotlib's defaults and our look, whatever the user's own settings."""
    defaults: dict[Any, Any] = {key: value for key, value in matplotlib.rcParamsDefault.items() if "backend" not in key}
    return matplotlib.rc_context({**defaults, **_RC})


def make(draw: Callable[[Tables], Drawing], tables: Tables) -> Drawing:
    """Return the drawing that a function makes, whatever the user's own settings; or one that says "no rows"."""
    with style():
        try:
            return draw(tables)
        except NoRowsError as nothing:
            drawing = new_drawing(6.0, 1.2)
            drawing.text(0.5, 0.5, f"no rows: {nothing}", ha="center", va="center", color=GREY)
            return drawing


def new_drawing(width: float, height: float) -> Drawing:
    """Return an empty drawing of a size in inches."""
    return Drawing(figsize=(width, height), layout="constrained")


def primary_of(tables: Tables) -> Primary:
    """Return the primary combination; without one there is nothing to show."""
    primary = find_primary(table(tables, "agreement"))
    if primary is None:
        raise NoRowsError("agreement.csv marks no primary result")
    return primary


def title(drawing: Drawing, text: str) -> None:
    """Put a title over the whole drawing, wrapped to its width."""
    characters = int(drawing.get_figwidth() * CHARACTERS_PER_INCH)
    drawing.suptitle("\n".join(textwrap.wrap(visible(text), characters)), fontsize=10, weight="bold")


def legend_below(drawing: Drawing, handles: Iterable[Artist], columns: int = 3) -> None:
    """Put one legend below all axes."""
    entries = list(handles)
    if entries:
        drawing.legend(handles=entries, loc="outside lower center", ncols=min(columns, len(entries)), handletextpad=0.5)


def beside(axes: Axes, y: float, points: float, text: str, *, bold: bool = False) -> None:
    """Write text to the right of the axes at height `y` (data), a number of points away from their edge."""
    axes.annotate(
        text,
        (1.0, y),
        xycoords=axes.get_yaxis_transform(),
        xytext=(points, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        weight="bold" if bold else "normal",
        annotation_clip=False,
    )


def chance_line(axes: Axes, chance: float | None, *, horizontal: bool = False) -> None:
    """Draw the dashed line of a statistic's value by chance, where that is known."""
    if chance is not None:
        draw = axes.axhline if horizontal else axes.axvline
        draw(chance, color=INK, lw=0.9, ls=DASHED, zorder=1)


def chance_handles(chance: float | None) -> list[Line2D]:
    """Return the legend entry of the chance line, if there is one."""
    return [] if chance is None else [Line2D([], [], color=INK, lw=0.9, ls=DASHED, label=f"chance ({chance:g})")]


def save_svg(drawing: Drawing, path: str | Path) -> None:
    """Save a drawing as SVG, atomically; the same tables give the same bytes.

    Text stays text and is never read as mathematics. Glyphs that our font lacks are left to the viewer's fonts.
    """
    with style(), replacing(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        for text in drawing.findobj(Text):
            text.set_parse_math(False)
        _settle_layout(drawing)
        drawing.savefig(temporary, format="svg", metadata={"Date": None, "Creator": "isaerft"})


def _settle_layout(drawing: Drawing) -> None:
    """Lay the drawing out with SVG's own text widths, and round the positions of its axes.

    The layout's solver takes its constraints in the order of memory addresses, so its last digits differ from run to
    run; matplotlib hashes them into the names of clip paths.
    """
    FigureCanvasSVG(drawing)
    for _ in range(LAYOUT_PASSES):
        drawing.draw_without_rendering()
    drawing.set_layout_engine("none")
    for axes in drawing.axes:
        left, bottom, width, height = (round(float(edge), 5) for edge in axes.get_position(original=True).bounds)
        axes.set_position((left, bottom, width, height))
