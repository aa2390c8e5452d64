"""Noise ceilings: what an oracle of the true changes would reach, as well as the seeds know them."""

import math

import numpy as np
import pytest
from scipy import stats as sp

from isaerft.errors import InputError
from isaerft.stats import (
    auroc,
    auroc_ceiling_of_mean,
    auroc_ceiling_of_seed,
    mean_rank,
    reliability,
    spearman,
    spearman_ceiling_of_mean,
    spearman_ceiling_of_seed,
)
from isaerft.stats.ceilings import _covariance


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
    covariance = _covariance(correlation, np.array([sp.norm.isf(share)]))[0]
    assert 0.5 + covariance / (share * (1 - share)) == pytest.approx(float(auroc(value, expected)), abs=0.005)


FORMS = {
    "yes to 5 %": ([0, 1], [0.95, 0.05]),
    "yes to 1.5 %": ([0, 1], [0.985, 0.015]),
    "three values": ([0, 0.5, 1], [0.9, 0.07, 0.03]),
    "both directions": ([-1, 0, 1], [0.03, 0.94, 0.03]),
}


def in_form(form, true):
    """Return the perfect expectation with the shares of each value that `form` has."""
    values, shares = FORMS[form]
    quantiles = (sp.rankdata(true) - 0.5) / true.size
    return np.array(values)[np.searchsorted(np.cumsum(shares), quantiles).clip(max=len(values) - 1)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("noise", [0.5, 2.0])
def test_the_ceiling_of_spearman_is_what_a_perfect_expectation_with_these_ties_reaches(form, noise):
    reached, ceilings = [], []
    for world in range(12):
        rng = np.random.default_rng(world)
        true = rng.normal(size=1000)
        seeds = true + noise * rng.normal(size=(4, 1000))
        perfect = in_form(form, true)
        reached.append(float(spearman(mean_rank(seeds), perfect)))
        ceilings.append(spearman_ceiling_of_mean(seeds, rng.permutation(perfect)))
        assert spearman_ceiling_of_seed(seeds, perfect) < ceilings[-1]
    assert np.mean(ceilings) == pytest.approx(np.mean(reached), abs=0.015)


def test_the_ceiling_of_an_expectation_without_ties_is_the_root_of_the_reliability():
    rng = np.random.default_rng(4)
    changes = rng.normal(size=5000) + 1.5 * rng.normal(size=(5, 5000))
    root = math.sqrt(reliability(changes).icc_mean)
    assert spearman_ceiling_of_mean(changes, rng.normal(size=5000)) == pytest.approx(root, abs=0.01)


def test_sparse_changes_that_an_expectation_can_match_allow_more_than_untied_ones():
    changes = np.tile(np.where(np.arange(400) < 20, 1.0, 0.0), (3, 1))
    assert spearman_ceiling_of_mean(changes, np.arange(400) < 20) == pytest.approx(1)


def test_a_constant_expectation_and_seeds_that_disagree_have_no_ceiling():
    assert math.isnan(spearman_ceiling_of_mean(seeds_of(1), np.ones(2000)))
    assert math.isnan(spearman_ceiling_of_mean([[1.0, 2, 3], [3.0, 2, 1]], [0.0, 0.5, 1]))
    assert math.isnan(spearman_ceiling_of_seed([[1.0, 2, 3]], [0.0, 0.5, 1]))
