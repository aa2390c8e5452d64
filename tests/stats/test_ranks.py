import numpy as np
import pytest
from scipy.stats import rankdata

from isaerft.stats.ranks import midranks, midranks_within


@pytest.mark.parametrize("n", [1, 2, 50, 824])
@pytest.mark.parametrize("levels", [1, 4, None])
def test_midranks_are_scipys_to_the_last_bit(n, levels):
    rng = np.random.default_rng(n)
    values = rng.normal(size=(3, n)) if levels is None else rng.integers(levels, size=(3, n)) * 0.1
    assert np.array_equal(midranks(values), rankdata(values, axis=-1))
    assert np.array_equal(midranks(values[0]), rankdata(values[0]))
    assert np.array_equal(midranks(np.array([0.0, -0.0, 1.0])), [1.5, 1.5, 3.0])


def test_ranks_within_groups_are_those_of_each_group_alone():
    rng = np.random.default_rng(0)
    groups, values = rng.choice([7, 2, 40], size=300), rng.integers(9, size=300) / 3
    found = midranks_within(values, groups)
    for group in (2, 7, 40):
        assert np.array_equal(found[groups == group], rankdata(values[groups == group]))
