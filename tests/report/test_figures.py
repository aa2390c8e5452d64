import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from isaerft.config import Adapter, LossCurves, MapComponents, Metric, NoiseProbe, SteeringCheck
from isaerft.errors import InputError
from isaerft.registry import STATISTICS, StatisticFacts
from isaerft.report import FIGURES, figures_of
from isaerft.report.figures.canvas import save_svg, series_style
from isaerft.report.figures.most_changed_latents import expectation

HOSTILE = "$x_1$ </text><script>alert(1)</script> --> ]]> & \u202e\ufffe"


def draw(name, tables, path):
    save_svg(FIGURES[name].make(tables), path)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def drawn(tables, tmp_path_factory):
    """Return every figure as SVG."""
    folder = tmp_path_factory.mktemp("figures")
    return {name: draw(name, tables, folder / f"{name}.svg") for name in FIGURES}


def texts(svg):
    return [node.text or "" for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("}text")]


def numbers_of_markers(svg):
    return svg.count("<use ")


@pytest.mark.slow
def test_figure_bytes_are_identical_on_rerun(drawn, tables, tmp_path):
    for name, svg in drawn.items():
        assert draw(name, tables, tmp_path / "a.svg") == svg
        assert "<dc:date>" not in svg


@pytest.mark.slow
def test_figure_does_not_depend_on_the_users_settings(drawn, tables, tmp_path):
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert draw("training", tables, tmp_path / "a.svg") == drawn["training"]
        assert matplotlib.rcParams["font.size"] == 30


def test_svg_is_light_text_and_never_raster(drawn):
    for svg in drawn.values():
        assert "<image" not in svg
        assert len(texts(svg)) > 5
        assert len(svg) < 400_000


def test_no_text_runs_past_the_edge(drawn):
    for svg in drawn.values():
        width = float(re.search(r'width="([\d.]+)pt"', svg)[1])
        for size, anchor, x, shown in re.findall(
            r'font-size: ([\d.]+)px[^"]*?text-anchor: (\w+)[^"]*" x="([\d.]+)"[^>]*rotate\(-0 [^>]*>([^<]*)<', svg
        ):
            length = 0.55 * float(size) * len(shown)
            right = float(x) + {"start": length, "middle": length / 2, "end": 0}[anchor]
            assert right < width + 2, shown


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("n_behaviors", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_figure_stands_for_one_and_twenty_behaviors(name, n_behaviors, maker, tmp_path):
    names = [f"a_long_name_for_a_behavior_number_{i}" for i in range(n_behaviors)]
    study = maker(behaviors=names, doses=name == "dose_response")
    draw(name, study.tables(), tmp_path / "a.svg")


@pytest.mark.parametrize("name", FIGURES)
def test_figure_survives_undefined_values(name, tables, tmp_path, recwarn):
    rng = np.random.default_rng(0)
    holed = {}
    for table, frame in tables.items():
        holed[table] = frame.copy()
        for column in frame.columns.intersection(
            ["estimate", "ci_low", "ci_high", "pvalue", "noise_ceiling", "loss_recovered", "expected_effect", "verdict"]
        ):
            holed[table].loc[rng.random(len(frame)) < 0.4, column] = None
    draw(name, holed, tmp_path / "a.svg")
    assert not [warning for warning in recwarn if issubclass(warning.category, RuntimeWarning)]


def test_empty_selection_says_no_rows(tables, tmp_path):
    empty = {table: frame.iloc[:0] for table, frame in tables.items()}
    for name in FIGURES:
        assert any("no rows" in shown for shown in texts(draw(name, empty, tmp_path / "a.svg")))


def test_missing_table_is_an_input_error():
    for figure in FIGURES.values():
        with pytest.raises(InputError, match="is missing"):
            figure.make({})


def test_agreement_shows_every_control_and_chance(drawn):
    shown = " | ".join(texts(drawn["agreement"]))
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
        " | ".join(texts(draw("agreement", shown, tmp_path / f"{name}.svg")))
        for name, shown in (("before", tables), ("after", with_shuffled(tables, 0.97)))
    )
    assert "control: shuffled completions" in after
    assert "control: shuffled completions" not in before
    assert "0.97" not in after
    grid = " | ".join(texts(draw("agreement_grid", with_shuffled(tables, 0.97), tmp_path / "grid.svg")))
    assert "control: shuffled completions" in grid


