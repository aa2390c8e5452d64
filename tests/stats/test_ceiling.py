import numpy as np
import pytest

from isaerft.errors import InputError
from isaerft.stats import auroc_ceiling_of_seed


def changes(noise, n_seeds=5, n=2000, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=n) + noise * rng.normal(size=(n_seeds, n))


def test_seeds_that_agree_entirely_allow_a_perfect_score():
    assert auroc_ceiling_of_seed(changes(0), 100) == 1


def test_seeds_of_pure_noise_allow_no_more_than_chance():
    rng = np.random.default_rng(0)
    assert auroc_ceiling_of_seed(rng.normal(size=(5, 4000)), 400) == pytest.approx(0.5, abs=0.03)


def test_the_ceiling_falls_with_the_seeds_noise():
    values = [auroc_ceiling_of_seed(changes(noise), 100) for noise in (0.1, 0.5, 1, 3)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.95
    assert values[-1] < 0.8


def test_an_oracle_of_one_seed_does_not_beat_the_ceiling_by_more_than_chance():
    measured = changes(1.0)
    truth = np.random.default_rng(0).normal(size=2000)
    from sklearn.metrics import roc_auc_score

    expected = truth >= np.sort(truth)[-100]
    singles = [roc_auc_score(expected, row) for row in measured]
    assert auroc_ceiling_of_seed(measured, 100) == pytest.approx(np.mean(singles), abs=0.05)


def test_it_is_by_hand_for_two_seeds():
    measured = [[1.0, 2, 3, 4], [4.0, 1, 2, 3]]
    # The oracle of seed 0 expects latent 0 (top of seed 1), worst in seed 0: 0. That of seed 1 expects 3: 2 of 3 below.
    assert auroc_ceiling_of_seed(measured, 1) == pytest.approx((0 + 2 / 3) / 2)


@pytest.mark.parametrize(("n_seeds", "n_expected"), [(1, 5), (3, 0), (3, 20)])
def test_it_is_undefined_with_one_seed_or_with_all_or_none_expected(n_seeds, n_expected):
    assert np.isnan(auroc_ceiling_of_seed(changes(1, n_seeds, 20), n_expected))


def test_nan_is_refused():
    with pytest.raises(InputError, match="NaN"):
        auroc_ceiling_of_seed([[1.0, np.nan, 2], [1, 2, 3]], 1)
