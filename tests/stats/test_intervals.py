"""Confidence intervals: coverage, and what they are when undefined."""

import math

import numpy as np
import pytest
from scipy import stats as sp

from isaerft.errors import InputError
from isaerft.stats import (
    agreement_test,
    auroc,
    compare_means,
    mean_interval,
    median_of_draws,
    paired_means,
    remaining_share,
    spearman,
    stratified_auroc,
)
from isaerft.stats.intervals import (
    auroc_influence,
    auroc_interval,
    cluster_sd,
    effective_units,
    spearman_influence,
    spearman_interval,
)


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


@pytest.mark.slow
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


LARGE_CLUSTERS = np.concatenate([np.repeat(np.arange(6), [64, 40, 25, 15, 10, 6]), np.arange(6, 446)])


def in_large_clusters(rng):
    """600 latents, of which 6 clusters hold 160; the 40 that an explanation names are often those of one cluster."""
    change, said = (
        math.sqrt(0.8) * rng.normal(size=446)[LARGE_CLUSTERS] + math.sqrt(0.2) * rng.normal(size=600) for _ in "ab"
    )
    expected = np.arange(600) == -1
    expected[np.argsort(-said)[:40]] = True
    return change + expected, expected


def sparse(rng, n_expected, n_changed):
    """600 latents, of which all but the most changed are set to 0."""
    expected = np.arange(600) < n_expected
    change = rng.normal(size=600) + expected
    change[np.argsort(-np.abs(change))[n_changed:]] = 0
    return change, expected


def interval_or_none(change, expected, clusters=None):
    clusters = np.arange(change.size) if clusters is None else clusters
    return auroc_interval(float(auroc(change, expected)), change, expected, clusters, 0.95)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "clusters"),
    [
        (in_large_clusters, LARGE_CLUSTERS),
        (lambda rng: sparse(rng, 60, 30), None),
        (lambda rng: sparse(rng, 15, 120), None),
        (lambda rng: sparse(rng, 3, 600), None),
    ],
    ids=["large clusters", "5 % changed", "20 % changed", "3 expected"],
)
def test_auroc_interval_covers_where_few_units_carry_it(make, clusters):
    truth = np.mean([float(auroc(*make(np.random.default_rng(10**6 + seed)))) for seed in range(2000)])
    shown = []
    for seed in range(600):
        low, high = interval_or_none(*make(np.random.default_rng(seed)), clusters)
        if not math.isnan(low):
            shown.append(low <= truth <= high)
    assert len(shown) > 500
    assert 0.925 < np.mean(shown) < 0.98  # 0.95, and 0.009 of Monte Carlo error


@pytest.mark.parametrize(("n_expected", "n_changed"), [(2, 600), (10, 30), (25, 30)])
def test_too_few_units_that_would_move_by_chance_leave_the_interval_empty(n_expected, n_changed):
    change, expected = sparse(np.random.default_rng(0), n_expected, n_changed)
    assert math.isnan(interval_or_none(change, expected).low)
    estimate = float(spearman(change, expected))
    assert math.isnan(spearman_interval(estimate, change, expected, np.arange(600), 0.95).low)


def test_effective_units_count_clusters_by_their_size_and_the_rarer_kind():
    change, clusters = np.arange(100.0), np.r_[np.zeros(40, int), np.arange(1, 61)]
    rarer = np.arange(100) >= 20
    assert effective_units(change, rarer, np.arange(100)) == pytest.approx(20)
    assert effective_units(change, np.arange(100) >= 60, clusters) == pytest.approx(40)
    assert effective_units(change, np.arange(100.0), clusters) == pytest.approx(100**2 / (40**2 + 60))
    assert math.isnan(effective_units(change, np.arange(100) < 60, np.zeros(100, int)))


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


def test_precision_and_enrichment_have_no_interval():
    rng = np.random.default_rng(0)
    expected = rng.random(200) < 0.2
    change = rng.normal(size=200) + expected
    for statistic in ("precision_at_k", "enrichment"):
        result = agreement_test(change, expected, statistic=statistic, n_resamples=49, rng=0)
        assert np.isnan(result.confidence_interval).all()


def test_one_expected_latent_leaves_the_interval_undefined():
    result = agreement_test(np.array([1.0, 2, 3, 0.5, 4]), np.array([0, 0, 1, 0, 0], bool))
    assert np.isnan(result.confidence_interval).all()


def test_means_and_their_difference():
    result = paired_means([0.0, 1.0, 2.0], [1.0, 1.0, 4.0])
    assert (result.before, result.after, result.difference) == pytest.approx((1, 2, 1))


def test_pairs_that_all_rise_alike_leave_no_doubt_however_much_they_vary():
    before = np.random.default_rng(0).normal(size=20) * 10
    assert paired_means(before, before + 2).confidence_interval == pytest.approx((2, 2))


def test_the_interval_covers_the_true_difference_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(300):
        before = rng.normal(size=30)
        low, high = paired_means(before, before + rng.normal(0.5, 1, 30), rng=rng, n_resamples=299).confidence_interval
        covered += low <= 0.5 <= high
    assert 0.89 < covered / 300 < 0.98


def test_one_unit_says_nothing_about_the_interval():
    result = paired_means([1.0], [3.0])
    assert result.difference == 2
    assert np.isnan(result.confidence_interval).all()


