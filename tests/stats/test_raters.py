"""Agreement of judges, and agreement corrected for their errors."""

import math

import numpy as np
import pytest
from scipy import stats as sp
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score, matthews_corrcoef, recall_score

from isaerft.errors import InputError
from isaerft.stats import (
    ConfidenceInterval,
    Estimate,
    agreement_of_judges,
    attenuation,
    auroc,
    auroc_interval,
    corrected_auroc,
    corrected_correlation,
    error_rates,
    rank_agreement,
)
from isaerft.stats.intervals import UNDEFINED
from isaerft.stats.raters import ErrorRates


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def two_judges(rng, n_clusters, size, agree=0.8, share=0.2):
    """Return labels of two judges that err independently of each other, alike within a cluster, and the clusters."""
    clusters = np.repeat(np.arange(n_clusters), size)
    truth = rng.random(n_clusters) < share
    first, second = (np.where(rng.random(n_clusters) < agree, truth, rng.random(n_clusters) < share) for _ in "ab")
    return first[clusters], second[clusters], clusters


def test_estimates_are_those_of_scikit_learn(rng):
    for _ in range(20):
        first, second, clusters = two_judges(rng, 60, 3, agree=rng.random())
        found = agreement_of_judges(first, second, clusters, n_resamples=9)
        assert found["kappa"].estimate == pytest.approx(cohen_kappa_score(second, first))
        assert found["mcc"].estimate == pytest.approx(matthews_corrcoef(second, first))
        assert found["true_positive_rate"].estimate == pytest.approx(recall_score(second, first))
        assert found["true_negative_rate"].estimate == pytest.approx(recall_score(~second, ~first))


def test_the_same_judge_twice_agrees_wholly_and_its_opposite_not_at_all(rng):
    first, _, clusters = two_judges(rng, 50, 2)
    same, opposite = agreement_of_judges(first, first, clusters), agreement_of_judges(first, ~first, clusters)
    assert all(part.estimate == 1 and part.confidence_interval == (1, 1) for part in same.values())
    assert opposite["mcc"].estimate == pytest.approx(-1)
    assert opposite["true_positive_rate"].estimate == 0


def test_judges_that_know_nothing_of_each_other_agree_as_chance_does(rng):
    kappas = [
        agreement_of_judges(rng.random(500) < 0.3, rng.random(500) < 0.1, np.arange(500), n_resamples=9)["kappa"]
        for _ in range(200)
    ]
    assert abs(np.mean([kappa.estimate for kappa in kappas])) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 8])
def test_intervals_cover_the_true_value_whatever_the_size_of_clusters(rng, size):
    """The explanation is the unit: eight latents that share one must not make the interval eight times as sure."""
    everyone = agreement_of_judges(*two_judges(np.random.default_rng(9), 200_000, 1), n_resamples=1)
    runs = 150
    covered = dict.fromkeys(everyone, 0)
    for _ in range(runs):
        found = agreement_of_judges(*two_judges(rng, 150, size), n_resamples=299, rng=rng)
        for name, part in found.items():
            low, high = part.confidence_interval
            covered[name] += low <= everyone[name].estimate <= high
    assert all(0.88 * runs <= count <= runs for count in covered.values()), covered


def test_rank_agreement_is_spearmans_and_its_interval_covers_by_clusters(rng):
    def drawn(n_clusters, size):
        clusters = np.repeat(np.arange(n_clusters), size)
        truth = rng.normal(size=n_clusters)
        return (*((truth + rng.normal(size=n_clusters))[clusters].round(1) for _ in "ab"), clusters)

    first, second, clusters = drawn(100, 3)
    assert rank_agreement(first, second, clusters).estimate == pytest.approx(spearmanr(first, second).statistic)
    true_value = 6 / math.pi * math.asin(0.5 / 2)
    inside = 0
    for _ in range(200):
        low, high = rank_agreement(*drawn(80, 6)).confidence_interval
        inside += low <= true_value <= high
    assert inside > 0.88 * 200


def test_what_is_undefined_is_not_a_number(rng):
    nothing, some = np.zeros(40, bool), np.arange(40) < 9
    found = agreement_of_judges(some, nothing, np.arange(40))
    assert math.isnan(found["mcc"].estimate)
    assert math.isnan(found["true_positive_rate"].estimate)
    assert found["true_negative_rate"].estimate == 31 / 40
    assert math.isnan(agreement_of_judges(nothing, nothing, np.arange(40))["kappa"].estimate)
    one_explanation = agreement_of_judges(some, some, np.zeros(40))
    assert all(math.isnan(part.confidence_interval.low) for part in one_explanation.values())
    assert math.isnan(rank_agreement(np.ones(5), np.arange(5.0), np.arange(5)).estimate)


