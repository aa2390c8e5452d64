import numpy as np
import pytest
from scipy.stats import false_discovery_control

from isaerft.errors import InputError
from isaerft.stats import qvalues


def test_qvalues_against_scipy_with_nan_passed_through():
    pvalues = np.random.default_rng(0).random(30) ** 2
    holes = np.insert(pvalues, [3, 17], np.nan)
    found = qvalues(holes)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(holes))
    np.testing.assert_allclose(found[~np.isnan(holes)], false_discovery_control(pvalues))


def test_nothing_to_correct_gives_nothing():
    assert qvalues([]).shape == (0,)
    assert np.isnan(qvalues([np.nan, np.nan])).all()


def test_shape_is_kept_and_all_entries_are_one_family():
    pvalues = np.random.default_rng(1).random((3, 4))
    np.testing.assert_allclose(qvalues(pvalues).ravel(), qvalues(pvalues.ravel()))


def test_what_is_no_pvalue_is_refused():
    with pytest.raises(InputError, match=r"1 p-values lie outside 0 to 1, such as 1.2"):
        qvalues([0.1, 1.2])
