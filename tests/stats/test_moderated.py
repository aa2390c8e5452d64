"""The moderated t: its prior, and where it is the plain t."""

import numpy as np
import pytest
from scipy import stats

from isaerft.stats.moderated import MIN_MODERATED, NO_PRIOR, moderated_means, variance_prior

N_SEEDS = 4


@pytest.mark.parametrize("n_units", [1, MIN_MODERATED - 1])
def test_of_few_units_it_is_the_plain_t(n_units):
    values = np.random.default_rng(2).normal(1, 1, size=(N_SEEDS, n_units))
    found, plain = moderated_means(values, 1 / N_SEEDS), stats.ttest_1samp(values, 0)
    assert found.pvalue == pytest.approx(plain.pvalue)
    assert found.intervals(0.95) == pytest.approx(np.stack(plain.confidence_interval(), axis=1))
    assert found.above(0.3) == pytest.approx(stats.ttest_1samp(values, 0.3, alternative="greater").pvalue)


def test_equal_variances_lend_each_other_strength():
    values = np.random.default_rng(3).normal(size=(3, 2000))
    found = moderated_means(values, 1 / 3)
    assert found.degrees_of_freedom > 20
    assert found.standard_error.std() < 0.2 * (values.std(0, ddof=1) / np.sqrt(3)).std()


def test_the_prior_is_that_of_smyth():
    """Variances drawn from a scaled inverse chi-square with known degrees of freedom."""
    rng = np.random.default_rng(4)
    variance = 8 * 2.0 / rng.chisquare(8, size=20_000)
    found = moderated_means(rng.normal(size=(5, 20_000)) * np.sqrt(variance), 1 / 5)
    assert found.degrees_of_freedom == pytest.approx(4 + 8, rel=0.1)


def test_a_latent_that_nothing_moved_is_no_finding():
    values = np.random.default_rng(5).normal(size=(N_SEEDS, 20))
    values[:, 3] = 0
    found = moderated_means(values, 1 / N_SEEDS)
    assert found.statistic[3] == 0
    assert found.pvalue[3] == 1


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_few_units_hold_their_level_even_if_they_share_their_errors(rho):
    rng = np.random.default_rng(6)
    common, own = rng.normal(size=(2000, N_SEEDS, 1)), rng.normal(size=(2000, N_SEEDS, 3))
    worlds = np.sqrt(rho) * common + np.sqrt(1 - rho) * own
    rates = [(moderated_means(values, 1 / N_SEEDS).above(0) <= 0.05).mean() for values in worlds]
    assert 0.04 < np.mean(rates) < 0.06


def test_variances_of_zero_make_no_prior():
    assert variance_prior(np.r_[np.zeros(50), np.ones(MIN_MODERATED - 1)], 3) == NO_PRIOR
