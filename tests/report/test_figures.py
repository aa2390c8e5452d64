import re
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from isaerft.errors import InputError
from isaerft.report.figures import FIGURES, dose_response, save_svg
from isaerft.report.figures.canvas import series
from isaerft.report.figures.most_changed_latents import expectation
from isaerft.report.figures.specificity import own_largest

HOSTILE = "$x_1$ </text><script>alert(1)</script> --> ]]> & \u202e\ufffe"


def draw(name, tables, path, doses=None):
    options = {"doses": doses} if FIGURES[name].wants_doses else {}
    save_svg(FIGURES[name].build(tables, **options), path)
    return path.read_text(encoding="utf-8")


def texts(svg):
    return [node.text or "" for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("}text")]


def numbers_of_markers(svg):
    return svg.count("<use ")


@pytest.mark.parametrize("name", FIGURES)
def test_figure_bytes_are_identical_on_rerun(name, tables, doses, tmp_path):
    first = draw(name, tables, tmp_path / "a.svg", doses)
    assert first == draw(name, tables, tmp_path / "b.svg", doses)
    assert "<dc:date>" not in first


def test_figure_does_not_depend_on_the_users_settings(tables, tmp_path):
    plain = draw("training", tables, tmp_path / "a.svg")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert draw("training", tables, tmp_path / "b.svg") == plain
        assert matplotlib.rcParams["font.size"] == 30


@pytest.mark.parametrize("name", FIGURES)
def test_svg_is_light_text_and_never_raster(name, tables, doses, tmp_path):
    svg = draw(name, tables, tmp_path / "a.svg", doses)
    assert "<image" not in svg
    assert len(texts(svg)) > 5
    assert len(svg) < 400_000


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_runs_past_the_edge(name, tables, doses, tmp_path):
    svg = draw(name, tables, tmp_path / "a.svg", doses)
    width = float(re.search(r'width="([\d.]+)pt"', svg)[1])
    for size, anchor, x, shown in re.findall(
        r'font-size: ([\d.]+)px[^"]*?text-anchor: (\w+)[^"]*" x="([\d.]+)"[^>]*rotate\(-0 [^>]*>([^<]*)<', svg
    ):
        length = 0.55 * float(size) * len(shown)
        right = float(x) + {"start": length, "middle": length / 2, "end": 0}[anchor]
        assert right < width + 2, shown


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("n_behaviors", [1, 20])
def test_figure_stands_for_one_and_twenty_behaviors(name, n_behaviors, maker, tmp_path):
    study = maker(behaviors=[f"a_long_name_for_a_behavior_number_{i}" for i in range(n_behaviors)])
    draw(name, study.tables(), tmp_path / "a.svg", study.doses)


@pytest.mark.parametrize("name", FIGURES)
def test_figure_survives_undefined_values(name, tables, doses, tmp_path, recwarn):
    rng = np.random.default_rng(0)
    holed = {}
    for table, frame in tables.items():
        holed[table] = frame.copy()
        for column in frame.columns.intersection(
            ["estimate", "ci_low", "ci_high", "pvalue", "noise_ceiling", "loss_recovered", "expected_effect", "verdict"]
        ):
            holed[table].loc[rng.random(len(frame)) < 0.4, column] = None
    draw(name, holed, tmp_path / "a.svg", doses)
    assert not [warning for warning in recwarn if issubclass(warning.category, RuntimeWarning)]


@pytest.mark.parametrize("name", FIGURES)
def test_empty_selection_says_no_rows(name, tables, tmp_path):
    empty = {table: frame.iloc[:0] for table, frame in tables.items()}
    assert any("no rows" in shown for shown in texts(draw(name, empty, tmp_path / "a.svg", {})))


@pytest.mark.parametrize("name", FIGURES)
def test_table_not_given_is_an_input_error(name):
    with pytest.raises(InputError, match="was not given"):
        FIGURES[name].build({})


def test_agreement_shows_every_control_and_chance(tables, tmp_path):
    shown = " | ".join(texts(draw("agreement", tables, tmp_path / "a.svg")))
    for control in ("shuffled explanations", "mismatched behavior", "firing rate only", "random dictionary"):
        assert f"control: {control}" in shown
    assert "chance (0.5)" in shown
    assert "minimum detectable effect" in shown
    assert "noise ceiling" in shown


def with_shuffled(tables, estimate):
    frame = tables["agreement"]
    rows = frame[(frame["adapter"] == "bias") & (frame["control"] == "genericity")]
    twins = rows.assign(control="shuffled_completions", estimate=estimate, ci_low=None, ci_high=None, pvalue=0.0001)
    return tables | {"agreement": pd.concat([frame, twins], ignore_index=True)}


def test_shuffled_completions_are_shown_but_are_not_the_highest_control(tables, tmp_path):
    before, after = (
        " | ".join(texts(draw("agreement", given, tmp_path / f"{name}.svg")))
        for name, given in (("before", tables), ("after", with_shuffled(tables, 0.97)))
    )
    assert "control: shuffled completions" in after
    assert "control: shuffled completions" not in before
    assert "0.97" not in after
    grid = " | ".join(texts(draw("agreement_grid", with_shuffled(tables, 0.97), tmp_path / "grid.svg")))
    assert "control: shuffled completions" in grid


