"""Results over behaviors: mean agreement and specificity."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from isaerft import stats
from isaerft.errors import InputError
from isaerft.stats import overall_agreement, overall_specificity


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def world(rng, n=200, n_behaviors=6, shift=0.0, shared=False):
    expected = rng.random((n_behaviors, n)) < 0.2
    if shared:
        expected[:] = expected[0]
    return rng.normal(size=(n_behaviors, n)) + shift * expected, expected


def test_the_estimate_is_the_mean_and_its_interval_that_of_a_t_test(rng):
    values = rng.random(6)
    result = overall_agreement(values)
    assert result.statistic == pytest.approx(values.mean())
    interval = ttest_1samp(values, 0).confidence_interval(0.95)
    assert result.confidence_interval == pytest.approx((interval.low, interval.high))
    without = [np.mean(np.delete(values, i)) for i in range(len(values))]
    assert result.leave_one_out == pytest.approx((min(without), max(without)))
    assert result.n_families == len(values)
    assert np.isnan(result.pvalue)


def test_variants_of_one_behavior_count_once():
    result = overall_agreement([0.6, 0.8, 0.5], families=[0, 0, 1])
    assert result.per_family.tolist() == pytest.approx([0.7, 0.5])
    assert result.statistic == pytest.approx(0.6)


def test_one_behavior_has_an_estimate_but_no_interval_over_behaviors():
    result = overall_agreement([0.7])
    assert result.statistic == 0.7
    assert np.isnan([*result.confidence_interval, *result.leave_one_out]).all()


def test_no_behavior_is_refused():
    with pytest.raises(InputError, match="no behavior"):
        overall_agreement([])


def test_specificity_is_diagonal_less_rest_and_exact(rng):
    matrix = rng.normal(0.5, 0.02, size=(5, 5)) + 0.3 * np.eye(5)
    result = overall_specificity(matrix)
    off = matrix[~np.eye(5, dtype=bool)]
    assert result.statistic == pytest.approx(np.diagonal(matrix).mean() - off.mean())
    assert result.per_family.mean() == pytest.approx(result.statistic)
    assert result.pvalue == pytest.approx(1 / 120)
    low, high = result.leave_one_out
    assert low < result.statistic < high
    assert result.confidence_interval.low < result.statistic < result.confidence_interval.high


def test_what_any_training_and_any_explanation_share_is_not_specific(rng):
    rows, columns = rng.normal(size=(2, 6))
    result = overall_specificity(rows[:, None] + columns[None, :] + rng.normal(0, 1e-3, (6, 6)))
    assert abs(result.statistic) < 2e-3
    assert result.pvalue > 0.01


def test_leaving_one_of_two_behaviors_out_leaves_nothing_to_be_specific_to():
    result = overall_specificity([[0.9, 0.5], [0.5, 0.8]])
    assert np.isnan(result.leave_one_out).all()
    assert result.pvalue == pytest.approx(0.5)


def test_the_interval_of_specificity_ends_where_no_difference_can_be_larger():
    matrix = np.array([[0.9, 0.1], [0.8, 0.2]])
    free = stats.overall_specificity(matrix).confidence_interval
    assert free.low < -1 < 1 < free.high
    kept = stats.overall_specificity(matrix, bounds=(0, 1)).confidence_interval
    assert (kept.low, kept.high) == (-1, 1)
