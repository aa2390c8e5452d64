import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isaerft.errors import InputError
from isaerft.stats import strata_of


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


def test_a_small_cell_joins_its_nearest_neighbour():
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
