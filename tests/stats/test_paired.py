import numpy as np
import pytest

from isaerft.errors import InputError
from isaerft.stats import paired_means


def test_means_and_their_difference():
    result = paired_means([0.0, 1.0, 2.0], [1.0, 1.0, 4.0])
    assert (result.before, result.after, result.difference) == pytest.approx((1, 2, 1))


def test_pairs_that_all_rise_alike_leave_no_doubt_however_much_they_vary():
    before = np.random.default_rng(0).normal(size=20) * 10
    assert paired_means(before, before + 2).confidence_interval == pytest.approx((2, 2))


def test_the_interval_covers_the_true_difference_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(300):
        before = rng.normal(size=30)
        low, high = paired_means(before, before + rng.normal(0.5, 1, 30), rng=rng, n_resamples=299).confidence_interval
        covered += low <= 0.5 <= high
    assert 0.89 < covered / 300 < 0.98


def test_one_unit_says_nothing_about_the_interval():
    result = paired_means([1.0], [3.0])
    assert result.difference == 2
    assert np.isnan(result.confidence_interval).all()


def test_values_that_are_no_pairs_are_refused():
    for before, after in (([1.0], [1.0, 2.0]), ([], []), ([np.nan], [1.0])):
        with pytest.raises(InputError, match="before"):
            paired_means(before, after)
