import math

import numpy as np
import pytest

from isaerft.errors import InputError
from isaerft.stats import compare_means, mean_interval


def test_the_best_is_compared_with_the_second_and_the_others_with_the_best():
    values = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 9.0], [3.0, 3.0, 3.0]])
    found = compare_means(values)
    assert [option.rank for option in found] == [3, 1, 2]
    assert [option.rival for option in found] == [1, 2, 1]
    assert [option.difference for option in found] == pytest.approx([-4, 3, -3])
    assert [option.mean for option in found] == pytest.approx([2, 6, 3])
    assert found[0].interval == mean_interval(values[0], 0.95)


def test_differences_are_paired_so_that_hard_replicates_do_not_hide_them():
    hard = np.random.default_rng(0).normal(size=8) * 10
    better, worse = compare_means(np.array([hard + 1, hard]))
    assert better.difference_interval == pytest.approx((1, 1))
    assert better.interval.low < worse.mean


def test_the_interval_of_a_mean_ends_where_it_cannot_be_and_that_of_a_difference_does_not():
    first, second = compare_means(np.array([[1.0, 1.0, 0.7], [0.1, 0.0, 0.0]]), bounds=(0.0, 1.0))
    assert (first.interval.high, second.interval.low) == (1.0, 0.0)
    assert first.difference_interval.high > 1


def test_equal_options_share_a_rank_and_differ_by_nothing():
    found = compare_means(np.array([[1.0, 2.0], [1.0, 2.0], [0.0, 0.5]]))
    assert [option.rank for option in found] == [1, 1, 3]
    assert found[0].difference_interval == (0, 0)
    assert (found[0].rival, found[1].rival) == (1, 0)


def test_the_choice_of_the_rival_does_not_make_false_differences():
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(400):
        found = compare_means(rng.normal(size=(5, 8)) + rng.normal(size=8))
        wrong += any(not option.difference_interval.low <= 0 <= option.difference_interval.high for option in found)
    assert wrong / 400 < 0.05 + 0.03


def test_one_option_has_no_rival_and_one_replicate_no_interval():
    (alone,) = compare_means([[1.0, 2.0]])
    assert alone.rival is None
    assert math.isnan(alone.difference)
    assert np.isnan(alone.difference_interval).all()
    first, _ = compare_means([[1.0], [0.0]])
    assert first.difference == 1
    assert np.isnan([*first.interval, *first.difference_interval]).all()


@pytest.mark.parametrize("values", [np.zeros((0, 3)), np.zeros((3, 0)), [[math.nan]]])
def test_nothing_to_compare_is_refused(values):
    with pytest.raises(InputError, match="values"):
        compare_means(values)
