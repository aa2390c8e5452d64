import math

import numpy as np
import pytest

from isaerft.errors import InputError
from isaerft.stats import agreement_test, auroc, mean_rank, minimum_detectable_effect, reliability
from isaerft.stats.power import (
    Design,
    auroc_of_odds_ratio,
    latents_needed,
    observed_auroc,
    odds_ratio_of_auroc,
    power_of,
)


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
