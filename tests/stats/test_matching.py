import numpy as np
import pytest

from isaerft.errors import InputError
from isaerft.stats import matched_draws


@pytest.fixture
def latents():
    """500 latents whose firing rates span four orders of magnitude, and the 30 that fire most often."""
    rng = np.random.default_rng(4)
    rate, norm = 10 ** rng.uniform(-4, 0, 500), rng.normal(1, 0.1, 500)
    return rate, norm, np.argsort(-rate)[20:50]


def rank_gap(values, draws, chosen):
    ranks = np.argsort(np.argsort(values)) / len(values)
    return np.abs(ranks[draws] - ranks[chosen]).mean()


def test_drawn_latents_are_alike_in_every_confound_where_random_ones_are_not(latents):
    rate, norm, chosen = latents
    draws = matched_draws(chosen, rate, norm, n_draws=40, rng=np.random.default_rng(0))
    free = np.setdiff1d(np.arange(500), chosen)
    plain = np.random.default_rng(0).choice(free, size=draws.shape)
    for values in (rate, norm):
        assert rank_gap(values, draws, chosen) < 0.12
        assert rank_gap(values, plain, chosen) > 0.25
    assert abs(np.log10(rate[draws]).mean() - np.log10(rate[chosen]).mean()) < 0.3


def test_a_draw_holds_no_chosen_latent_and_none_twice(latents):
    rate, norm, chosen = latents
    for draw in matched_draws(chosen, rate, norm, n_draws=50, rng=np.random.default_rng(1)):
        assert not set(draw) & set(chosen)
        assert len(set(draw)) == len(chosen)


def test_draws_differ_and_the_same_seed_gives_the_same_draws(latents):
    rate, norm, chosen = latents
    first, again = (matched_draws(chosen, rate, norm, n_draws=20, rng=np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(first, again)
    assert len({tuple(sorted(draw)) for draw in first}) == 20


def test_as_many_others_as_chosen_is_enough_and_fewer_are_refused():
    rate = np.arange(10.0)
    draws = matched_draws(np.arange(5), rate, n_draws=3, n_nearest=1, rng=np.random.default_rng(0))
    assert [sorted(draw) for draw in draws.tolist()] == [[5, 6, 7, 8, 9]] * 3
    with pytest.raises(InputError, match="6 latents are to be matched among 4 others"):
        matched_draws(np.arange(6), rate, n_draws=3, rng=np.random.default_rng(0))


def test_a_confound_that_is_constant_but_for_rounding_says_nothing():
    rate = np.arange(200.0)
    rounding = 1 + 1e-7 * np.random.default_rng(0).standard_normal(200)
    draws = matched_draws([50, 150], rate, rounding, n_draws=30, n_nearest=4, rng=np.random.default_rng(0))
    assert np.abs(draws - [50, 150]).max() <= 4
