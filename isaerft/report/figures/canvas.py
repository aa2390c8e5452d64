"""The common look of all figures, and the only way they are saved."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from isaerft.io import replacing
from isaerft.report.text import visible, words

P = ParamSpec("P")

# Okabe and Ito's palette (https://jfly.uni-koeln.de/color/): told apart under every common colour blindness.
BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER = "#0072B2", "#D55E00", "#00856A", "#A8478A", "#56B4E9", "#B8860B"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, AMBER, SKY)
# One more than colours, so that 42 series differ.
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
CHARACTERS_PER_INCH = 11
LAYOUT_PASSES = 2
INK, GREY, PALE, SHADE = "#222222", "#767676", "#C8C8C8", "#F4F4F4"
CONTROL_LOOKS = {
    "shuffled_explanations": (GREY, "s"),
    "mismatched_behavior": (ORANGE, "D"),
    "firing_rate_only": (GREEN, "^"),
    "decoder_norm_only": (AMBER, "<"),
    "explanation_length": (SKY, "P"),
    "genericity": (INK, "X"),
    "random_dictionary": (PURPLE, "v"),
    "shuffled_completions": (SKY, ">"),
}

_RC: dict[str, Any] = {
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


def figure_style() -> Any:
    """Return a context in which matplotlib's defaults and our style hold, whatever the user's own settings."""
    defaults = {key: value for key, value in matplotlib.rcParamsDefault.items() if "backend" not in key}
    return matplotlib.rc_context({**defaults, **_RC})


def styled(build: Callable[P, Figure]) -> Callable[P, Figure]:
    """Make a figure function run inside `figure_style`."""

    @wraps(build)
    def run(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with figure_style():
            return build(*args, **kwargs)

    return run


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches; call it inside a `styled` function."""
    return Figure(figsize=(width, height), layout="constrained")


def headline(figure: Figure, text: str) -> None:
    """Put a title over the whole figure, wrapped to its width."""
    characters = int(figure.get_figwidth() * CHARACTERS_PER_INCH)
    figure.suptitle("\n".join(textwrap.wrap(visible(text), characters)), fontsize=10, weight="bold")


def no_rows(message: str) -> Figure:
    """Return a small figure that says why there is nothing to show."""
    figure = new_figure(6.0, 1.2)
    figure.text(0.5, 0.5, f"no rows: {message}", ha="center", va="center", color=GREY)
    return figure


def series(position: int) -> tuple[str, str]:
    """Return the colour and marker of the series at a position."""
    return SERIES[position % len(SERIES)], MARKERS[position % len(MARKERS)]


def look(control: str, position: int = 0) -> tuple[str, str]:
    """Return the colour and marker of a control; one that we don't know gets the next free look."""
    return CONTROL_LOOKS.get(control, (SERIES[(position + 4) % len(SERIES)], MARKERS[(position + 5) % len(MARKERS)]))


def result_handle(label: str = "result") -> Line2D:
    """Return the legend entry of the result itself."""
    return Line2D([], [], color=BLUE, marker="o", ls="", ms=6.5, label=label)


def control_handle(control: str, position: int = 0, linestyle: str = "") -> Line2D:
    """Return the legend entry of a control."""
    colour, marker = look(control, position)
    name = "control: " + words(control)
    return Line2D([], [], color=colour, marker=marker, ls=linestyle, ms=4.5, mfc="white", label=name)


def legend_below(figure: Figure, handles: Iterable[Any], columns: int = 3) -> None:
    """Put one legend below all axes."""
    entries = list(handles)
    if entries:
        figure.legend(handles=entries, loc="outside lower center", ncols=min(columns, len(entries)), handletextpad=0.5)


def beside(axes: Axes, y: float, points: float, text: str, *, bold: bool = False) -> None:
    """Write text to the right of the axes at height `y` (data), a fixed number of points away from their edge."""
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


def chance_line(axes: Axes, value: float | None, *, horizontal: bool = False) -> None:
    """Draw the chance line of a statistic that has one."""
    if value is not None:
        draw = axes.axhline if horizontal else axes.axvline
        draw(value, color=INK, lw=0.9, ls=(0, (4, 3)), zorder=1)


def save_svg(figure: Figure, path: str | Path) -> None:
    """Save `figure` as SVG under `path`, atomically; the same tables give the same bytes.

    Text stays text, and is never read as mathematics. Glyphs that our font lacks are left to the viewer's fonts. The
    figure's layout is settled here and does not change afterwards.
    """
    with figure_style(), replacing(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        for text in figure.findobj(Text):
            text.set_parse_math(False)
        _settle_layout(figure)
        figure.savefig(temporary, format="svg", metadata={"Date": None, "Creator": "isaerft"})


def _settle_layout(figure: Figure) -> None:
    """Lay the figure out with SVG's own text widths, and round where the axes stand.

    The layout's solver goes through its constraints in the order of memory addresses, so that its last digits differ
    from run to run; matplotlib hashes them into the names of clip paths.
    """
    FigureCanvasSVG(figure)
    for _ in range(LAYOUT_PASSES):
        figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        axes.set_position([round(float(edge), 5) for edge in axes.get_position(original=True).bounds])
