import numpy as np
import pytest

from isaerft.stats import recurrence, recurrence_by_chance

RNG = np.random.default_rng(0)


def frame(k, n, rng):
    return np.linalg.qr(rng.normal(size=(n, k)))[0].T


def test_the_same_components_recur_whatever_their_order_sign_and_length():
    reads, writes = RNG.normal(size=(3, 40)), frame(3, 12, RNG)
    order, signs, lengths = [2, 0, 1], np.array([[-1], [1], [-1]]), np.array([[3], [0.1], [7]])
    found = recurrence([reads, (reads * signs * lengths)[order]], [writes, (writes * signs)[order]])
    for seed in found:
        np.testing.assert_allclose(seed.read, 1)
        np.testing.assert_allclose(seed.write, 1)


def test_a_component_is_matched_by_both_sides_together():
    """Two components write alike; only what they read tells which is which."""
    writes = np.array([[1.0, 0.0], [1.0, 0.01]])
    reads = np.eye(2)
    first, second = recurrence([reads, reads[::-1]], [writes, writes])
    np.testing.assert_allclose(first.read, 1)
    assert (first.write > 0.99).all()
    np.testing.assert_allclose(second.read, 1)


def test_a_component_without_a_match_left_recurs_by_0():
    reads, writes = np.eye(3), np.eye(3)
    first, second = recurrence([reads, reads[:2]], [writes, writes[:2]])
    assert first.read.tolist() == [1, 1, 0]
    assert second.write.tolist() == [1, 1]


def test_recurrence_is_the_mean_over_the_other_seeds():
    one, other = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    found = recurrence([one, one, other], [one, one, one])
    assert [float(seed.read[0]) for seed in found] == [0.5, 0.5, 0]
    assert [float(seed.write[0]) for seed in found] == [1, 1, 1]


def test_with_one_seed_nothing_can_recur():
    (found,) = recurrence([np.eye(2)], [np.eye(2)])
    assert np.isnan(found.read).all()
    assert np.isnan(found.write).all()


@pytest.mark.parametrize(("k", "n_read", "n_write"), [(1, 30, 8), (4, 64, 64), (4, 400, 16)])
def test_chance_is_what_the_matching_finds_among_random_directions(k, n_read, n_write):
    rng = np.random.default_rng(3)
    drawn = []
    for _ in range(2000):
        seeds = [(rng.normal(size=(k, n_read)), frame(k, n_write, rng)) for _ in range(2)]
        found = recurrence(*zip(*seeds, strict=True))[0]
        drawn.append((found.read.mean(), found.write.mean()))
    read, write = np.mean(drawn, axis=0)
    chance = recurrence_by_chance(k, n_read, n_write, np.random.default_rng(2))
    assert chance.read == pytest.approx(read, rel=0.08)
    assert chance.write == pytest.approx(write, rel=0.08)


def test_directions_on_a_line_are_always_alike():
    assert recurrence_by_chance(1, 1, 1, np.random.default_rng(0)).read == 1