def test_behavior_check_has_a_panel_with_its_unit_for_each_kind_of_score(drawn, tables):
    shown = " | ".join(texts(drawn["behavior_check"]))
    assert set(tables["behavior_check"]["score"]) == {"words", "length"}
    assert "share of the answer's words" in shown
    assert "words in the answer" in shown
    for entry in ("before training", "the data's own replies", "after: bias", "after: scale"):
        assert entry in shown


def test_agreement_writes_the_tables_own_numbers(drawn, tables):
    frame = tables["agreement"]
    estimate = frame.loc[frame["primary"], "estimate"]
    shown = texts(drawn["agreement"])
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


def test_a_statistic_from_outside_can_be_primary(maker, tmp_path, monkeypatch):
    monkeypatch.setitem(STATISTICS._facts, "somers_d", StatisticFacts(title="Somers' D", chance=0.25))
    shown = texts(draw("agreement", maker(("a", "b"), "somers_d", doses=False).tables(), tmp_path / "a.svg"))
    assert "chance (0.25)" in shown
    assert any("Somers' D" in line for line in shown)


def test_grid_names_every_source_and_leaves_wrong_ones_to_the_dose_figure(drawn):
    shown = texts(drawn["agreement_grid"])
    assert {"truth_input", "truth_output", "autointerp_input", "autointerp_output", "wrong_input_0"} <= set(shown)
    assert "wrong_input_80" not in shown


def test_dose_response_median_is_the_tables_median(tables):
    figure = FIGURES["dose_response"].make(tables)
    frame = tables["agreement"]
    chosen = frame[(frame["source"] == "wrong_input_40") & (frame["control"] == "none")]
    axes = next(axes for axes in figure.axes if axes.get_title(loc="left") == "explanations of input")
    thick = max(axes.lines, key=lambda line: line.get_linewidth())
    assert dict(zip(*thick.get_data(), strict=True))[0.4] == pytest.approx(chosen["estimate"].median())


def test_specificity_title_states_the_count(drawn):
    assert "Own column is largest in 8 of 8" in texts(drawn["specificity"])


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
            text.get_parse_math() and "$" in text.get_text() for text in FIGURES[name].make(tables).findobj(Text)
        )


@pytest.mark.slow
def test_elements_stay_bounded_with_many_sources(maker, tmp_path):
    study = maker(behaviors=("a", "b"), doses=False)
    frame = study.tables()["agreement"]
    many = pd.concat([frame, *(frame[~frame["primary"]].assign(source=f"source_{i}") for i in range(24))])
    svg = draw("agreement_grid", {"agreement": many}, tmp_path / "a.svg")
    assert numbers_of_markers(svg) < 6000
    assert any("in the table" in shown for shown in texts(svg))


def test_no_two_of_many_adapters_look_alike():
    assert len({(look.colour, look.marker) for look in (series_style("", i) for i in range(42))}) == 42


def test_the_figure_holds_every_judge_and_source_with_the_tables_own_numbers(tables):
    figure = FIGURES["source_comparison"].make(tables)
    first, second = figure.axes
    labels = [label.get_text() for label in first.get_yticklabels()]
    assert [label for label in labels if label.startswith("judge: ")] == [
        "judge: table",
        "judge: lexical",
        "judge: embedding",
    ]
    assert labels.count("truth output") == 3
    assert [text.get_text() for text in first.texts] == ["0.80", "0.70", "0.60"] * 3
    assert [text.get_text() for text in second.texts] == ["0.30", "0.20", "0.10"] * 3


def test_only_sources_known_to_be_worse_than_the_best_are_drawn_hollow(tables):
    axes = FIGURES["source_comparison"].make(tables).axes[0]
    marks = [line for line in axes.lines if line.get_marker() not in ("None", None, "")]
    hollow = {line.get_marker() for line in marks if line.get_markerfacecolor() == "white"}
    filled = {line.get_marker() for line in marks if line.get_markerfacecolor() != "white"}
    assert (hollow, filled) == ({"D"}, {"o", "s"}), "local both alone is known to be worse"


