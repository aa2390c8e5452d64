import numpy as np
import pytest
from matplotlib.figure import Figure

from isaerft.report.figures.canvas import Style
from isaerft.report.figures.forest import dodge, frame, points, stack

LOOK = Style("x", "#000000", "o")


def test_lines_go_down_by_one_and_every_other_is_shaded():
    lines = stack(["a", "b", "a", "c"])
    assert lines.heights == {"a": 0.0, "b": 1.0, "c": 2.0}
    assert lines.bands == [(-0.5, 0.5), (1.5, 2.5)]
    assert lines.at(["c", "a"], 0.25).tolist() == [2.25, 0.25]
    assert np.isnan(lines.at(["unknown"])).all()


def test_a_group_has_its_heading_above_it_and_its_band_around_it():
    lines = stack([("x", 1), ("x", 2), ("y", 1)], lambda key: key[0])
    assert list(lines.headings.items()) == [(0.0, "x"), (pytest.approx(3.4), "y")]
    assert lines.heights == {("x", 1): 1.0, ("x", 2): 2.0, ("y", 1): pytest.approx(4.4)}
    assert lines.bands[0] == (0.5, 2.5)
    assert lines.end == pytest.approx(4.4)


def test_a_footer_is_below_everything_and_bold():
    lines = stack(["a", "b"])
    height = lines.footer("overall")
    assert height > lines.heights["b"] + 1
    axes = Figure().subplots()
    frame(axes, lines)
    labels = axes.get_yticklabels()
    assert [label.get_text() for label in labels] == ["a", "b", "overall"]
    assert [label.get_fontweight() for label in labels] == ["normal", "normal", "bold"]
    assert axes.get_ylim()[0] > height, "heights go down"


def test_series_of_a_line_are_apart_and_within_it():
    offsets = dodge(9)
    assert min(np.diff(offsets)) > 0
    assert max(map(abs, offsets)) < 0.5
    assert dodge(1) == [0.0]


def marks(axes):
    return {line.get_marker(): line.get_xydata().tolist() for line in axes.lines}


def test_undefined_values_have_no_marker_and_undefined_ends_no_interval():
    axes = Figure().subplots()
    points(axes, [1.0, np.nan, 3.0], [0, 1, 2], LOOK, low=[0.5, 1.0, np.nan], high=[1.5, 2.0, 3.5])
    assert marks(axes) == {"o": [[1.0, 0.0], [3.0, 2.0]]}
    (intervals,) = axes.collections
    assert [segment.tolist() for segment in intervals.get_segments()] == [[[0.5, 0], [1.5, 0]], [[1.0, 1], [2.0, 1]]]


def test_values_outside_the_limits_become_arrows_at_the_edge():
    axes = Figure().subplots()
    points(axes, [-5.0, 0.5, 9.0], [0, 1, 2], LOOK, limits=(0.0, 1.0))
    assert marks(axes) == {"o": [[0.5, 1.0]], "<": [[0.0, 0.0]], ">": [[1.0, 2.0]]}


def test_hollow_markers_are_white():
    axes = Figure().subplots()
    points(axes, [1.0, 2.0], [0, 1], LOOK, hollow=[False, True])
    assert [(line.get_xdata()[0], line.get_markerfacecolor()) for line in axes.lines] == [
        (1.0, "#000000"),
        (2.0, "white"),
    ]
