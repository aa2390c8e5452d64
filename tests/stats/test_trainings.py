"""The comparison of a training with other trainings."""

import numpy as np
import pytest
from scipy.stats import t as student

from isaerft.errors import InputError
from isaerft.stats import against_others, others_of, placebo_pvalue


def test_the_test_is_the_t_test_of_one_observation_against_the_others():
    others = np.array([0.52, 0.45, 0.61, 0.38, 0.50])
    result = against_others(0.8, others)
    t = (0.8 - others.mean()) / (others.std(ddof=1) * np.sqrt(1 + 1 / 5))
    assert result.pvalue == pytest.approx(student.sf(t, 4))
    assert (result.null_mean, result.null_sd, result.n_others) == (others.mean(), others.std(ddof=1), 5)


@pytest.mark.slow
def test_level_and_coverage_hold_whatever_chance_is():
    rng = np.random.default_rng(0)
    values = 0.62 + 0.1 * rng.normal(size=(4000, 8))
    results = [against_others(row[0], row[1:]) for row in values]
    assert np.mean([result.pvalue <= 0.05 for result in results]) == pytest.approx(0.05, abs=0.011)
    assert np.mean([result.pvalue <= 0.01 for result in results]) == pytest.approx(0.01, abs=0.005)
    covered = [result.confidence_interval.low <= 0.62 <= result.confidence_interval.high for result in results]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.011)


@pytest.mark.slow
def test_power_at_the_minimum_detectable_effect_is_as_announced():
    rng = np.random.default_rng(2)
    unit = against_others(0.0, [-1.0, 1.0, 0.0, 1.0, -1.0]).minimum_detectable_effect()
    sd = np.std([-1.0, 1.0, 0.0, 1.0, -1.0], ddof=1)
    found = [against_others(unit / sd + rng.normal(), rng.normal(size=5)).pvalue <= 0.05 for _ in range(4000)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.02)


def test_too_few_others_have_no_pvalue():
    result = against_others(0.9, [0.5, 0.4, 0.6])
    assert np.isnan([result.pvalue, *result.confidence_interval, result.minimum_detectable_effect()]).all()
    assert result.n_others == 3


def test_interval_ends_at_the_bounds_of_the_statistic():
    result = against_others(0.95, [0.3, 0.5, 0.7, 0.4, 0.6], bounds=(0.0, 1.0))
    assert result.confidence_interval.high == 1.0


def test_equal_others_leave_no_doubt():
    assert against_others(0.6, [0.5] * 5).pvalue == 0.0
    assert against_others(0.5, [0.5] * 5).pvalue == 0.5


def test_variants_of_one_behavior_are_one_training_and_ones_own_variants_none():
    column = np.array([0.9, 0.8, 0.5, 0.7, 0.4, np.nan])
    families = np.array([0, 0, 1, 1, 2, 3])
    assert others_of(column, 0, families).tolist() == pytest.approx([0.6, 0.4])
    assert others_of(column, 0).tolist() == [0.8, 0.5, 0.7, 0.4]


def test_placebo_pvalue_is_the_rank_with_ties_against_it():
    assert placebo_pvalue(0.8, [0.5] * 18 + [0.8]) == 2 / 20
    assert placebo_pvalue(0.9, [0.5] * 19) == 1 / 20
    assert np.isnan(placebo_pvalue(0.9, []))


def test_nan_is_refused():
    with pytest.raises(InputError):
        against_others(0.5, [0.5, np.nan, 0.4, 0.3])
