"""Corrected agreement: what the true labels would have shown, or nothing."""

import math

import numpy as np
import pytest

from isaerft.stats import ConfidenceInterval, auroc, corrected_auroc, corrected_correlation, predictive_values

N, RUNS = 4000, 60


def mislabelled(truth, sensitivity, specificity, rng):
    luck = rng.random(truth.size)
    return np.where(truth, luck < sensitivity, luck >= specificity)


@pytest.mark.parametrize(("sensitivity", "specificity"), [(0.9, 0.98), (0.5, 0.95), (0.7, 0.7)])
@pytest.mark.parametrize("share", [0.05, 0.4])
def test_the_auroc_against_true_labels_is_found_from_the_one_against_wrong_ones(sensitivity, specificity, share):
    rng = np.random.default_rng(1)
    raw, corrected, true = [], [], []
    for _ in range(RUNS):
        truth = rng.random(N) < share
        change = rng.normal(size=N) + truth
        labels = mislabelled(truth, sensitivity, specificity, rng)
        raw.append(float(auroc(change, labels)))
        corrected.append(corrected_auroc(raw[-1], predictive_values(sensitivity, specificity, labels.mean())).estimate)
        true.append(float(auroc(change, truth)))
    error = np.nanmean(corrected) - np.mean(true)
    assert np.isfinite(corrected).mean() > 0.9
    assert abs(error) < 4 * np.nanstd(corrected) / math.sqrt(RUNS) + 0.002
    assert abs(np.mean(raw) - np.mean(true)) > 2 * abs(error)


def test_predictive_values_are_the_shares_of_right_labels():
    rng = np.random.default_rng(2)
    truth = rng.random(400_000) < 0.1
    labels = mislabelled(truth, 0.6, 0.95, rng)
    found = predictive_values(0.6, 0.95, labels.mean())
    assert found.positive == pytest.approx(truth[labels].mean(), abs=0.01)
    assert found.negative == pytest.approx((~truth[~labels]).mean(), abs=0.01)


def test_a_judge_without_error_needs_no_correction():
    assert predictive_values(1, 1, 0.2) == pytest.approx((1, 1))
    assert corrected_auroc(0.7, predictive_values(1, 1, 0.2)).estimate == pytest.approx(0.7)
    assert corrected_correlation(0.3, 1.0).estimate == 0.3


@pytest.mark.parametrize(
    ("sensitivity", "specificity", "share"),
    [(0.5, 0.5, 0.2), (0.2, 0.7, 0.2), (0.9, 0.9, 0.05), (0.9, 0.9, 0.95), (0.9, 0.9, 0.0), (math.nan, 0.9, 0.2)],
)
def test_labels_that_such_a_judge_cannot_have_given_are_not_corrected(sensitivity, specificity, share):
    values = predictive_values(sensitivity, specificity, share)
    assert math.isnan(values.positive)
    assert math.isnan(corrected_auroc(0.6, values).estimate)


def test_a_result_that_is_no_auroc_or_no_correlation_is_undefined():
    assert math.isnan(corrected_auroc(0.9, predictive_values(0.6, 0.9, 0.2)).estimate)
    assert math.isnan(corrected_correlation(0.6, 0.5).estimate)
    assert math.isnan(corrected_correlation(0.6, -0.9).estimate)
    assert math.isnan(corrected_correlation(0.6, math.nan).estimate)


def test_a_correlation_with_a_noisy_judge_is_that_with_the_truth_times_the_judges_own():
    rng = np.random.default_rng(3)
    truth = rng.normal(size=300_000)
    change, judged = truth + rng.normal(size=truth.size), truth + 2 * rng.normal(size=truth.size)
    known = np.corrcoef(judged, truth)[0, 1]
    found = corrected_correlation(np.corrcoef(change, judged)[0, 1], known).estimate
    assert found == pytest.approx(np.corrcoef(change, truth)[0, 1], abs=0.01)


def test_the_interval_is_corrected_as_the_estimate_is_and_cut_at_the_bounds():
    values = predictive_values(0.9, 0.9, 0.5)
    found = corrected_auroc(0.7, values, ConfidenceInterval(0.6, 0.95))
    assert found.confidence_interval.low == pytest.approx(corrected_auroc(0.6, values).estimate)
    assert found.confidence_interval.high == 1
    assert found.confidence_interval.low < found.estimate
    undefined = corrected_auroc(0.99, values, ConfidenceInterval(0.6, 1.0))
    assert math.isnan(undefined.confidence_interval.low)
