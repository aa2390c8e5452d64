"""How far numbers move under reseeding, and whether they separate groups."""

import math

import numpy as np
import pytest
from scipy.stats import kstest

from isaerft import stats
from isaerft.errors import InputError

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


def test_the_noise_of_replicates_is_that_of_their_distribution():
    rng = np.random.default_rng(0)
    n_worlds, n, sd = 4000, 4, 0.5
    found = [stats.noise_of(values) for values in rng.normal(3, sd, size=(n_worlds, n))]
    assert np.mean([one.sd**2 for one in found]) == pytest.approx(sd**2, rel=0.05)
    covered = np.mean([one.sd_interval.low < sd < one.sd_interval.high for one in found])
    assert covered == pytest.approx(0.95, abs=0.012)
    # Two more numbers of the same kind differ by more in 5 % of cases.
    pairs = np.abs(np.diff(rng.normal(3, sd, size=(n_worlds, 2)))[:, 0])
    assert np.mean(pairs > [one.reliable_difference for one in found]) == pytest.approx(0.05, abs=0.012)


def test_the_noise_by_hand():
    found = stats.noise_of([0.8, 0.9, 0.7], chance=0.5)
    assert (found.n_replicates, found.mean, found.sd) == pytest.approx((3, 0.8, 0.1))
    assert found.coefficient_of_variation == pytest.approx(0.1 / 0.3)
    assert found.reliable_difference == pytest.approx(4.302653 * math.sqrt(2) * 0.1, rel=1e-6)
    assert tuple(found.sd_interval) == pytest.approx((0.1 * math.sqrt(2 / 7.377759), 0.1 * math.sqrt(2 / 0.05063562)))
    gone = stats.noise_of([0.8, math.nan, 0.9, 0.7], chance=0.5)
    assert gone == found


def test_a_number_near_chance_has_no_coefficient_of_variation():
    values = [0.52, 0.44, 0.6]
    assert math.isnan(stats.noise_of(values, chance=0.5).coefficient_of_variation)
    assert stats.noise_of(values, chance=0.0).coefficient_of_variation > 0
    assert math.isnan(stats.noise_of(values, chance=None).coefficient_of_variation)
    # Of the mean of many replicates more is known than of one.
    assert stats.noise_of(values * 40, chance=0.5).coefficient_of_variation > 1


@pytest.mark.parametrize("values", [[], [0.7], [math.nan, 0.7]])
def test_fewer_than_two_replicates_have_no_noise_and_not_noise_0(values):
    found = stats.noise_of(values)
    numbers = (found.sd, *found.sd_interval, found.coefficient_of_variation, found.reliable_difference)
    assert all(map(math.isnan, numbers))
    assert found.n_replicates == sum(map(math.isfinite, values))
    single = stats.noise_of_all_seeds(0.7, [])
    assert (single.n_replicates, single.mean) == (1, 0.7)
    assert math.isnan(single.sd)
    assert math.isnan(single.reliable_difference)


def test_all_seeds_together_have_the_noise_of_the_jackknife():
    values = np.array([0.70, 0.75, 0.71, 0.78])
    left_out = (values.sum() - values) / 3
    found = stats.noise_of_all_seeds(values.mean(), left_out, chance=0.5)
    sd = values.std(ddof=1) / 2  # of a mean
    assert found.sd == pytest.approx(sd)
    assert found.coefficient_of_variation == pytest.approx(sd / (values.mean() - 0.5))
    assert found.reliable_difference == pytest.approx(stats.reliable_difference(left_out))
    assert math.isnan(stats.noise_of_all_seeds(0.7, [0.7, math.nan]).sd)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_equal_results_differ_by_more_than_their_margin_in_five_percent_of_cases(n):
    rng = np.random.default_rng(n)
    n_worlds, beyond = 4000, 0
    for _ in range(n_worlds):
        luck = rng.normal(size=n)  # shared, so that only what is paired sees through it
        one, other = luck + 0.3 * rng.normal(size=(2, n))
        difference = one - other
        left_out = (difference.sum() - difference) / (n - 1)
        beyond += abs(difference.mean()) > stats.margin_of_paired(left_out).least
    assert beyond / n_worlds == pytest.approx(0.05, abs=0.012)


