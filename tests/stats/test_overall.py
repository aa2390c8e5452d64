"""Overall results: against enumeration, by simulation, and where behaviors depend on each other."""

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from isaerft.errors import InputError
from isaerft.stats import auroc, overall_agreement, overall_specificity


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def world(rng, n=200, n_behaviors=6, shift=0.0, shared=False):
    expected = rng.random((n_behaviors, n)) < 0.2
    if shared:
        expected[:] = expected[0]
    return rng.normal(size=(n_behaviors, n)) + shift * expected, expected


def test_the_estimate_is_the_mean_and_its_interval_that_of_a_t_test(rng):
    changes, expected = world(rng, shift=0.5)
    values = [float(auroc(change, label)) for change, label in zip(changes, expected, strict=True)]
    result = overall_agreement(list(zip(changes, expected, strict=True)), n_resamples=99, rng=0)
    assert result.statistic == pytest.approx(np.mean(values))
    interval = ttest_1samp(values, 0).confidence_interval(0.95)
    assert result.confidence_interval == pytest.approx((interval.low, interval.high))
    without = [np.mean(np.delete(values, i)) for i in range(len(values))]
    assert result.leave_one_out == pytest.approx((min(without), max(without)))
    assert result.n_behaviors == len(values)


def test_the_null_of_the_mean_is_that_of_one_exchange_for_all_behaviors():
    changes = np.array([[1.0, 4, 2, 5, 3], [2.0, 1, 3, 5, 4]])
    expected = np.array([[0, 1, 0, 1, 0], [0, 1, 0, 1, 0]], bool)
    every = [
        np.mean([float(auroc(change, label[list(order)])) for change, label in zip(changes, expected, strict=True)])
        for order in permutations(range(5))
    ]
    observed = np.mean([float(auroc(change, label)) for change, label in zip(changes, expected, strict=True)])
    exact = np.mean(np.array(every) >= observed - 1e-12)
    result = overall_agreement(list(zip(changes, expected, strict=True)), n_resamples=20_000, rng=0)
    assert result.pvalue == pytest.approx(exact, abs=0.015)


def test_equal_changes_and_expectations_count_once(rng):
    changes, expected = world(rng, shared=True)
    changes[:] = changes[0]
    one = overall_agreement([(changes[0], expected[0])], n_resamples=4999, rng=0)
    all_equal = overall_agreement(list(zip(changes, expected, strict=True)), n_resamples=4999, rng=0)
    assert all_equal.pvalue == pytest.approx(one.pvalue, abs=0.03)  # not squared, or to the sixth power


def test_false_positives_are_as_announced_where_behaviors_share_their_expectations(rng):
    pvalues = []
    for _ in range(400):
        changes, expected = world(rng, n=80, n_behaviors=3, shared=True)
        changes += rng.normal(size=80)  # and their changes
        pvalues.append(overall_agreement(list(zip(changes, expected, strict=True)), n_resamples=99, rng=rng).pvalue)
    assert 0.02 < np.mean(np.array(pvalues) <= 0.05) < 0.085  # 0.05 +- 3.2 standard errors


def test_one_behavior_has_an_estimate_but_no_interval_over_behaviors(rng):
    changes, expected = world(rng, n_behaviors=1)
    result = overall_agreement([(changes[0], expected[0])], n_resamples=99, rng=0)
    assert np.isnan([*result.confidence_interval, *result.leave_one_out]).all()


def test_no_behavior_and_statistics_that_are_not_linear_are_refused(rng):
    changes, expected = world(rng, n_behaviors=1)
    with pytest.raises(InputError, match="no behavior"):
        overall_agreement([])
    with pytest.raises(InputError, match="linear"):
        overall_agreement([(changes[0], expected[0])], statistic="enrichment")


def test_specificity_is_diagonal_less_rest_and_exact(rng):
    matrix = rng.normal(0.5, 0.02, size=(5, 5)) + 0.3 * np.eye(5)
    result = overall_specificity(matrix)
    off = matrix[~np.eye(5, dtype=bool)]
    assert result.statistic == pytest.approx(np.diagonal(matrix).mean() - off.mean())
    assert result.per_behavior.mean() == pytest.approx(result.statistic)
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
