"""What confounds explain is taken out, as far as the number of latents allows, and by their ranks alone."""

import numpy as np
import pytest
from scipy.stats import norm, rankdata

from isaerft.errors import InputError
from isaerft.stats.confounds import SmoothConfounds, smooth_confounds

ONE = np.zeros(500, int)


def normal_scores(values):
    return norm.ppf((rankdata(values) - 0.5) / len(values))


def confounds(n=500, k=3, seed=0):
    return np.random.default_rng(seed).lognormal(size=(k, n))


def test_every_cubic_of_the_confounds_is_explained_wholly():
    given = confounds()
    x, y, z = (normal_scores(row) for row in given)
    smooth = SmoothConfounds.of(given, ONE, n_blocks=500)
    for values in (x, y**2, x * y * z, 3 + x - 2 * x * x * z):
        np.testing.assert_allclose(smooth.fitted(values), values, atol=1e-8)
    assert smooth.fitted(np.sin(8 * x)).std() < 0.3


def test_what_is_left_is_orthogonal_to_what_is_explained():
    smooth, values = SmoothConfounds.of(confounds(), ONE, n_blocks=500), np.random.default_rng(1).normal(size=(4, 500))
    np.testing.assert_allclose(smooth.basis.T @ smooth.basis, np.eye(20), atol=1e-10)
    np.testing.assert_allclose((values - smooth.fitted(values)) @ smooth.basis, 0, atol=1e-10)


@pytest.mark.parametrize(("n_blocks", "n_terms"), [(59, 0), (60, 3), (179, 3), (180, 9), (379, 9), (380, 19)])
def test_few_blocks_carry_a_lower_degree(n_blocks, n_terms):
    assert SmoothConfounds.of(confounds(), ONE, n_blocks=n_blocks).n_terms == n_terms


def test_clusters_count_once():
    given = confounds(400)
    assert smooth_confounds(given, np.zeros(400, int), np.arange(400)).n_terms == 19
    assert smooth_confounds(given, np.zeros(400, int), np.arange(400) // 4).n_terms == 3
    assert smooth_confounds(given, np.zeros(400, int), np.arange(400) // 10) is None
    assert smooth_confounds(None, np.zeros(400, int), np.arange(400)) is None


def test_only_ranks_of_the_confounds_count():
    given, values = confounds(), np.random.default_rng(1).normal(size=500)
    one, other = (SmoothConfounds.of(part, ONE, n_blocks=500) for part in (given, np.log(given)))
    np.testing.assert_allclose(one.fitted(values), other.fitted(values), atol=1e-9)


def test_a_confound_that_stands_twice_adds_nothing():
    given = confounds(k=1)
    smooth = SmoothConfounds.of(np.vstack([given, given]), ONE, n_blocks=500)
    assert smooth.n_terms == 3


@pytest.mark.parametrize(
    ("given", "words"), [(np.full((3, 50), np.nan), "NaN"), (np.ones(50), "shape"), (np.ones((3, 49)), "shape")]
)
def test_confounds_of_another_form_are_refused(given, words):
    with pytest.raises(InputError, match=words):
        smooth_confounds(given, np.zeros(50, int), np.arange(50))


def test_a_level_for_each_stratum_is_explained_too_and_is_no_term():
    given, strata = confounds(), np.arange(500) % 7
    smooth = SmoothConfounds.of(given, strata, n_blocks=500)
    np.testing.assert_allclose(smooth.fitted(np.cos(strata)), np.cos(strata), atol=1e-8)
    assert smooth.n_terms == 19
    assert smooth.basis.shape == (500, 26)
