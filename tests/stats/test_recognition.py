import numpy as np
import pytest
from scipy.stats import binom, permutation_test

from isaerft.stats.recognition import MIN_ITEMS, recognition


def overlaps(n, *, right, rng, noise=2):
    """Return overlaps of which the first `right` items are described alike, up to noise that all pairs have."""
    overlap = rng.integers(0, noise + 1, (n, n))
    overlap[np.arange(right), np.arange(right)] = 10
    return overlap


@pytest.mark.parametrize("n", [20, 30, 64])
def test_matching_lists_are_the_same_and_shifted_or_exchanged_ones_are_different(n):
    rng = np.random.default_rng(n)
    overlap = overlaps(n, right=n, rng=rng)
    assert recognition(overlap, rng).verdict == "same"
    for order in (np.roll(np.arange(n), 1), np.roll(np.arange(n), -1), rng.permutation(n)):
        found = recognition(overlap[:, order], rng)
        assert found.verdict == "different"
        assert found.n_recognized <= 3


def test_unrelated_lists_are_different_in_every_one_of_a_thousand_draws():
    rng = np.random.default_rng(0)
    found = [recognition(rng.integers(0, 3, (20, 20)), rng, n_exchanges=9).verdict for _ in range(1000)]
    assert found.count("different") == 1000


def test_lists_of_which_a_part_is_of_other_items_are_not_the_same():
    rng = np.random.default_rng(1)
    found = {
        right: {recognition(overlaps(64, right=right, rng=rng), rng, 9).verdict for _ in range(100)}
        for right in (0, 15, 32, 48)
    }
    assert found == {0: {"different"}, 15: {"different"}, 32: {"unclear"}, 48: {"unclear"}}


def test_the_thresholds_are_those_of_exact_binomial_tests():
    rng = np.random.default_rng(2)
    for n, right in ((20, 20), (20, 19), (64, 57), (64, 40), (64, 12)):
        found = recognition(np.where(np.eye(n), (np.arange(n) < right) * 2, 1), rng, 9)
        assert (found.n_items, found.n_recognized) == (n, right)
        assert found.p_same == pytest.approx(sum(binom.pmf(k, n, 0.75) for k in range(right, n + 1)))
        assert found.p_different == pytest.approx(sum(binom.pmf(k, n, 0.5) for k in range(right + 1)))


def test_few_items_decide_nothing():
    n = MIN_ITEMS - 1
    assert recognition(10 * np.eye(n), np.random.default_rng(0)).verdict == "unclear"
    assert recognition(1 - np.eye(n), np.random.default_rng(0)).verdict == "unclear"
    for n in (0, 1):
        found = recognition(np.ones((n, n)), np.random.default_rng(0))
        assert (found.verdict, found.p_exchange) == ("unclear", 1.0)


def test_a_tie_recognizes_nothing():
    assert recognition(np.ones((30, 30)), np.random.default_rng(0)).n_recognized == 0


def test_the_exchange_p_value_is_scipys():
    rng = np.random.default_rng(3)
    overlap = rng.integers(0, 4, (6, 6)) + 2 * np.eye(6, dtype=int)
    exact = permutation_test(
        (np.arange(6),), lambda order: overlap[np.arange(6), order.astype(int)].sum(),
        permutation_type="pairings", n_resamples=np.inf, alternative="greater",
    )  # fmt: skip
    assert recognition(overlap, rng, 99_999).p_exchange == pytest.approx(exact.pvalue, abs=0.005)
    uniform = [recognition(rng.integers(0, 9, (25, 25)), rng, 199).p_exchange for _ in range(400)]
    assert np.mean(np.array(uniform) <= 0.05) == pytest.approx(0.05, abs=0.03)