def test_values_that_are_no_pairs_are_refused():
    for before, after in (([1.0], [1.0, 2.0]), ([], []), ([np.nan], [1.0])):
        with pytest.raises(InputError, match="before"):
            paired_means(before, after)


def test_the_share_is_the_ratio_of_the_sums():
    whole = np.array([[1.0, 3.0], [2.0, 4.0]])
    assert remaining_share(0.25 * whole, whole).estimate == pytest.approx(0.25)
    assert remaining_share(0.25 * whole, whole).confidence_interval == pytest.approx((0.25, 0.25))


def test_without_an_effect_the_share_is_undefined_not_zero():
    for whole in (np.zeros((2, 3)), -np.ones((2, 3))):
        share = remaining_share(np.ones((2, 3)), whole)
        assert np.isnan([share.estimate, *share.confidence_interval]).all()


def test_where_many_resamples_have_no_effect_the_interval_alone_is_undefined():
    share = remaining_share(np.array([[0.5, -0.4]]), np.array([[1.0, -0.9]]))
    assert share.estimate == pytest.approx(1.0)
    assert np.isnan(share.confidence_interval).all()


def test_the_interval_covers_the_true_share_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        whole = 1 + 0.3 * rng.standard_normal((4, 40)) + 0.2 * rng.standard_normal((4, 1))
        remaining = 0.6 * whole + 0.2 * rng.standard_normal((1, 40)) + 0.1 * rng.standard_normal((4, 1))
        low, high = remaining_share(remaining, whole, rng=rng, n_resamples=299).confidence_interval
        covered += low <= 0.6 <= high
    assert 0.85 < covered / 200 <= 1


def test_seeds_that_disagree_widen_the_interval():
    whole = np.ones((4, 30))
    alike, apart = np.full((4, 1), 0.5), np.array([[0.1], [0.4], [0.6], [0.9]])
    narrow = remaining_share(alike * whole, whole).confidence_interval
    wide = remaining_share(apart * whole, whole).confidence_interval
    assert narrow.high - narrow.low < 1e-9
    assert wide.high - wide.low > 0.3


def test_draws_give_their_median_and_range_and_lost_ones_are_left_out():
    share = median_of_draws(np.linspace(0, 1, 101))
    assert share.estimate == pytest.approx(0.5)
    assert share.confidence_interval == pytest.approx((0.025, 0.975))
    half = median_of_draws([0.2, 0.4, np.nan, np.nan])
    assert half.estimate == pytest.approx(0.3)
    assert np.isnan(half.confidence_interval).all()
    assert np.isnan(median_of_draws([np.nan]).estimate)
    assert np.isnan(median_of_draws([]).estimate)


def test_shapes_that_differ_are_refused():
    with pytest.raises(InputError, match="remaining has shape"):
        remaining_share(np.ones((1, 2)), np.ones((1, 3)))


def test_the_best_is_compared_with_the_second_and_the_others_with_the_best():
    values = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 9.0], [3.0, 3.0, 3.0]])
    found = compare_means(values)
    assert [option.rank for option in found] == [3, 1, 2]
    assert [option.rival for option in found] == [1, 2, 1]
    assert [option.difference for option in found] == pytest.approx([-4, 3, -3])
    assert [option.mean for option in found] == pytest.approx([2, 6, 3])
    assert found[0].interval == mean_interval(values[0], 0.95)


def test_differences_are_paired_so_that_hard_replicates_do_not_hide_them():
    hard = np.random.default_rng(0).normal(size=8) * 10
    better, worse = compare_means(np.array([hard + 1, hard]))
    assert better.difference_interval == pytest.approx((1, 1))
    assert better.interval.low < worse.mean


def test_the_interval_of_a_mean_ends_where_it_cannot_be_and_that_of_a_difference_does_not():
    first, second = compare_means(np.array([[1.0, 1.0, 0.7], [0.1, 0.0, 0.0]]), bounds=(0.0, 1.0))
    assert (first.interval.high, second.interval.low) == (1.0, 0.0)
    assert first.difference_interval.high > 1


def test_equal_options_share_a_rank_and_differ_by_nothing():
    found = compare_means(np.array([[1.0, 2.0], [1.0, 2.0], [0.0, 0.5]]))
    assert [option.rank for option in found] == [1, 1, 3]
    assert found[0].difference_interval == (0, 0)
    assert (found[0].rival, found[1].rival) == (1, 0)


def test_the_choice_of_the_rival_does_not_make_false_differences():
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(400):
        found = compare_means(rng.normal(size=(5, 8)) + rng.normal(size=8))
        wrong += any(not option.difference_interval.low <= 0 <= option.difference_interval.high for option in found)
    assert wrong / 400 < 0.05 + 0.03


def test_one_option_has_no_rival_and_one_replicate_no_interval():
    (alone,) = compare_means([[1.0, 2.0]])
    assert alone.rival is None
    assert math.isnan(alone.difference)
    assert np.isnan(alone.difference_interval).all()
    first, _ = compare_means([[1.0], [0.0]])
    assert first.difference == 1
    assert np.isnan([*first.interval, *first.difference_interval]).all()


@pytest.mark.parametrize("values", [np.zeros((0, 3)), np.zeros((3, 0)), [[math.nan]]])
def test_nothing_to_compare_is_refused(values):
    with pytest.raises(InputError, match="values"):
        compare_means(values)
