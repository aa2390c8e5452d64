import numpy as np
import pytest

from isaerft.errors import InputError
from isaerft.stats import median_of_draws, remaining_share


def test_the_share_is_the_ratio_of_the_sums():
    whole = np.array([[1.0, 3.0], [2.0, 4.0]])
    assert remaining_share(0.25 * whole, whole).estimate == pytest.approx(0.25)
    assert remaining_share(0.25 * whole, whole).confidence_interval == pytest.approx((0.25, 0.25))


def test_without_an_effect_the_share_is_undefined_not_zero():
    for whole in (np.zeros((2, 3)), -np.ones((2, 3))):
        share = remaining_share(np.ones((2, 3)), whole)
        assert np.isnan([share.estimate, *share.confidence_interval]).all()


def test_where_many_resamples_have_no_effect_the_interval_alone_is_undefined():
    share = remaining_share(np.array([[0.5, -0.4]]), np.array([[1.0, -0.9]]))
    assert share.estimate == pytest.approx(1.0)
    assert np.isnan(share.confidence_interval).all()


def test_the_interval_covers_the_true_share_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        whole = 1 + 0.3 * rng.standard_normal((4, 40)) + 0.2 * rng.standard_normal((4, 1))
        remaining = 0.6 * whole + 0.2 * rng.standard_normal((1, 40)) + 0.1 * rng.standard_normal((4, 1))
        low, high = remaining_share(remaining, whole, rng=rng, n_resamples=299).confidence_interval
        covered += low <= 0.6 <= high
    assert 0.85 < covered / 200 <= 1


def test_seeds_that_disagree_widen_the_interval():
    whole = np.ones((4, 30))
    alike, apart = np.full((4, 1), 0.5), np.array([[0.1], [0.4], [0.6], [0.9]])
    narrow = remaining_share(alike * whole, whole).confidence_interval
    wide = remaining_share(apart * whole, whole).confidence_interval
    assert narrow.high - narrow.low < 1e-9
    assert wide.high - wide.low > 0.3


def test_draws_give_their_median_and_range_and_lost_ones_are_left_out():
    share = median_of_draws(np.linspace(0, 1, 101))
    assert share.estimate == pytest.approx(0.5)
    assert share.confidence_interval == pytest.approx((0.025, 0.975))
    half = median_of_draws([0.2, 0.4, np.nan, np.nan])
    assert half.estimate == pytest.approx(0.3)
    assert np.isnan(half.confidence_interval).all()
    assert np.isnan(median_of_draws([np.nan]).estimate)
    assert np.isnan(median_of_draws([]).estimate)


def test_shapes_that_differ_are_refused():
    with pytest.raises(InputError, match="remaining has shape"):
        remaining_share(np.ones((1, 2)), np.ones((1, 3)))
