"""Strata, clusters and smooth functions of confounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, rankdata

from isaerft.errors import InputError
from isaerft.stats import clusters_of, specificity_matrix, strata_of
from isaerft.stats import confounds as confounds_module
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


def test_one_set_of_confounds_has_one_basis_whoever_exchanges_labels_and_it_is_that_of_a_fresh_start(monkeypatch):
    made, strata = [], np.arange(500) % 7
    whole = confounds_module._orthonormal
    monkeypatch.setattr(confounds_module, "_orthonormal", lambda columns: made.append(1) or whole(columns))
    confounds_module._basis.cache_clear()
    changes, labels = np.random.default_rng(1).normal(size=(3, 500)), np.arange(500) % 5 == np.arange(5)[:, None]
    groups = {"strata": strata, "confounds": confounds()}
    first = specificity_matrix(changes, labels, **groups)
    assert specificity_matrix(changes, labels, clusters=np.arange(500), **groups).tobytes() == first.tobytes()
    assert len(made) == 1
    smooth_confounds(confounds(seed=1), strata, np.arange(500))
    smooth_confounds(confounds(), strata % 2, np.arange(500))
    assert len(made) == 3, "other confounds or strata have another basis"
    assert specificity_matrix(changes, labels, **groups).tobytes() == first.tobytes()
    assert len(made) == 4, "only the last bases are kept: each can be large"


def test_a_basis_is_shared_so_nobody_can_write_to_it():
    with pytest.raises(ValueError, match="read-only"):
        SmoothConfounds.of(confounds(), ONE, n_blocks=500).basis[:] = 0


def test_a_level_for_each_stratum_is_explained_too_and_is_no_term():
    given, strata = confounds(), np.arange(500) % 7
    smooth = SmoothConfounds.of(given, strata, n_blocks=500)
    np.testing.assert_allclose(smooth.fitted(np.cos(strata)), np.cos(strata), atol=1e-8)
    assert smooth.n_terms == 19
    assert smooth.basis.shape == (500, 26)


def test_bins_are_quantiles_and_equal_values_share_one():
    strata = strata_of([5, 5, 5, 5, 1, 2, 8, 9], n_bins=4, min_size=1)
    assert len(set(strata[:4])) == 1
    assert strata[4] == strata[5] < strata[0] < strata[6] == strata[7]


def test_two_confounds_are_crossed():
    a, b = np.meshgrid(np.arange(40), np.arange(40))
    strata = strata_of(a.ravel(), b.ravel(), n_bins=4, min_size=5)
    assert np.bincount(strata).tolist() == [100] * 16
    for values in (a.ravel(), b.ravel()):
        assert all(np.ptp(values[strata == s]) == 9 for s in range(16))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 120), st.integers(1, 12))
def test_strata_are_large_enough_and_deterministic(seed, min_size, n_bins):
    rng = np.random.default_rng(seed)
    confounds = rng.exponential(size=100), rng.integers(0, 4, 100)
    strata = strata_of(*confounds, n_bins=n_bins, min_size=min_size)
    sizes = np.bincount(strata)
    assert strata.dtype == np.int64
    assert sizes.min() >= min(min_size, 100)
    np.testing.assert_array_equal(strata, strata_of(*confounds, n_bins=n_bins, min_size=min_size))
    np.testing.assert_array_equal(
        strata, strata_of(np.log(confounds[0]), confounds[1], n_bins=n_bins, min_size=min_size)
    )


def test_a_small_cell_joins_its_nearest_neighbor():
    values = np.repeat([0.0, 1.0, 2.0, 3.0], [30, 30, 4, 30])
    strata = strata_of(values, n_bins=94, min_size=10)
    assert strata[60] == strata[59] or strata[60] == strata[64]
    assert strata[0] != strata[59]
    assert len(set(strata)) == 3


def test_clusters_never_straddle_strata():
    rng = np.random.default_rng(0)
    clusters = rng.integers(0, 150, 400)
    strata = strata_of(rng.normal(size=400), n_bins=8, min_size=10, clusters=clusters)
    assert all(len(set(strata[clusters == cluster])) == 1 for cluster in set(clusters))
    assert len(set(strata)) > 3


def test_bad_confounds_are_a_clear_error():
    with pytest.raises(InputError, match="no confound"):
        strata_of()
    with pytest.raises(InputError, match=r"lengths \[3, 4\]"):
        strata_of(np.arange(3.0), np.arange(4.0))
    with pytest.raises(InputError, match="confound 1 holds 1 NaN"):
        strata_of(np.arange(3.0), np.array([0, np.nan, 1]))
    with pytest.raises(InputError, match="n_bins is 0"):
        strata_of(np.arange(3.0), n_bins=0)


def test_near_duplicates_share_a_cluster_whatever_their_length():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(300, 64))
    copies = 7 * base[:20] + 0.05 * rng.normal(size=(20, 64))
    found = clusters_of(np.concatenate([base, copies]), threshold=0.9)
    np.testing.assert_array_equal(found[300:], found[:20])
    assert found.max() == 299
    np.testing.assert_array_equal(found[:300], np.arange(300))


def test_blocks_do_not_change_the_result(monkeypatch):
    vectors = np.random.default_rng(1).normal(size=(200, 3))
    whole = clusters_of(vectors, threshold=0.98)
    monkeypatch.setattr(confounds_module, "BLOCK_ROWS", 17)
    np.testing.assert_array_equal(clusters_of(vectors, threshold=0.98), whole)


def test_opposite_and_zero_vectors_are_not_duplicates():
    assert clusters_of([[1, 0], [-1, 0], [0, 0], [0, 0]], threshold=0.5).tolist() == [0, 1, 2, 3]


def test_chains_are_cut_into_stars_whose_members_are_close_to_the_center():
    angle = np.linspace(0, np.pi, 200)
    vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    threshold = np.cos(3.5 * (angle[1] - angle[0]))
    assert len(set(clusters_of(vectors, threshold, max_size=200))) == 1
    cut = clusters_of(vectors, threshold, max_size=64)
    cosines = vectors @ vectors.T
    for cluster in set(cut):
        members = np.flatnonzero(cut == cluster)
        assert (cosines[np.ix_(members, members)] >= threshold).all(axis=1).any()
    assert np.bincount(cut).max() <= 7


def test_too_many_pairs_is_a_clear_error(monkeypatch):
    monkeypatch.setattr(confounds_module, "MAX_PAIRS", 100)
    with pytest.raises(InputError, match=r"more than 100 near-duplicate pairs.*raise the threshold"):
        clusters_of(np.ones((50, 2)), threshold=0.9)


@pytest.mark.parametrize("threshold", [0, 1, 1.5, float("nan")])
def test_threshold_must_be_a_share(threshold):
    with pytest.raises(InputError, match="threshold is"):
        clusters_of(np.eye(3), threshold=threshold)


def test_nan_and_no_vectors_are_refused():
    with pytest.raises(InputError, match="vectors holds 1 NaN"):
        clusters_of([[1.0, np.nan]], threshold=0.5)
    with pytest.raises(InputError, match="no latent"):
        clusters_of(np.empty((0, 4)), threshold=0.5)