def test_a_seed_gives_the_same_interval_again(rng):
    labels = two_judges(rng, 50, 2)
    assert agreement_of_judges(*labels, rng=3) == agreement_of_judges(*labels, rng=3)
    assert agreement_of_judges(*labels, rng=3) != agreement_of_judges(*labels, rng=4)


@pytest.mark.parametrize(
    ("first", "second", "clusters"),
    [([], [], []), ([1, 0], [1], [0, 1]), ([1, 0], [1, 0], [0]), ([0.5, 0], [1, 0], [0, 1]), (1, 1, 1)],
)
def test_judgements_that_do_not_belong_together_are_refused(first, second, clusters):
    with pytest.raises(InputError):
        agreement_of_judges(first, second, clusters)


N, RUNS = 4000, 60


def known(true_positive_rate, true_negative_rate):
    """Return rates that are known exactly."""
    return ErrorRates(true_positive_rate, true_negative_rate, np.tile([true_positive_rate, true_negative_rate], (9, 1)))


def mislabeled(truth, positive_rate, negative_rate, rng):
    luck = rng.random(truth.size)
    return np.where(truth, luck < positive_rate, luck >= negative_rate)


@pytest.mark.parametrize(("positive_rate", "negative_rate"), [(0.9, 0.98), (0.5, 0.95), (0.7, 0.7)])
@pytest.mark.parametrize("share", [0.05, 0.4])
def test_the_auroc_against_true_labels_is_found_from_the_one_against_wrong_ones(positive_rate, negative_rate, share):
    rng = np.random.default_rng(1)
    raw, corrected, true = [], [], []
    for _ in range(RUNS):
        truth = rng.random(N) < share
        change = rng.normal(size=N) + truth
        labels = mislabeled(truth, positive_rate, negative_rate, rng)
        raw.append(float(auroc(change, labels)))
        corrected.append(corrected_auroc(raw[-1], known(positive_rate, negative_rate), labels.mean()).estimate)
        true.append(float(auroc(change, truth)))
    error = np.nanmean(corrected) - np.mean(true)
    assert np.isfinite(corrected).mean() > 0.9
    assert abs(error) < 4 * np.nanstd(corrected) / math.sqrt(RUNS) + 0.002
    assert abs(np.mean(raw) - np.mean(true)) > 2 * abs(error)


def test_attenuation_is_by_how_much_more_often_an_expected_latent_truly_is():
    rng = np.random.default_rng(2)
    truth = rng.random(400_000) < 0.1
    labels = mislabeled(truth, 0.6, 0.95, rng)
    found = attenuation(0.6, 0.95, labels.mean())
    assert found == pytest.approx(truth[labels].mean() - truth[~labels].mean(), abs=0.01)


def test_a_judge_without_error_needs_no_correction():
    assert attenuation(1, 1, 0.2) == pytest.approx(1)
    assert corrected_auroc(0.7, known(1, 1), 0.2).estimate == pytest.approx(0.7)
    assert corrected_correlation(0.3, Estimate(1.0, UNDEFINED)).estimate == 0.3


@pytest.mark.parametrize(
    ("positive_rate", "negative_rate", "share"),
    [(0.5, 0.5, 0.2), (0.2, 0.7, 0.2), (0.9, 0.9, 0.05), (0.9, 0.9, 0.95), (0.9, 0.9, 0.0), (math.nan, 0.9, 0.2)],
)
def test_labels_that_such_a_judge_cannot_have_given_are_not_corrected(positive_rate, negative_rate, share):
    assert math.isnan(attenuation(positive_rate, negative_rate, share))
    assert math.isnan(corrected_auroc(0.6, known(positive_rate, negative_rate), share).estimate)


def test_a_result_that_is_no_auroc_or_no_correlation_is_undefined():
    assert math.isnan(corrected_auroc(0.9, known(0.6, 0.9), 0.2).estimate)
    for with_reference in (0.5, -0.9, math.nan):
        assert math.isnan(corrected_correlation(0.6, Estimate(with_reference, UNDEFINED)).estimate)


