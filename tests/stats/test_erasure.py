"""Erasers of a concept, on vectors of known truth."""

import numpy as np
import pytest

from isaerft.stats.erasure import (
    Samples,
    accuracy,
    discriminant,
    iterative,
    leace,
    mean_ablation,
    nothing_erased,
    random_directions,
)

D = 12


def drawn(rng, *, n_texts=60, n_tokens=4, shift=None, mixing=None):
    """Texts of two classes whose tokens differ by `shift`; texts of the behavior weigh unevenly."""
    text = np.repeat(np.arange(2 * n_texts), n_tokens)
    is_behavior = text < n_texts
    vectors = rng.standard_normal((len(text), D)) @ (np.eye(D) if mixing is None else mixing)
    vectors += np.where(is_behavior[:, None], np.zeros(D) if shift is None else shift, 0)
    weight = np.where(is_behavior, 1 + text % 3, 1.0)
    weight[is_behavior] /= weight[is_behavior].sum()
    weight[~is_behavior] /= weight[~is_behavior].sum()
    return Samples(vectors, is_behavior, weight, text)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def planted(rng):
    return drawn(rng, shift=rng.standard_normal(D), mixing=rng.standard_normal((D, D)))


def mean_change(samples, left):
    """Return the mean square change, the classes weighing alike."""
    return samples.weight @ ((samples.vectors - left) ** 2).sum(axis=1) / 2


@pytest.mark.parametrize("erase", [mean_ablation, leace])
def test_the_class_means_are_equal_after_erasure_and_the_mean_of_all_stays(planted, erase):
    left = planted.erased(erase(planted))
    assert np.abs(planted.difference).max() > 0.5
    np.testing.assert_allclose(left.difference, 0, atol=1e-10)
    np.testing.assert_allclose(left.center, planted.center, atol=1e-10)


def test_leace_is_the_least_change_that_makes_the_means_equal(planted, rng):
    """Every affine map that does so in one direction is x - (x - c) r d / (r d); those in more directions add to it."""
    least = mean_change(planted, leace(planted)(planted.vectors))
    difference, centered = planted.difference, planted.vectors - planted.center
    best = np.linalg.solve(planted.covariance(), difference)
    for scale in (1e-3, 1e-2, 0.1, 1.0):
        for _ in range(20):
            read = best + scale * np.linalg.norm(best) * rng.standard_normal(D)
            others = centered - np.outer(centered @ read / (read @ difference), difference)
            more = random_directions(planted, 1, rng)(others + planted.center)
            assert mean_change(planted, others + planted.center) > least
            assert mean_change(planted, more) > least
    assert mean_change(planted, mean_ablation(planted)(planted.vectors)) > 1.5 * least


def test_leace_is_mean_ablation_where_all_directions_vary_alike(rng):
    samples = drawn(rng, n_texts=4000, shift=2 * np.eye(D)[3])
    read, write = leace(samples).read[:, 0], leace(samples).write[0]
    np.testing.assert_allclose(read / np.linalg.norm(read), np.eye(D)[3], atol=0.05)
    np.testing.assert_allclose(write / np.linalg.norm(write), np.eye(D)[3], atol=0.05)


def test_leace_handles_directions_that_do_not_vary(planted):
    flat = Samples(planted.vectors * (np.arange(D) < 5), planted.is_behavior, planted.weight, planted.text)
    left = flat.erased(leace(flat))
    np.testing.assert_allclose(left.difference, 0, atol=1e-10)
    assert not left.vectors[:, 5:].any()


@pytest.mark.parametrize("name", ["mean", "leace", "iterative", "random"])
def test_erasing_twice_is_erasing_once_and_what_is_erased_cannot_be_written_back(planted, rng, name):
    eraser = {
        "mean": mean_ablation,
        "leace": leace,
        "iterative": lambda samples: iterative(samples, rng),
        "random": lambda samples: random_directions(samples, 3, rng),
    }[name](planted)
    assert eraser.n_directions >= 1
    once = eraser(planted.vectors)
    np.testing.assert_allclose(eraser(once), once, atol=1e-9)
    pushed = eraser(once + rng.standard_normal((len(once), D)))
    np.testing.assert_allclose((pushed - eraser.center) @ eraser.read, 0, atol=1e-9)


def test_classes_with_one_mean_are_left_as_they_are(planted):
    n = len(planted.vectors)
    twice, alike = np.vstack([planted.vectors] * 2), np.full(2 * n, 1 / n)
    same = Samples(twice, np.arange(2 * n) < n, alike, np.concatenate([planted.text, planted.text + n]))
    for erase in (mean_ablation, leace, nothing_erased):
        np.testing.assert_allclose(erase(same)(same.vectors), same.vectors, atol=1e-9)


def test_iterative_erasure_ends_once_texts_are_not_told_apart(rng):
    samples = drawn(rng, shift=1.5 * np.eye(D)[2])
    fresh = drawn(np.random.default_rng(1), n_texts=400, shift=1.5 * np.eye(D)[2])
    eraser = iterative(samples, rng)
    assert accuracy(fresh, *discriminant(samples))[0] > 0.9
    assert accuracy(fresh.erased(eraser), *discriminant(samples.erased(eraser)))[0] < 0.6
    assert 1 <= eraser.n_directions <= D // 2
    assert np.abs(eraser.write[0] @ np.eye(D)[2]) > 0.9


def test_iterative_erasure_of_nothing_erases_nothing_in_19_of_20_runs():
    found = [
        iterative(drawn(np.random.default_rng(seed)), np.random.default_rng(seed)).n_directions for seed in range(200)
    ]
    assert np.mean(np.array(found) > 0) == pytest.approx(0.05, abs=0.045)


def test_iterative_erasure_varies_from_run_to_run_and_repeats_with_its_seed(planted):
    first, again, other = (iterative(planted, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert np.array_equal(first.write, again.write)
    assert first.n_directions != other.n_directions or not np.allclose(first.write, other.write)
    np.testing.assert_allclose(first.write @ first.write.T, np.eye(first.n_directions), atol=1e-10)


def test_random_directions_are_orthonormal_and_know_nothing_of_the_classes(planted, rng):
    eraser = random_directions(planted, 4, rng)
    np.testing.assert_allclose(eraser.write @ eraser.write.T, np.eye(4), atol=1e-10)
    assert np.linalg.norm(planted.erased(eraser).difference) > 0.3 * np.linalg.norm(planted.difference)


def test_accuracy_is_that_of_texts_with_the_classes_weighing_alike():
    text = np.array([0, 0, 1, 2, 3, 3])
    is_behavior = np.array([True, True, True, False, False, False])
    vectors = np.array([[3.0], [-1.0], [-2.0], [1.0], [-5.0], [1.0]])
    weight = np.array([0.4, 0.4, 0.2, 0.5, 0.25, 0.25])
    # Text 0 (mean 1) is right and weighs 0.8 of its class, 1 is wrong; of the others 3 (mean -2) is right.
    correct, error = accuracy(Samples(vectors, is_behavior, weight, text), np.array([1.0]), 0.0)
    assert correct == pytest.approx((0.8 + 0.5) / 2)
    assert error == pytest.approx(np.sqrt((0.8**2 + 0.2**2) + 1 / 2) / 4)


def test_a_part_of_the_texts_has_weights_that_sum_to_1_in_each_class(planted):
    part = planted.of_texts(np.array([0, 7, 63]))
    assert set(part.text) == {0, 7, 63}
    for is_behavior in (True, False):
        assert part.weight[part.is_behavior == is_behavior].sum() == pytest.approx(1)