def test_a_value_outside_the_axis_is_an_arrow_and_not_left_out(tables):
    far = tables["causal_check"].assign(loss_recovered=7.0, ci_low=np.nan, ci_high=np.nan)
    axes = FIGURES["causal_check"].make({"causal_check": far}).axes[0]
    arrows = [x for line in axes.lines if line.get_marker() == ">" for x in line.get_xdata()]
    assert len(arrows) == 8 * 2 * 2
    assert set(arrows) == {2.0}


def test_steering_shows_the_latents_with_the_largest_effects_and_the_tables_own_aurocs(tables):
    areas, effects = FIGURES["steering_check"].make(tables).axes
    shown = [x for line in effects.lines if line.get_marker() in "osD" for x in line.get_xdata()]
    latents = tables["steering_latents"]
    supported = latents.loc[latents.group == "supported", "effect"].nlargest(24)
    assert sorted(shown) == pytest.approx(sorted([*supported, *latents.loc[latents.group != "supported", "effect"]]))
    found = [x for line in areas.lines if line.get_marker() == "o" for x in line.get_xdata()]
    assert found == [0.7, 0.72, 0.5]


def test_of_each_map_the_component_that_matters_most_is_shown_and_a_bias_never(tables):
    effect, reads, writes = FIGURES["map_components"].make(tables).axes
    table = tables["map_components"]
    most = table[table.component > 0].groupby(["behavior", "adapter", "seed"], sort=False).lost_without.max()
    means = most.groupby(["behavior", "adapter"], sort=False).mean()
    filled = [
        x for line in effect.lines if line.get_marker() in "os" and line.get_mfc() != "white" for x in line.get_xdata()
    ]
    assert sorted(filled) == pytest.approx(sorted(means))
    assert 9.0 not in filled
    for axes, side in ((reads, "read"), (writes, "write")):
        shown = {round(x, 3) for line in axes.lines if line.get_marker() == "|" for x in line.get_xdata()}
        assert shown == {round(table[f"{side}_chance"].dropna().iloc[0], 3)}


def test_loss_curves_show_means_over_behaviors_against_both_counts_and_free_directions_hollow(tables):
    left, right = FIGURES["loss_curves"].make(tables).axes
    for axes, counts in ((left, [1, 4, 8]), (right, [64, 256, 512])):
        latents, free = axes.lines[:2]
        assert list(latents.get_ydata()) == pytest.approx([0.9 / 8, 0.45, 0.9])
        assert list(free.get_xdata()) == counts
        assert free.get_mfc() == "white"
        assert latents.get_mfc() != "white"
    one = tables["loss_curves"]
    single = FIGURES["loss_curves"].make({"loss_curves": one[one.behavior == one.behavior.iloc[0]]})
    assert len(single.axes[0].lines) == len(left.lines)


def test_noise_shows_each_models_score_over_the_level_the_unchanged_one_hollow(tables):
    drawing = FIGURES["noise_probe"].make(tables)
    shown = [axes for axes in drawing.axes if axes.get_visible()]
    assert len(shown) == 16
    assert {axes.get_xlabel() for axes in shown} == {"noise in residual stream", "noise in weights"}
    base, adapted = shown[0].lines
    assert (base.get_mfc(), adapted.get_mfc() != "white") == ("white", True)
    assert list(base.get_ydata()) == pytest.approx([0.1] * 3)
    assert list(adapted.get_xdata()) == [0, 0.2, 0.8]
    assert list(adapted.get_ydata()) == pytest.approx([0.1, 0.2, 0.5])


def test_changes_over_time_shows_the_primary_adapters_checkpoints_and_not_what_was_kept(tables):
    axes = FIGURES["changes_over_time"].make(tables).axes
    shown = [one for one in axes if one.get_visible()]
    assert len(shown) == 8
    expected, others, agreement = shown[0].lines[:3]
    assert list(expected.get_xdata()) == [1, 3, 10, 30, 100]
    assert list(others.get_ydata()) == pytest.approx([0.25, 0.36, 0.49, 0.64, 0.7225])
    assert list(agreement.get_ydata()) == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.85])