def test_a_correlation_with_a_noisy_judge_is_that_with_the_truth_times_the_judges_own():
    rng = np.random.default_rng(3)
    truth = rng.normal(size=300_000)
    change, judged = truth + rng.normal(size=truth.size), truth + 2 * rng.normal(size=truth.size)
    with_reference = Estimate(np.corrcoef(judged, truth)[0, 1], UNDEFINED)
    found = corrected_correlation(np.corrcoef(change, judged)[0, 1], with_reference).estimate
    assert found == pytest.approx(np.corrcoef(change, truth)[0, 1], abs=0.01)


def test_with_rates_known_exactly_the_interval_is_corrected_as_the_estimate_is_and_cut_at_the_bounds():
    rates = known(0.9, 0.9)
    found = corrected_auroc(0.7, rates, 0.5, ConfidenceInterval(0.6, 0.95))
    assert found.confidence_interval.low == pytest.approx(corrected_auroc(0.6, rates, 0.5).estimate)
    assert found.confidence_interval.high == 1
    undefined = corrected_auroc(0.99, rates, 0.5, ConfidenceInterval(0.6, 1.0))
    assert math.isnan(undefined.confidence_interval.low)


@pytest.mark.parametrize("estimate", [0.35, 0.5, 0.6])
def test_rates_that_are_estimates_widen_the_interval_on_both_sides(estimate):
    rates, interval = known(0.8, 0.95), ConfidenceInterval(estimate - 0.05, estimate + 0.05)
    spread = np.random.default_rng(0).normal(0, [0.05, 0.02], size=(499, 2))
    sure = corrected_auroc(estimate, rates, 0.2, interval).confidence_interval
    unsure = corrected_auroc(estimate, rates._replace(draws=rates.draws[:1] + spread), 0.2, interval)
    assert unsure.confidence_interval.low < sure.low < sure.high < unsure.confidence_interval.high
    mirrored = corrected_auroc(
        1 - estimate,
        rates._replace(draws=rates.draws[:1] + spread),
        0.2,
        ConfidenceInterval(1 - interval.high, 1 - interval.low),
    )
    assert mirrored.confidence_interval.low == pytest.approx(1 - unsure.confidence_interval.high)


def judged(n_explanations, rng, alike=0.0):
    """Return a judge's and the truth's labels of 8 behaviors, and the explanation, whose errors may go together."""
    shape = (n_explanations, 8)
    truth = rng.random(shape) < 0.1
    luck = np.where(rng.random(shape) < alike, rng.random((n_explanations, 1)), rng.random(shape))
    judge = np.where(truth, luck < 0.6, luck < 0.03)
    return judge.ravel(), truth.ravel(), np.repeat(np.arange(n_explanations), 8)


@pytest.mark.slow
@pytest.mark.parametrize("n_explanations", [60, 140])
@pytest.mark.parametrize("alike", [0.0, 0.5])
def test_the_corrected_interval_covers_though_the_rates_are_from_few_explanations(n_explanations, alike):
    n, held = 800, []
    for world in range(300):
        rng = np.random.default_rng([world, n_explanations])
        truth = np.arange(n) < 80
        change = rng.normal(size=n) + sp.norm.ppf(0.8) * math.sqrt(2) * truth
        labels = mislabeled(truth, 0.6, 0.97, rng)
        estimate = float(auroc(change, labels))
        interval = auroc_interval(estimate, change, labels, np.arange(n), 0.95)
        rates = error_rates(*judged(n_explanations, rng, alike), n_resamples=499, rng=rng)
        found = corrected_auroc(estimate, rates, labels.mean(), interval).confidence_interval
        if math.isfinite(found.low):
            held.append(found.low <= 0.8 <= found.high)
    assert len(held) > 200
    assert 0.92 < np.mean(held) < 0.98  # 0.95, and 0.014 of Monte Carlo error


def test_errors_too_rare_to_know_how_rare_leave_the_corrected_interval_empty():
    judge, truth, clusters = judged(60, np.random.default_rng(0))
    judge &= truth
    judge[np.flatnonzero(~truth & (clusters < 4))] = True
    rates = error_rates(judge, truth, clusters, n_resamples=99)
    assert rates.true_negative_rate < 1
    found = corrected_auroc(0.7, rates, 0.1, ConfidenceInterval(0.6, 0.8))
    assert math.isnan(found.confidence_interval.low)