def test_behavior_check_has_a_panel_with_its_unit_for_each_kind_of_score(tables, tmp_path):
    shown = " | ".join(texts(draw("behavior_check", tables, tmp_path / "a.svg")))
    assert set(tables["behavior_check"]["score"]) == {"words", "length"}
    assert "share of the answer's words" in shown
    assert "words in the answer" in shown
    for entry in ("before training", "the data's own replies", "after: bias", "after: scale"):
        assert entry in shown


def test_agreement_writes_the_tables_own_numbers(tables, tmp_path):
    frame = tables["agreement"]
    estimate = frame.loc[frame["primary"], "estimate"]
    shown = texts(draw("agreement", tables, tmp_path / "a.svg"))
    assert f"{estimate.median():.2f}" in shown
    for value in estimate:
        assert f"{value:.2f}" in shown


def test_ceiling_and_power_are_not_shown_when_undefined(tables, tmp_path):
    none = {"agreement": tables["agreement"].assign(noise_ceiling=np.nan, minimum_detectable_effect=np.nan)}
    shown = " | ".join(texts(draw("agreement", none, tmp_path / "a.svg")))
    assert "ceiling" not in shown
    assert "minimum" not in shown


def test_chance_is_zero_for_spearman(maker, tmp_path):
    shown = texts(draw("agreement", maker(statistic="spearman").tables(), tmp_path / "a.svg"))
    assert "chance (0)" in shown
    assert any("Spearman" in line for line in shown)


def test_grid_names_every_source_and_leaves_wrong_ones_to_the_dose_figure(tables, doses, tmp_path):
    shown = texts(draw("agreement_grid", tables, tmp_path / "a.svg", doses))
    assert {"truth_input", "truth_output", "autointerp_input", "autointerp_output", "wrong_input_0"} <= set(shown)
    assert "wrong_input_80" not in shown


def test_dose_response_median_is_the_tables_median(tables, doses):
    figure = dose_response(tables, doses)
    frame = tables["agreement"]
    chosen = frame[(frame["source"] == "wrong_input_40") & (frame["control"] == "none")]
    axes = next(axes for axes in figure.axes if axes.get_title(loc="left") == "input-side")
    thick = max(axes.lines, key=lambda line: line.get_linewidth())
    assert dict(zip(*thick.get_data(), strict=True))[0.4] == pytest.approx(chosen["estimate"].median())


def test_specificity_counts_come_from_the_table():
    matrix = pd.DataFrame([[0.9, 0.5, 0.4], [0.7, 0.6, 0.1], [0.8, 0.2, 0.8]], index=list("abc"), columns=list("abc"))
    assert own_largest(matrix) == (1, 3), "a tie is not the largest"
    matrix.loc["a", "a"] = np.nan
    assert own_largest(matrix) == (0, 2), "a row without its own value is not counted"
    assert own_largest(matrix.iloc[:1, :1]) == (0, 0), "nothing to compare with"


def test_specificity_title_states_the_count(tables, tmp_path):
    assert "Own column is largest in 8 of 8" in texts(draw("specificity", tables, tmp_path / "a.svg"))


@pytest.mark.parametrize(
    ("verdict", "effect", "shown"),
    [
        ("expected", 0.0, "expected"),
        ("unexpected", 1.0, "unexpected"),
        ("unstable", 1.0, "expected"),
        ("unstable", 0.0, "unexpected"),
        (pd.NA, float("nan"), "not judged"),
    ],
)
def test_verdict_goes_before_effect_and_nothing_is_guessed(verdict, effect, shown):
    assert expectation(verdict, effect) == shown


def test_hostile_explanation_is_text_in_svg(tables, tmp_path):
    frame = tables["most_changed_latents"].copy()
    frame["explanation"] = HOSTILE
    svg = draw("most_changed_latents", tables | {"most_changed_latents": frame}, tmp_path / "a.svg")
    assert "<script" not in svg
    assert any(shown.startswith("$x_1$ </text><script>alert(1)") for shown in texts(svg))
    assert "\u202e" not in svg


def test_text_is_never_read_as_mathematics(tables):
    for name in ("agreement", "most_changed_latents"):
        assert not any(
            text.get_parse_math() and "$" in text.get_text() for text in FIGURES[name].build(tables).findobj(Text)
        )


def test_elements_stay_bounded_with_many_sources(maker, tmp_path):
    study = maker(doses=False)
    frame = study.tables()["agreement"]
    many = pd.concat([frame, *(frame[~frame["primary"]].assign(source=f"source_{i}") for i in range(24))])
    svg = draw("agreement_grid", {"agreement": many}, tmp_path / "a.svg")
    assert numbers_of_markers(svg) < 6000
    assert any("in the table" in shown for shown in texts(svg))


def test_no_two_of_many_adapters_look_alike():
    assert len({series(position) for position in range(42)}) == 42
