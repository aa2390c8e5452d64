"""Results over behaviors: mean agreement and specificity."""

import math

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


N, BEHAVIORS = 300, 6


def test_it_is_the_repeatability_coefficient_of_the_jackknife():
    estimates = [0.70, 0.72, 0.71]
    single = 3 * np.mean(estimates) - 2 * np.array(estimates)  # what each seed alone would be, of a linear statistic
    expected = 4.302653 * math.sqrt(2) * single.std(ddof=1) / math.sqrt(3)
    assert stats.reliable_difference(estimates) == pytest.approx(expected, rel=1e-6)
    assert math.isnan(stats.reliable_difference([0.7]))
    assert math.isnan(stats.reliable_difference([0.7, math.nan, 0.7]))
    assert stats.reliable_difference(estimates, 0.5) < stats.reliable_difference(estimates)


def study(rng, expected, truth, n_seeds):
    """Return agreement and specificity of a study with new seeds, and without each seed in turn."""
    changes = truth[:, None] + rng.normal(size=(BEHAVIORS, n_seeds, N))

    def estimates(part):
        ranks = np.array([stats.mean_rank(one) for one in part])
        matrix = stats.specificity_matrix(ranks, expected)
        return float(np.diagonal(matrix).mean()), stats.specificity_estimate(matrix, np.arange(BEHAVIORS))

    left_out = np.array([estimates(np.delete(changes, seed, axis=1)) for seed in range(n_seeds)])
    return np.array(estimates(changes)), left_out


def test_the_best_of_many_must_be_further_away():
    rng = np.random.default_rng(0)
    n_results, n_seeds, n_worlds = 6, 4, 4000
    seeds = rng.normal(size=(n_worlds, n_results, n_seeds))
    values, sd = seeds.mean(axis=2), seeds.std(axis=2, ddof=1) / math.sqrt(n_seeds)
    plain = 3.182446 * math.sqrt(2) * np.sqrt((sd**2).mean(axis=1))
    beyond = np.ptp(values, axis=1) > plain * stats.factor_among(n_results, n_seeds)
    assert beyond.mean() < 0.05
    assert (np.ptp(values, axis=1) > plain).mean() > beyond.mean()
    assert stats.factor_among(2, 4) == 1 < stats.factor_among(3, 4) < stats.factor_among(6, 4)


@pytest.mark.slow
@pytest.mark.parametrize("n_seeds", [2, 3, 5])
def test_equal_results_differ_by_more_in_five_percent_of_cases(n_seeds):
    rng = np.random.default_rng(n_seeds)
    n_worlds, beyond = 600, np.zeros(2)
    for _ in range(n_worlds):
        expected = rng.random((BEHAVIORS, N)) < 0.1
        truth = rng.normal(size=(BEHAVIORS, N)) + expected
        one, left_out = study(rng, expected, truth, n_seeds)
        other, _ = study(rng, expected, truth, n_seeds)
        limits = [stats.reliable_difference(left_out[:, quantity]) for quantity in range(2)]
        beyond += np.abs(one - other) > limits
    # 600 worlds at 5 %: 30 of them, 3 standard deviations are 16.
    assert (np.abs(beyond - 30) <= 16).all(), beyond


def test_the_interval_of_specificity_ends_where_no_difference_can_be_larger():
    matrix = np.array([[0.9, 0.1], [0.8, 0.2]])
    free = stats.overall_specificity(matrix).confidence_interval
    assert free.low < -1 < 1 < free.high
    kept = stats.overall_specificity(matrix, bounds=(0, 1)).confidence_interval
    assert (kept.low, kept.high) == (-1, 1)
