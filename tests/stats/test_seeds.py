import math
from itertools import product

import numpy as np
import pytest
from scipy import stats as sp

from isaerft.errors import InputError
from isaerft.stats import disattenuated_auroc, mean_rank, reliability, scaled_ranks, stability_pvalue


def seeds(rng, n_seeds, n, noise):
    return rng.normal(size=n) + noise * rng.normal(size=(n_seeds, n))


def test_mean_rank_ignores_the_scale_of_each_seed():
    changes = seeds(np.random.default_rng(0), 4, 50, 1.0)
    np.testing.assert_allclose(mean_rank(changes), mean_rank(np.exp(changes) * np.array([[1], [9], [2], [100]])))
    assert mean_rank(changes).mean() == pytest.approx(0.5)


@pytest.mark.parametrize(("n_seeds", "n"), [(2, 6), (3, 5), (5, 4)])
def test_stability_pvalue_against_enumeration(n_seeds, n):
    changes = np.random.default_rng(n_seeds).normal(size=(n_seeds, n))
    totals = sp.rankdata(changes, axis=1).sum(axis=0)
    sums = np.array([sum(ranks) for ranks in product(range(1, n + 1), repeat=n_seeds)])
    np.testing.assert_allclose(stability_pvalue(changes), [(sums >= total).mean() for total in totals], atol=1e-12)


@pytest.mark.slow
def test_stability_pvalue_is_near_the_irwin_hall_tail_for_many_latents():
    changes = np.random.default_rng(0).normal(size=(7, 20_000))
    total = (sp.rankdata(changes, axis=1) / 20_000).sum(axis=0)
    np.testing.assert_allclose(stability_pvalue(changes), sp.irwinhall(7).sf(total), atol=3e-4)


def test_stability_pvalue_is_uniform_for_independent_seeds_and_conservative_with_ties():
    rng = np.random.default_rng(1)
    assert sp.kstest(stability_pvalue(rng.normal(size=(5, 4000))), "uniform").pvalue > 1e-3
    tied = stability_pvalue(rng.integers(0, 5, size=(5, 4000)))
    assert (tied <= 0.05).mean() < 0.05
    assert tied.min() > 0


def test_smallest_stability_pvalue_is_one_in_n_to_the_seeds():
    changes = np.tile(np.arange(100.0), (3, 1))
    assert stability_pvalue(changes)[-1] == pytest.approx(1e-6)
    assert stability_pvalue(changes)[0] == 1


def test_one_seed_has_no_stability_and_no_reliability():
    assert np.isnan(stability_pvalue(np.arange(5.0)[None])).all()
    result = reliability(np.arange(5.0)[None])
    assert result.n_seeds == 1
    assert math.isnan(result.icc_mean)


@pytest.mark.parametrize("n_seeds", [2, 3, 5, 8, 13])
def test_split_half_and_icc_agree_and_find_the_true_reliability(n_seeds):
    result = reliability(seeds(np.random.default_rng(2), n_seeds, 20_000, 1.0))
    single = 6 / math.pi * math.asin(0.5 / 2)
    mean = n_seeds * single / (1 + (n_seeds - 1) * single)
    assert result.mean_correlation == pytest.approx(single, abs=0.02)
    assert result.icc_single == pytest.approx(single, abs=0.02)
    assert result.icc_mean == pytest.approx(mean, abs=0.02)
    assert result.split_half == pytest.approx(result.icc_mean, abs=0.01)


def test_icc_against_the_analysis_of_variance_written_out():
    ranks = scaled_ranks(seeds(np.random.default_rng(3), 3, 12, 0.7))
    correlation = np.cov(ranks)
    alpha = 3 / 2 * (1 - np.trace(correlation) / correlation.sum())
    assert reliability(ranks).icc_mean == pytest.approx(alpha)


def test_seeds_that_disagree_have_a_negative_reliability():
    changes = np.array([np.arange(20.0), -np.arange(20.0) + 0.1 * (np.arange(20) % 3)])
    result = reliability(changes)
    assert result.icc_mean < 0


def test_disattenuated_auroc_undoes_seed_noise():
    rng = np.random.default_rng(5)
    expected = np.arange(40_000) < 8_000
    clean = rng.normal(size=40_000) + expected
    noisy = clean + rng.normal(size=40_000)
    from isaerft.stats import auroc

    assert disattenuated_auroc(float(auroc(noisy, expected)), 0.5) == pytest.approx(
        float(auroc(clean, expected)), abs=0.01
    )
    assert math.isnan(disattenuated_auroc(0.7, math.nan))
    assert math.isnan(disattenuated_auroc(0.7, -0.2))


def test_bad_changes_are_a_clear_error():
    with pytest.raises(InputError, match="of 2 dimension"):
        mean_rank(np.arange(4.0))
    with pytest.raises(InputError, match="NaN"):
        mean_rank(np.array([[0, np.nan]]))
    with pytest.raises(InputError, match="in seed 1 all 3 latents changed alike"):
        reliability(np.array([[1.0, 2, 3], [4, 4, 4]]))
