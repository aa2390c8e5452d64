import numpy as np
import pytest
from scipy.stats import false_discovery_control

from isaerft.errors import InputError
from isaerft.stats import family_qvalues, qvalues


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


def rejected(pvalues, families, level):
    """Return what Benjamini and Bogomolov's procedure, written out, rejects at `level`."""
    within = {name: qvalues(pvalues[families == name]) for name in np.unique(families)}
    selected = qvalues([found.min() for found in within.values()]) <= level
    allowed = level * selected.sum() / len(within)
    result = np.zeros(len(pvalues), bool)
    for (name, found), chosen in zip(within.items(), selected, strict=True):
        result[families == name] = chosen & (found <= allowed)
    return result


@pytest.mark.parametrize("world", range(20))
def test_a_family_qvalue_is_the_smallest_level_at_which_the_procedure_rejects(world):
    rng = np.random.default_rng(world)
    families = rng.integers(6, size=40)
    pvalues = np.where(rng.random(40) < 0.4, rng.beta(0.1, 10, size=40), rng.random(40))
    found = family_qvalues(pvalues, families)
    for level in (0.001, 0.01, 0.05, 0.2, 0.7):
        np.testing.assert_array_equal(found <= level, rejected(pvalues, families, level))


def test_one_family_is_that_of_benjamini_and_hochberg_and_undefined_tests_stay_out():
    pvalues = np.random.default_rng(2).random(20) ** 3
    np.testing.assert_allclose(family_qvalues(pvalues, np.zeros(20)), qvalues(pvalues))
    holes, families = np.append(pvalues, [np.nan, np.nan]), [*["a"] * 20, "a", "b"]
    np.testing.assert_allclose(family_qvalues(holes, families)[:20], qvalues(pvalues))
    assert np.isnan(family_qvalues(holes, families)[20:]).all()
    assert family_qvalues([], []).shape == (0,)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.3, 0.6, 0.8])
def test_a_null_table_among_true_ones_shows_a_finding_in_five_percent_of_studies(share):
    """One family of all tests shows some in 20 to 44 %."""
    shown, in_one = [], []
    families = np.repeat(np.arange(100), 16)
    for study in range(400):
        rng = np.random.default_rng([study, int(10 * share)])
        true = np.repeat(rng.random(100) < share, 16)
        true[:16] = False
        pvalues = np.where(true, rng.beta(0.05, 20, size=1600), rng.random(1600))
        shown.append((family_qvalues(pvalues, families)[:16] < 0.05).any())
        in_one.append((qvalues(pvalues)[:16] < 0.05).any())
    assert np.mean(shown) < 0.075
    assert np.mean(in_one) > 0.12
