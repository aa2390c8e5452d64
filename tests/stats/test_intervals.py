import math

import numpy as np
import pytest
from scipy import stats as sp

from isaerft.stats import agreement_test, auroc, spearman, stratified_auroc
from isaerft.stats.intervals import auroc_influence, auroc_interval, cluster_sd, spearman_influence, spearman_interval


def jackknife(function, *arrays):
    n = len(arrays[0])
    left_out = np.array([function(*(np.delete(array, i) for array in arrays)) for i in range(n)])
    return (n - 1) / n * (left_out.mean() - left_out)


@pytest.mark.parametrize("levels", [10**6, 7])
def test_influence_is_what_leaving_a_latent_out_does(levels):
    rng = np.random.default_rng(0)
    n = 600
    graded = rng.integers(0, 6, n).astype(float)
    change = np.floor((rng.normal(size=n) + 0.4 * graded) * levels / 8)
    expected, strata = graded > 3, rng.integers(0, 3, n)
    for given, wanted in (
        (spearman_influence(change, graded), jackknife(spearman, change, graded)),
        (auroc_influence(change, expected), jackknife(auroc, change, expected)),
        (auroc_influence(change, expected, strata), jackknife(stratified_auroc, change, expected, strata)),
    ):
        assert abs(given.sum()) < 1e-10
        assert np.abs(given - wanted).max() < 0.03 * np.abs(wanted).max()


def test_standard_error_against_delong_counted_pair_by_pair():
    rng = np.random.default_rng(1)
    change, expected = rng.integers(0, 20, 50).astype(float), np.arange(50) < 20
    change[expected] += 4
    wins = (change[expected][:, None] > change[~expected]) + 0.5 * (change[expected][:, None] == change[~expected])
    delong = wins.mean(axis=1).var() / 20 + wins.mean(axis=0).var() / 30
    sd = cluster_sd(auroc_influence(change, expected), np.arange(50), 10**9)
    assert sd**2 == pytest.approx(delong, rel=1e-6)


def coverage(make, interval_of, truth, n_worlds=800):
    inside = 0
    for seed in range(n_worlds):
        low, high = interval_of(*make(np.random.default_rng(seed)))
        inside += low <= truth <= high
    return inside / n_worlds


@pytest.mark.parametrize(("n_expected", "n", "shift"), [(30, 150, 0.7), (12, 60, 0.0), (200, 400, 1.5)])
def test_auroc_interval_covers(n_expected, n, shift):
    def make(rng):
        expected = np.arange(n) < n_expected
        return rng.normal(size=n) + shift * expected, expected

    def interval_of(change, expected):
        return auroc_interval(float(auroc(change, expected)), change, expected, np.arange(n), 0.95)

    assert 0.925 < coverage(make, interval_of, sp.norm.cdf(shift / math.sqrt(2))) < 0.985


def test_auroc_interval_covers_with_duplicated_latents_only_by_clusters():
    clusters = np.repeat(np.arange(60), 4)

    def make(rng):
        expected = np.arange(60) < 25
        return (rng.normal(size=60) + 0.8 * expected)[clusters], expected[clusters]

    def by(groups):
        return lambda change, expected: auroc_interval(float(auroc(change, expected)), change, expected, groups, 0.95)

    truth = sp.norm.cdf(0.8 / math.sqrt(2))
    assert 0.925 < coverage(make, by(clusters), truth) < 0.985
    assert coverage(make, by(np.arange(240)), truth) < 0.8


def test_spearman_interval_covers():
    rho = 0.5

    def make(rng):
        x, y = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], size=120).T
        return x, y

    def interval_of(x, y):
        return spearman_interval(float(spearman(x, y)), x, y, np.arange(120), 0.95)

    assert 0.925 < coverage(make, interval_of, 6 / math.pi * math.asin(rho / 2)) < 0.98


def test_a_perfect_auroc_still_has_an_interval():
    low, high = agreement_test(np.arange(40.0), np.arange(40) >= 30).confidence_interval
    assert high == 1
    assert 0.8 < low < 1
    low, high = agreement_test(-np.arange(40.0), np.arange(40) >= 30).confidence_interval
    assert low == 0
    assert 0 < high < 0.2


def test_precision_has_a_bootstrap_interval_and_enrichment_none():
    rng = np.random.default_rng(0)
    expected = rng.random(200) < 0.2
    change = rng.normal(size=200) + expected
    precision = agreement_test(change, expected, statistic="precision_at_k", n_resamples=49, rng=0)
    assert precision.confidence_interval.low < precision.statistic < precision.confidence_interval.high
    enrichment = agreement_test(change, expected, statistic="enrichment", n_resamples=49, rng=0)
    assert np.isnan(enrichment.confidence_interval).all()


def test_one_expected_latent_leaves_the_interval_undefined():
    result = agreement_test(np.array([1.0, 2, 3, 0.5, 4]), np.array([0, 0, 1, 0, 0], bool))
    assert np.isnan(result.confidence_interval).all()
