import numpy as np
import pytest

from isaerft.errors import InputError
from isaerft.stats import clusters_of
from isaerft.stats import confounds as clusters


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
    monkeypatch.setattr(clusters, "BLOCK_ROWS", 17)
    np.testing.assert_array_equal(clusters_of(vectors, threshold=0.98), whole)


def test_opposite_and_zero_vectors_are_not_duplicates():
    assert clusters_of([[1, 0], [-1, 0], [0, 0], [0, 0]], threshold=0.5).tolist() == [0, 1, 2, 3]


def test_chains_are_cut_into_stars_whose_members_are_close_to_the_centre():
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
    monkeypatch.setattr(clusters, "MAX_PAIRS", 100)
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
