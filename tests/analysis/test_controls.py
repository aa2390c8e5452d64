"""The controls beside a result."""

import shutil

import numpy as np
import pandas as pd
import pytest

from isaerft import config
from isaerft.explanations import write_explanations
from isaerft.stats import auroc, mean_rank
from tests.analysis.small_study import BEHAVIORS, DEAD, EXPECTED, UNEXPLAINED, N, make_study


def test_what_is_found_where_it_was_put_and_the_controls_are_at_chance(finished):
    table = finished[1]["agreement"].query("source == 'said' and statistic == 'auroc' and behavior != 'silent'")
    assert (table.query("control == 'none'").estimate > 0.9).all()
    for control in ("shuffled_explanations", "mismatched_behavior", "random_dictionary", "firing_rate_only"):
        estimates = table[table.control == control].estimate
        assert len(estimates) == 5 * 2 * 2
        assert 0.3 < estimates.median() < 0.65


def test_shuffled_completions_are_tested_as_the_result_is_for_the_primary_adapter_alone(parts):
    for behavior in BEHAVIORS:
        parts.changes("toy", f"{behavior}-shuffled")
    controls = [*config.CONTROLS, "shuffled_completions"]
    table = parts.tested(make_study(controls=controls))
    rows = table[table.control == "shuffled_completions"]
    assert set(rows.adapter) == {"bias"}
    assert set(rows.source) == {"said"}  # an arm of wrong explanations is a control itself
    assert len(rows) == len(BEHAVIORS) * 2 * 2
    assert rows[rows.behavior == "silent"].estimate.isna().all()
    assert not rows.primary.any()
    assert rows[rows.behavior != "silent"].pvalue.notna().all()
    for behavior in BEHAVIORS:
        shutil.copy(
            parts.folder / f"changes/toy/{behavior}-shuffled.parquet", parts.folder / f"changes/toy/{behavior}.parquet"
        )
    table = parts.tested(make_study()).query("adapter == 'bias' and source == 'said'")
    tested = ["behavior", "measure", "statistic", "estimate", "adjusted_estimate", "n_expected", "n_seeds"]
    results = table.loc[table.control == "none", tested]
    pd.testing.assert_frame_equal(rows[tested].reset_index(drop=True), results.reset_index(drop=True))


@pytest.mark.slow
def test_without_shuffled_completions_nothing_else_in_the_table_changes(parts):
    plain = parts.tested(make_study())
    for behavior in BEHAVIORS:
        parts.changes("toy", f"{behavior}-shuffled")
    beside = parts.tested(make_study(controls=[*config.CONTROLS, "shuffled_completions"]))
    assert "shuffled_completions" not in set(plain.control)
    kept = beside[beside.control != "shuffled_completions"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, plain)


def test_what_confounds_stands_in_the_place_of_changes(parts):
    facts = pd.read_parquet(parts.folder / "subjects/toy/latents.parquet")
    facts["decoder_norm"] = np.random.default_rng(1).uniform(1, 2, N)
    facts.to_parquet(parts.folder / "subjects/toy/latents.parquet")
    known = [i for i in range(N) if i not in UNEXPLAINED]
    said = ["x" * (1 + i % 7 + 5 * (i in EXPECTED["a"])) for i in known]
    frame = pd.DataFrame({"latent_index": known, "explanation": said, "side": "input", "url": ""})
    write_explanations(frame, parts.path("explanations", "toy", "said.parquet"))
    table = parts.tested(make_study()).query(
        "source == 'said' and statistic == 'auroc' and behavior == 'a' and primary == False and adapter == 'bias'"
        " and measure == 'parameter'"
    )
    estimates = table.set_index("control").estimate
    universe = [i for i in known if i not in DEAD]
    labels = np.isin(universe, EXPECTED["a"])
    for control, values in {
        "firing_rate_only": facts.firing_rate[universe],
        "decoder_norm_only": facts.decoder_norm[universe],
        "explanation_length": [len(text) for text, i in zip(said, known, strict=True) if i in universe],
        # How many behaviors but its own each latent is expected for.
        "genericity": np.isin(universe, [i for name in BEHAVIORS[1:] for i in EXPECTED[name]]),
    }.items():
        assert estimates[control] == pytest.approx(float(auroc(values, labels)), rel=1e-5), control
    assert estimates["explanation_length"] > 0.7


@pytest.mark.slow
def test_among_expected_latents_those_of_the_behavior_are_compared_with_those_of_others(parts):
    plain = parts.tested(make_study())
    beside = parts.tested(make_study(controls=[*config.CONTROLS, "among_expected"]))
    kept = beside[beside.control != "among_expected"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, plain)
    chosen = "source == 'said' and statistic == 'auroc' and adapter == 'bias' and measure == 'parameter'"
    rows = beside.query(f"{chosen} and control == 'among_expected'").set_index("behavior")
    universe = [i for i in range(N) if i not in UNEXPLAINED and i not in DEAD]
    named = sorted({i for own in EXPECTED.values() for i in own} & set(universe))
    table = pd.read_parquet(parts.folder / "changes/toy/a.parquet").query(
        "adapter == 'bias' and measure == 'parameter'"
    )
    change = table.pivot(index="seed", columns="latent_index", values="change").to_numpy()
    own = mean_rank(change[:, universe])[np.isin(universe, named)]
    assert rows.estimate["a"] == pytest.approx(float(auroc(own, np.isin(named, EXPECTED["a"]))), rel=1e-5)
    assert rows.n_latents["a"] == len(named) < len(universe)
    assert rows.estimate.drop("silent").min() > 0.8
    assert np.isnan(rows.estimate["silent"])


def test_an_arm_with_wrong_explanations_has_no_controls_of_its_own(finished):
    table = finished[1]["agreement"]
    assert set(table[table.source == "wrong"].control) == {"none"}
    assert set(table[table.source == "said"].control) == {"none", *make_study().study.controls}


def test_without_a_random_twin_that_control_is_not_shown(parts):
    plan = make_study(controls=["shuffled_explanations", "mismatched_behavior"])
    table = parts.tested(plan)
    assert set(table.control) == {"none", "shuffled_explanations", "mismatched_behavior"}
