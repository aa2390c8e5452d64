"""What a design can show: detectable effects, noise ceilings, planned power."""

import math

import numpy as np
import pytest
from scipy import stats as sp

from isaerft.errors import InputError
from isaerft.stats import (
    agreement_test,
    auroc,
    auroc_ceiling_of_mean,
    auroc_ceiling_of_seed,
    hanley_mcneil_sd,
    mean_rank,
    minimum_detectable_effect,
    reliability,
)
from isaerft.stats.power import (
    Design,
    _top_auroc,
    auroc_of_odds_ratio,
    latents_needed,
    observed_auroc,
    odds_ratio_of_auroc,
    power_of,
)


def test_simulated_power_at_the_minimum_detectable_effect_is_the_power_asked_for():
    n, n_expected, power = 300, 45, 0.8
    effect = minimum_detectable_effect(n, n_expected, power=power)
    shift = math.sqrt(2) * sp.norm.ppf(effect)
    expected = np.arange(n) < n_expected
    rng = np.random.default_rng(0)
    found = [
        sp.mannwhitneyu(c[expected], c[~expected], alternative="greater").pvalue <= 0.05
        for c in rng.normal(size=(2000, n)) + shift * expected
    ]
    assert np.mean(found) == pytest.approx(power, abs=0.04)


def test_hanley_mcneil_at_chance_is_the_rank_sum_standard_deviation():
    assert hanley_mcneil_sd(0.5, 30, 70) == pytest.approx(math.sqrt(101 / (12 * 30 * 70)))


def test_hanley_mcneil_is_exact_for_exponential_and_close_for_normal_scores():
    rng = np.random.default_rng(1)
    expected = np.arange(100) < 30
    exponential = [auroc(rng.exponential(size=100) * np.where(expected, 3, 1), expected) for _ in range(3000)]
    assert hanley_mcneil_sd(0.75, 30, 70) == pytest.approx(np.std(exponential), rel=0.05)
    normal = [auroc(rng.normal(size=100) + expected, expected) for _ in range(3000)]
    assert hanley_mcneil_sd(sp.norm.cdf(1 / math.sqrt(2)), 30, 70) == pytest.approx(np.std(normal), rel=0.15)


def test_given_null_sd_replaces_the_independent_one():
    n, n_expected = 400, 60
    own = minimum_detectable_effect(n, n_expected)
    sd = math.sqrt((n + 1) / (12 * n_expected * (n - n_expected)))
    assert minimum_detectable_effect(n, n_expected, null_sd=sd) == pytest.approx(own)
    assert minimum_detectable_effect(n, n_expected, null_sd=2 * sd) > own + 0.05
    result = agreement_test(np.random.default_rng(0).normal(size=n), np.arange(n) < n_expected, rng=0)
    assert minimum_detectable_effect(n, n_expected, null_sd=result.null_sd) == pytest.approx(own, abs=0.003)


def test_sides():
    greater = minimum_detectable_effect(200, 40)
    assert minimum_detectable_effect(200, 40, alternative="less") == pytest.approx(1 - greater)
    assert minimum_detectable_effect(200, 40, alternative="two-sided") > greater
    assert minimum_detectable_effect(200, 40, power=0.9) > greater
    assert minimum_detectable_effect(200, 40, alpha=0.01) > greater
    assert minimum_detectable_effect(200, 40, null_mean=0.6) > greater + 0.05


@pytest.mark.parametrize(("n", "n_expected"), [(50, 0), (50, 50), (3, 1), (0, 0)])
def test_what_no_effect_could_show_is_nan(n, n_expected):
    assert math.isnan(minimum_detectable_effect(n, n_expected))


def test_impossible_designs_are_refused():
    with pytest.raises(InputError, match="60 expected of 50"):
        minimum_detectable_effect(50, 60)
    with pytest.raises(InputError, match="power is 80"):
        minimum_detectable_effect(50, 10, power=80)
    with pytest.raises(InputError, match="null_sd is -1"):
        minimum_detectable_effect(50, 10, null_sd=-1)


def seeds_of(noise, n_seeds=5, n=2000, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=n) + noise * rng.normal(size=(n_seeds, n))


def test_seeds_that_agree_entirely_allow_a_perfect_score():
    assert auroc_ceiling_of_seed(seeds_of(0), 100) == 1