def test_independent_results_of_unlike_noise_differ_by_more_in_about_five_percent_of_cases():
    rng = np.random.default_rng(1)
    n_worlds, beyond, (n_one, n_other) = 4000, 0, (4, 8)
    for _ in range(n_worlds):
        one, other = rng.normal(0, 1, n_one), rng.normal(0, 3, n_other)
        sds = [one.std(ddof=1) / math.sqrt(n_one), other.std(ddof=1) / math.sqrt(n_other)]
        beyond += abs(one.mean() - other.mean()) > stats.margin_of_independent(sds, [n_one, n_other]).least
    assert beyond / n_worlds == pytest.approx(0.05, abs=0.015)


def test_the_margin_of_one_seed_is_unknown():
    assert math.isnan(stats.margin_of_paired([]).least)
    assert math.isnan(stats.margin_of_independent([0.1, math.nan], [4, 1]).least)
    assert stats.margin_of_independent([0.0, 0.0], [4, 4]).least == 0


def test_groups_are_separated_as_the_analysis_of_variance_says():
    values = np.array([1.0, 1.2, 1.1, 2.0, 2.3, 2.1, 1.1, 1.0, 1.2])
    groups = np.repeat([0, 1, 2], 3)
    found = stats.discriminability(values, groups)
    from scipy.stats import f_oneway

    expected = f_oneway(*values.reshape(3, 3))
    assert (found.f, found.pvalue) == pytest.approx((expected.statistic, expected.pvalue))
    assert found.icc == pytest.approx((found.f - 1) / (found.f + 2))
    assert found.icc_interval.low < found.icc < found.icc_interval.high
    assert (found.n_pairs, found.n_pairs_apart) == (3, 2)


def test_shuffled_groups_are_separated_by_chance_alone():
    rng = np.random.default_rng(0)
    sizes = [4, 4, 3, 5]
    groups = np.repeat(np.arange(4), sizes)
    values = rng.normal(size=16) + groups
    shuffled = [stats.discriminability(values, rng.permutation(groups)) for _ in range(2000)]
    assert abs(np.mean([one.icc for one in shuffled])) < 0.05
    assert np.mean([one.pvalue < 0.05 for one in shuffled]) == pytest.approx(0.05, abs=0.02)
    assert np.mean([one.n_pairs_apart > 0 for one in shuffled]) == pytest.approx(0.05, abs=0.02)
    assert stats.discriminability(values, groups).pvalue < 0.05


def test_the_interval_of_the_share_between_groups_holds_the_truth():
    rng = np.random.default_rng(0)
    n_worlds, k, n, between = 2000, 5, 3, 1.5
    truth = between**2 / (between**2 + 1)
    groups, held, pvalues = np.repeat(np.arange(k), n), 0, []
    for _ in range(n_worlds):
        noise = rng.normal(size=k * n)
        found = stats.discriminability(np.repeat(rng.normal(0, between, k), n) + noise, groups)
        held += found.icc_interval.low < truth < found.icc_interval.high
        pvalues.append(stats.discriminability(noise, groups).pvalue)
    assert held / n_worlds == pytest.approx(0.95, abs=0.015)
    assert kstest(pvalues, "uniform").pvalue > 0.001


@pytest.mark.parametrize(
    ("values", "groups"),
    [([1.0, 2.0, 3.0], [0, 0, 0]), ([1.0, 2.0, 3.0], [0, 1, 2]), ([1.0, 1.0, 2.0, 2.0], [0, 0, 1, 1])],
)
def test_without_groups_or_replicates_that_differ_nothing_is_said(values, groups):
    found = stats.discriminability(values, groups)
    assert math.isnan(found.f)
    assert math.isnan(found.icc)
    assert math.isnan(found.icc_interval.low)
    assert found.n_pairs_apart is None


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(InputError, match="NaN"):
        stats.discriminability([1.0, math.nan, 2.0], [0, 0, 1])
