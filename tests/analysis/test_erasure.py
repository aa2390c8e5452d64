"""erasure.csv, and its controls in agreement.csv."""

import json

import numpy as np
import pytest

from isaerft.analysis import tables_of
from isaerft.analysis.erasure import compared
from tests.analysis.small_study import BEHAVIORS, EXPECTED, make_study

CONTROLS = ["erased_leace", "erased_random"]


@pytest.fixture
def erased(parts):
    """The small study, where LEACE took the planted changes away and random directions left them."""
    for control in CONTROLS:
        for behavior in BEHAVIORS:
            twin = f"{behavior}-{control.replace('_', '-')}"
            if control == "erased_random":
                table = parts.path("changes", "toy", f"{behavior}.parquet").read_bytes()
                parts.path("changes", "toy", f"{twin}.parquet").write_bytes(table)
            else:
                parts.changes("toy", twin)
            runs = json.loads(parts.path("adapters", "toy", behavior, "bias", "training.json").read_text())
            for run in runs:
                run["heldout_loss_base"], run["heldout_loss_adapted"] = 3.0, 2.75
            parts.path("adapters", "toy", twin, "bias", "training.json").write_text(json.dumps(runs))
            facts = {"n_directions": 1, "variance_removed": 0.01, "heldout_accuracy": 0.9, "erased_accuracy": 0.5}
            found = json.dumps([facts | {"seed": seed} for seed in range(2)])
            parts.path("erasures", "toy", f"{twin}.json").write_text(found)
    return parts, make_study(controls=CONTROLS)


def test_only_a_study_that_asks_for_it_has_it():
    assert "erasure" not in tables_of(make_study())
    assert "erasure" in tables_of(make_study(controls=["erased_mean"]))


def test_what_was_erased_is_not_found_and_what_was_left_is(erased):
    parts, plan = erased
    table = parts.table(plan, "erasure")
    assert len(table) == len(CONTROLS) * len(BEHAVIORS) * 2
    assert not table.duplicated(["behavior", "control", "seed"]).any()
    known = table[table.behavior != "silent"]
    gone, left = (known[known.control == control] for control in CONTROLS)
    assert (known.agreement > 0.9).all()
    assert 0.4 < gone.erased_agreement.mean() < 0.6
    assert gone.expected_among_first.mean() < 0.35
    np.testing.assert_allclose(left.erased_agreement, left.agreement)
    assert (left.same_among_first == 1).all()
    assert (left.expected_among_first > 0.6).all()
    first = left[(left.behavior == "a") & (left.seed == 0)].first_latents.item()
    assert len(first.split()) == 5
    assert set(map(int, first.split())) <= set(EXPECTED["a"])
    fall = table.heldout_loss_base - table.heldout_loss_adapted
    np.testing.assert_allclose(table.fall_kept, 0.25 / fall, atol=1e-6)
    assert table[table.behavior == "silent"].erased_agreement.isna().all()


def test_the_controls_are_tested_against_other_trainings_like_the_result(erased):
    parts, plan = erased
    rows = parts.tested(plan).query("adapter == 'bias' and source == 'said' and statistic == 'auroc'")
    rows = rows[(rows.behavior != "silent") & (rows.measure == "contribution")].set_index(["control", "behavior"])
    np.testing.assert_allclose(rows.loc["erased_random"].pvalue, rows.loc["none"].pvalue)
    np.testing.assert_allclose(rows.loc["erased_random"].estimate, rows.loc["none"].estimate)
    assert rows.loc["erased_leace"].estimate.mean() < 0.65 < rows.loc["none"].estimate.min()
    assert rows.loc["erased_leace"].pvalue.mean() > 0.2 > rows.loc["none"].pvalue.max()


def test_a_training_that_changed_nothing_has_no_agreement(erased):
    parts, plan = erased
    from isaerft.analysis import analysis_of
    from isaerft.layout import Results

    reading = analysis_of(plan, Results(parts.folder)).primary_reading("toy")
    whole = np.random.default_rng(0).normal(size=60)
    assert set(compared(reading, "a", "auroc", whole, np.zeros(60))) == {"agreement"}
    assert compared(reading, "silent", "auroc", whole, whole)["same_among_first"] == 1