def test_the_loss_on_training_rows_is_drawn_hollow_where_it_was_taken(tables):
    def hollow(drawing):
        lines = [line for line in drawing.axes[0].lines if line.get_markerfacecolor() == "white"]
        return sum(len(line.get_xdata()) for line in lines)

    known = tables["training"]["train_loss_adapted"].notna().sum()
    assert hollow(FIGURES["training"].make(tables)) == known > 0
    without = tables["training"].assign(train_loss_adapted=np.nan)
    drawing = FIGURES["training"].make({"training": without})
    assert hollow(drawing) == 0
    assert "after, on training rows" not in [text.get_text() for text in drawing.legends[0].get_texts()]


def test_each_figure_is_there_under_its_own_condition(plan, lean_plan):
    others = ("calibration", "steering_check", "benchmark", "discriminability", "map_components", "changes_over_time")
    others += ("loss_curves", "noise_probe")
    assert figures_of(plan) == [name for name in FIGURES if name not in others]
    steered = replace(plan, study=replace(plan.study, steering_check=SteeringCheck()))
    assert "steering_check" in figures_of(steered)
    low_rank = {**plan.study.adapters, "low_rank": Adapter()}
    mapped = replace(plan, study=replace(plan.study, adapters=low_rank, map_components=MapComponents()))
    assert "map_components" in figures_of(mapped)
    curved = replace(plan, study=replace(plan.study, loss_curves=LossCurves()))
    assert "loss_curves" in figures_of(curved)
    bias = replace(plan.study.adapters["bias"], checkpoints=10)
    followed = replace(plan, study=replace(plan.study, adapters=plan.study.adapters | {"bias": bias}))
    assert "changes_over_time" in figures_of(followed)
    behaviors = {name: replace(part, metric=Metric(kind="length")) for name, part in plan.study.behaviors.items()}
    probed = replace(plan, study=replace(plan.study, behaviors=behaviors, noise_probe=NoiseProbe()))
    assert "noise_probe" in figures_of(probed)
    name, source = next(iter(plan.study.sources.items()))
    keyed = {name: replace(source, side="input", wrong_share=0.1, key="{subject_dir}/key.csv")}
    known = replace(plan, study=replace(plan.study, sources=plan.study.sources | keyed))
    assert "benchmark" in figures_of(known)
    assert figures_of(lean_plan) == ["agreement", "agreement_grid", "most_changed_latents", "training", "reliability"]


def test_every_figure_has_a_short_caption():
    for name, figure in FIGURES.items():
        assert figure.name == name
        assert figure.caption.endswith(".")
        assert len(figure.caption) < 450


def test_the_bar_of_a_number_reaches_as_far_as_reseeding_explains(tables, tmp_path):
    drawing = FIGURES["reliability"].make(tables)
    names = [axes.get_title(loc="left") for axes in drawing.axes]
    assert names == ["overall.csv, agreement", "overall.csv, specificity"]  # one behavior's number is not shown
    axes = drawing.axes[1]
    bars = [segment[:, 0] for part in axes.collections for segment in part.get_segments()]
    assert [bar.round(3).tolist() for bar in bars] == [[0.255, 0.345]] * 3
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels == ["lora", "bias", "scale"]  # over several subjects first
    shown = texts(draw("reliability", tables, tmp_path / "a.svg"))
    assert {"over training seed", "over testbed.seed"} <= set(shown)


def test_a_number_that_does_not_separate_variants_is_hollow(tables, tmp_path):
    shown = texts(draw("discriminability", tables, tmp_path / "a.svg"))
    assert "subjects.csv, variance explained" in shown
    assert not any("n alive" in text for text in shown)
    hollow = FIGURES["discriminability"].make(tables).axes[0].lines
    faces = {float(line.get_xdata()[0]): line.get_markerfacecolor() for line in hollow if len(line.get_xdata()) == 1}
    assert faces[0.1] == "white"
    assert faces[0.9] != "white"