def test_seeds_of_pure_noise_allow_no_more_than_chance():
    rng = np.random.default_rng(0)
    assert auroc_ceiling_of_seed(rng.normal(size=(5, 4000)), 400) == pytest.approx(0.5, abs=0.03)


def test_the_ceiling_falls_with_the_seeds_noise():
    values = [auroc_ceiling_of_seed(seeds_of(noise), 100) for noise in (0.1, 0.5, 1, 3)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.95
    assert values[-1] < 0.8


def test_an_oracle_of_one_seed_does_not_beat_the_ceiling_by_more_than_chance():
    measured = seeds_of(1.0)
    truth = np.random.default_rng(0).normal(size=2000)
    from sklearn.metrics import roc_auc_score

    expected = truth >= np.sort(truth)[-100]
    singles = [roc_auc_score(expected, row) for row in measured]
    assert auroc_ceiling_of_seed(measured, 100) == pytest.approx(np.mean(singles), abs=0.05)


def test_it_is_by_hand_for_two_seeds():
    measured = [[1.0, 2, 3, 4], [4.0, 1, 2, 3]]
    # The oracle of seed 0 expects latent 0 (top of seed 1), worst in seed 0: 0. That of seed 1 expects 3: 2 of 3 below.
    assert auroc_ceiling_of_seed(measured, 1) == pytest.approx((0 + 2 / 3) / 2)


@pytest.mark.parametrize(("n_seeds", "n_expected"), [(1, 5), (3, 0), (3, 20)])
def test_it_is_undefined_with_one_seed_or_with_all_or_none_expected(n_seeds, n_expected):
    assert np.isnan(auroc_ceiling_of_seed(seeds_of(1, n_seeds, 20), n_expected))


def test_nan_is_refused():
    with pytest.raises(InputError, match="NaN"):
        auroc_ceiling_of_seed([[1.0, np.nan, 2], [1, 2, 3]], 1)


@pytest.mark.parametrize("odds_ratio", [0.5, 1.0, 1.00001, 1.3, 1.9, 4.0])
def test_the_auroc_of_an_odds_ratio_is_that_of_shifted_logistic_changes(odds_ratio):
    quantiles = (np.arange(2000) + 0.5) / 2000
    plain = np.log(quantiles / (1 - quantiles))
    change = np.concatenate([plain + math.log(odds_ratio), plain])
    assert auroc_of_odds_ratio(odds_ratio) == pytest.approx(float(auroc(change, np.arange(4000) < 2000)), abs=3e-4)


@pytest.mark.parametrize("value", [0.3, 0.5, 0.61, 0.95])
def test_the_odds_ratio_of_an_auroc_is_the_inverse(value):
    assert auroc_of_odds_ratio(odds_ratio_of_auroc(value)) == pytest.approx(value, abs=1e-9)


def test_the_minimum_detectable_effect_has_the_power_it_is_named_for():
    found = minimum_detectable_effect(2000, 300, power=0.9, alpha=0.01)
    assert power_of(found, Design(n_latents=2000, expected_share=0.15), alpha=0.01) == pytest.approx(0.9, abs=1e-6)


@pytest.mark.slow
def test_power_is_that_of_simulated_studies():
    rng = np.random.default_rng(0)
    n, share, odds_ratio, n_seeds = 600, 0.15, 1.7, 4
    expected = np.arange(n) < n * share
    found, singles = [], []
    for _ in range(250):
        true = rng.logistic(size=n) + math.log(odds_ratio) * expected
        seeds = true + 2.5 * rng.normal(size=(n_seeds, n))
        found.append(agreement_test(mean_rank(seeds), expected, n_resamples=399, rng=rng).pvalue <= 0.05)
        singles.append(reliability(seeds).icc_single)
    design = Design(n_latents=n, expected_share=share, n_seeds=n_seeds, seed_reliability=float(np.mean(singles)))
    assert power_of(auroc_of_odds_ratio(odds_ratio), design) == pytest.approx(np.mean(found), abs=0.1)
    single = Design(n_latents=n, expected_share=share, seed_reliability=float(np.mean(singles)))
    assert power_of(auroc_of_odds_ratio(odds_ratio), single) < np.mean(found) - 0.1


def test_behaviors_are_worth_as_much_as_they_would_be_in_latents():
    one = Design(n_latents=4000, expected_share=0.1)
    four = Design(n_latents=1000, expected_share=0.1, n_behaviors=4)
    assert power_of(0.53, four) == pytest.approx(power_of(0.53, one), abs=0.01)


@pytest.mark.parametrize("power", [0.8, 0.9])
def test_the_latents_needed_are_the_fewest_that_reach_the_power(power):
    design = Design(n_latents=1, expected_share=0.1, n_seeds=3, seed_reliability=0.5)
    needed = latents_needed(0.6, design, power=power)
    sized = [Design(n_latents=n, expected_share=0.1, n_seeds=3, seed_reliability=0.5) for n in (needed - 20, needed)]
    assert power_of(0.6, sized[0]) < power <= power_of(0.6, sized[1])


def test_no_number_of_latents_finds_no_effect():
    assert latents_needed(0.5, Design(n_latents=1, expected_share=0.1)) is None


def test_noise_pulls_an_auroc_to_one_half():
    assert observed_auroc(0.8, 1.0) == pytest.approx(0.8)
    assert 0.5 < observed_auroc(0.8, 0.3) < observed_auroc(0.8, 0.6) < 0.8


@pytest.mark.parametrize(
    "wrong", [{"expected_share": 1.0}, {"n_seeds": 0}, {"seed_reliability": 0.0}, {"design_effect": -1.0}]
)
def test_an_impossible_design_is_refused(wrong):
    with pytest.raises(InputError):
        Design(**({"n_latents": 100, "expected_share": 0.1} | wrong))


def test_nothing_expected_has_no_power():
    assert math.isnan(power_of(0.9, Design(n_latents=3, expected_share=0.01)))


TRUTHS = {
    "normal": lambda rng, n: rng.normal(size=n),
    "heavy_tails": lambda rng, n: rng.standard_t(3, size=n),
    "skewed": lambda rng, n: rng.lognormal(size=n),
    "few_changed": lambda rng, n: np.where(np.arange(n) < n // 10, rng.exponential(2, size=n), 0),
}


@pytest.mark.parametrize("truth", TRUTHS)
@pytest.mark.parametrize(("noise", "n_seeds"), [(0.5, 5), (2.0, 5), (2.0, 2)])
def test_the_ceiling_of_the_mean_is_what_an_oracle_of_the_true_changes_reaches(truth, noise, n_seeds):
    n, n_expected, reached, ceilings, of_seed = 2000, 100, [], [], []
    for world in range(12):
        rng = np.random.default_rng(world)
        true = TRUTHS[truth](rng, n)
        seeds = true + noise * rng.normal(size=(n_seeds, n))
        oracle = np.zeros(n, bool)
        oracle[np.argsort(-true)[:n_expected]] = True
        reached.append(float(auroc(mean_rank(seeds), oracle)))
        ceilings.append(auroc_ceiling_of_mean(seeds, n_expected))
        of_seed.append(auroc_ceiling_of_seed(seeds, n_expected))
    assert np.mean(ceilings) == pytest.approx(np.mean(reached), abs=0.025)
    assert np.mean(of_seed) < np.mean(reached)


def test_the_ceiling_of_the_mean_is_perfect_for_seeds_that_agree_and_undefined_below_chance():
    assert auroc_ceiling_of_mean(seeds_of(0), 100) == 1
    assert math.isnan(auroc_ceiling_of_mean([[1.0, 2, 3, 4], [4.0, 3, 2, 1]], 1))
    assert math.isnan(auroc_ceiling_of_mean(seeds_of(1, n_seeds=1), 100))


def test_the_ceiling_of_the_mean_rises_with_the_number_of_seeds():
    values = [auroc_ceiling_of_mean(seeds_of(2, n_seeds), 200) for n_seeds in (2, 5, 20)]
    assert values == sorted(values)
    assert values[-1] > values[0] + 0.1


@pytest.mark.parametrize(("correlation", "share"), [(0.3, 0.05), (0.7, 0.15), (0.95, 0.5)])
def test_the_auroc_against_the_top_of_a_correlated_value_is_that_of_simulated_ones(correlation, share):
    rng = np.random.default_rng(0)
    first, noise = rng.normal(size=(2, 200_000))
    value = correlation * first + math.sqrt(1 - correlation**2) * noise
    expected = first > np.quantile(first, 1 - share)
    assert _top_auroc(correlation, share) == pytest.approx(float(auroc(value, expected)), abs=0.005)
