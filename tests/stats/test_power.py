"""What a design can show: planned power."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as sp
from scipy.optimize import brentq

from isaerft.errors import InputError
from isaerft.stats import auroc, hanley_mcneil_sd, overall_specificity, specificity_matrix
from isaerft.stats.power import (
    Design,
    auroc_of_odds_ratio,
    latents_needed,
    observed_auroc,
    odds_ratio_of_auroc,
    power_of,
)


def test_hanley_mcneil_at_chance_is_the_rank_sum_standard_deviation():
    assert hanley_mcneil_sd(0.5, 30, 70) == pytest.approx(math.sqrt(101 / (12 * 30 * 70)))


def test_hanley_mcneil_is_exact_for_exponential_and_close_for_normal_scores():
    rng = np.random.default_rng(1)
    expected = np.arange(100) < 30
    exponential = [auroc(rng.exponential(size=100) * np.where(expected, 3, 1), expected) for _ in range(3000)]
    assert hanley_mcneil_sd(0.75, 30, 70) == pytest.approx(np.std(exponential), rel=0.05)
    normal = [auroc(rng.normal(size=100) + expected, expected) for _ in range(3000)]
    assert hanley_mcneil_sd(sp.norm.cdf(1 / math.sqrt(2)), 30, 70) == pytest.approx(np.std(normal), rel=0.15)


@pytest.mark.parametrize("odds_ratio", [0.5, 1.0, 1.00001, 1.3, 1.9, 4.0])
def test_the_auroc_of_an_odds_ratio_is_that_of_shifted_logistic_changes(odds_ratio):
    quantiles = (np.arange(2000) + 0.5) / 2000
    plain = np.log(quantiles / (1 - quantiles))
    change = np.concatenate([plain + math.log(odds_ratio), plain])
    assert auroc_of_odds_ratio(odds_ratio) == pytest.approx(float(auroc(change, np.arange(4000) < 2000)), abs=3e-4)


@pytest.mark.parametrize("value", [0.3, 0.5, 0.61, 0.95])
def test_the_odds_ratio_of_an_auroc_is_the_inverse(value):
    assert auroc_of_odds_ratio(odds_ratio_of_auroc(value)) == pytest.approx(value, abs=1e-9)


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
    "wrong",
    [{"expected_share": 1.0}, {"n_seeds": 0}, {"seed_reliability": 0.0}, {"design_effect": -1.0}, {"n_behaviors": 3}],
)
def test_an_impossible_design_is_refused(wrong):
    with pytest.raises(InputError):
        Design(**({"n_latents": 100, "expected_share": 0.1} | wrong))


def test_nothing_expected_has_no_power():
    assert math.isnan(power_of(0.9, Design(n_latents=3, expected_share=0.01)))


def test_more_behaviors_and_fewer_latents_that_move_together_give_more_power():
    few, many = (Design(n_latents=1000, expected_share=0.05, n_behaviors=n) for n in (4, 16))
    assert power_of(0.55, few) < power_of(0.55, many)
    assert power_of(0.55, replace(many, design_effect=2.0)) < power_of(0.55, many)


@pytest.mark.slow
@pytest.mark.parametrize(("n_behaviors", "n_expected"), [(4, 10), (8, 2), (8, 3), (8, 5), (8, 40), (16, 10)])
def test_specificity_is_found_at_least_as_often_as_planned(n_behaviors, n_expected):
    n = 800
    design = Design(n_latents=n, expected_share=n_expected / n, n_behaviors=n_behaviors)
    effect = brentq(lambda auroc: power_of(auroc, design) - 0.8, 0.501, 0.99)
    shift, found = math.sqrt(2) * sp.norm.ppf(effect), []
    for world in range(150):
        rng = np.random.default_rng([world, n_behaviors, n_expected])
        labels = rng.permuted(np.tile(np.arange(n) < n_expected, (n_behaviors, 1)), axis=1)
        changes = rng.normal(size=(n_behaviors, n)) + shift * labels
        result = overall_specificity(specificity_matrix(changes, labels), n_resamples=199, rng=rng)
        found.append(result.pvalue <= 0.05)
    assert 0.74 < np.mean(found) < 0.97  # planned 0.8, and 0.033 of Monte Carlo error
