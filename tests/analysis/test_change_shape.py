"""change_shape.csv"""

import numpy as np
import pytest

from isaerft.analysis import tables_of
from isaerft.analysis.change_shape import shape_of
from tests.analysis.small_study import BEHAVIORS, N, Parts, make_study


@pytest.fixture
def parts(tmp_path):
    return Parts(tmp_path)


def test_only_a_study_that_asks_for_it_has_it():
    assert "change_shape" not in tables_of(make_study())
    assert "change_shape" in tables_of(make_study(change_shape=True))


def test_every_adapter_behavior_and_measure_has_a_row(parts):
    table = parts.table(make_study(change_shape=True), "change_shape")
    assert len(table) == 2 * len(BEHAVIORS) * 2
    assert not table.duplicated(["subject", "behavior", "adapter", "measure"]).any()
    assert (table.n_seeds == 2).all()
    assert (table.n_changed == N).all()
    # Two dead latents of 99 carry half of the sum of sizes, and a tail of 15 latents is too short to describe.
    assert table.n_half.between(1, 2).all()
    assert table["tail"].isna().all()


def test_half_of_an_additive_effect_counts_what_works_against_it():
    changes = np.array([[6.0, 3.0, 1.0, -4.0], [2.0, 2.0, 2.0, 0.0]])
    assert shape_of(changes, additive=True, confidence_level=0.95)["n_half"] == 1.5
    assert shape_of(changes, additive=False, confidence_level=0.95)["n_half"] == 2
    rose = shape_of(-changes, additive=True, confidence_level=0.95)
    assert np.isnan(rose["n_half"])


def test_the_interval_is_over_seeds():
    rng = np.random.default_rng(0)
    row = shape_of(np.abs(rng.normal(size=(4, 500))), additive=False, confidence_level=0.95)
    assert row["ci_low"] < row["n_half"] < row["ci_high"]
    one = shape_of(np.abs(rng.normal(size=(1, 500))), additive=False, confidence_level=0.95)
    assert np.isnan(one["ci_low"])


def test_the_tail_of_the_mean_over_seeds_is_described():
    rng = np.random.default_rng(0)
    changes = np.sign(rng.normal(size=4000)) * (rng.pareto(1.5, 4000) + 1)
    row = shape_of(changes + 1e-3 * rng.normal(size=(3, 4000)), additive=False, confidence_level=0.95)
    assert row["tail"] == "lognormal or power_law"
    assert row["n_tail"] == 1000
    assert row["pvalue_normal"] < 0.001
