"""Matched draws and case-control samples."""

import weakref

import numpy as np
import pytest

from isaerft.errors import InputError
from isaerft.stats import agreement_test, case_control, matched_draws, strata_of

N_WORLDS, ALPHA = 400, 0.05


def drawn(change, strata=None, clusters=None, *, n_cases=5, controls_per_case=2, rng=0):
    return case_control(change, strata, clusters, n_cases=n_cases, controls_per_case=controls_per_case, rng=rng)


def test_cases_are_the_most_changed_of_each_group_and_controls_are_cases_of_none():
    change = np.random.default_rng(0).exponential(size=(3, 200))
    sample = drawn(change)
    cases = sample.latents[sample.is_case]
    assert set(cases) == set(np.argsort(-change, axis=1)[:, :5].ravel())
    for group, row in enumerate(change):
        of_group = sample.latents[sample.drawn_for[group] & sample.is_case]
        assert set(of_group) == set(np.argsort(-row)[:5])
    assert sample.is_case.sum() * 2 == (~sample.is_case).sum()
    assert len(set(sample.latents)) == len(sample.latents)
    assert sample.n_lacking == 0


def test_a_control_is_of_its_cases_stratum_and_groups():
    rng = np.random.default_rng(1)
    change, strata = rng.exponential(size=(2, 300)), rng.integers(0, 10, 300)
    sample = drawn(change, strata, controls_per_case=3)
    assert (strata[sample.latents] == strata[sample.matched_to]).all()
    case_of = dict(zip(sample.latents, sample.drawn_for.T, strict=True))
    for latent, matched in zip(sample.latents, sample.matched_to, strict=True):
        assert (case_of[latent] == case_of[matched]).all()
    cases = sample.latents[sample.is_case]
    assert (sample.matched_to[sample.is_case] == cases).all()
    counts = [np.count_nonzero(sample.matched_to == case) - 1 for case in cases]
    assert max(counts) == 3


def test_the_same_seed_draws_the_same_and_another_seed_other_controls_but_the_same_cases():
    change = np.random.default_rng(2).exponential(size=(1, 500))
    one, same, other = drawn(change, rng=7), drawn(change, rng=7), drawn(change, rng=8)
    assert (one.latents == same.latents).all()
    assert set(one.latents[one.is_case]) == set(other.latents[other.is_case])
    assert set(one.latents) != set(other.latents)


def test_groups_that_come_one_at_a_time_draw_the_same_and_are_let_go():
    changes, strata = np.abs(np.random.default_rng(0).normal(size=(4, 200))), np.arange(200) % 3
    alive = []

    def one_at_a_time():
        for change in changes:
            part = change.copy()
            alive.append(weakref.ref(part))
            yield part
            del part
            assert all(reference() is None for reference in alive[:-1])

    clusters = np.arange(200) // 3
    options = {"n_cases": 5, "controls_per_case": 2, "rng": 0}
    found = case_control(one_at_a_time(), strata, clusters, **options)
    whole = case_control(changes, strata, clusters, **options)
    assert all(np.array_equal(getattr(found, name), getattr(whole, name)) for name in vars(whole))
    assert found.drawn_for.shape == (4, len(found.latents))


def test_controls_that_a_stratum_lacks_are_counted():
    change, strata = np.arange(10.0)[None], np.array([0] * 6 + [1] * 4)
    sample = drawn(change, strata, n_cases=2, controls_per_case=4)
    assert set(sample.latents) == {6, 7, 8, 9}
    assert sample.n_lacking == 2 * 4 - 2


def test_clusters_are_drawn_whole_and_matched_with_clusters_of_their_size():
    clusters = np.repeat(np.arange(50), 2)  # pairs, then singles
    clusters = np.concatenate([clusters, np.arange(50, 100)])
    change = np.zeros((1, 150))
    change[0, [4, 120]] = 1, 2  # one of a pair, and a single
    sample = drawn(change, None, clusters, n_cases=2, controls_per_case=3)
    chosen = set(sample.latents)
    assert {4, 5, 120} <= chosen
    assert all({latent for latent in range(150) if clusters[latent] == clusters[one]} <= chosen for one in chosen)
    sizes = np.bincount(np.unique(clusters[sample.latents], return_counts=True)[1])
    assert (sizes[1], sizes[2]) == (1 + 3, 1 + 3)


def test_a_latent_that_changed_no_more_than_the_least_is_no_case():
    change = np.zeros((2, 100))
    change[0, [3, 4]] = 1
    sample = drawn(change, n_cases=50, controls_per_case=1)
    assert set(sample.latents[sample.is_case]) == {3, 4}
    with pytest.raises(InputError, match="no latent changed more than another in any of 1 groups"):
        drawn(change[1:])


@pytest.mark.parametrize("bad", [{"n_cases": 0}, {"controls_per_case": 0}, {"n_cases": 1.5}])
def test_counts_below_one_are_refused(bad):
    with pytest.raises(InputError, match="at least 1"):
        drawn(np.arange(9.0)[None], **bad)


def world(seed, effect=0.0):
    """Return changes (2 groups), labels, strata and clusters of 600 latents; firing rate drives changes and labels.

    Given its stratum a latent's label says nothing about its change, unless `effect` is above 0. Clusters of three
    share their label, stratum and most of their change.
    """
    rng = np.random.default_rng(seed)
    rate = np.repeat(rng.exponential(size=500), [3] * 50 + [1] * 450)
    clusters = np.repeat(np.arange(500), [3] * 50 + [1] * 450)
    strata = strata_of(rate, n_bins=5, clusters=clusters)
    common = rng.normal(size=(2, 500))[:, clusters]
    label = (rng.uniform(size=500)[clusters]) < np.array([0.05, 0.1, 0.2, 0.35, 0.6])[strata % 5]
    change = 1.5 * (strata - 2) + common + 0.1 * rng.normal(size=(2, 600)) + effect * label
    return change, label, strata, clusters


def pvalue(seed, *, effect=0.0, keep_strata=True):
    """Return the p-value of one world's sample: its first group's changes against the labels."""
    change, label, strata, clusters = world(seed, effect)
    sample = drawn(np.abs(change), strata, clusters, n_cases=30, controls_per_case=2, rng=seed).latents
    own = strata[sample] if keep_strata else None
    own_clusters = clusters[sample]
    return agreement_test(
        change[0, sample], label[sample], strata=own, clusters=own_clusters, n_resamples=199, rng=seed
    ).pvalue


@pytest.mark.slow
def test_the_false_positive_rate_on_the_sample_is_the_level():
    rejected = np.mean([pvalue(seed) <= ALPHA for seed in range(N_WORLDS)])
    standard_error = np.sqrt(ALPHA * (1 - ALPHA) / N_WORLDS)
    assert abs(rejected - ALPHA) <= 3 * standard_error


def test_without_the_strata_of_the_draw_the_sample_would_reject_true_nulls():
    rejected = np.mean([pvalue(seed, keep_strata=False) <= ALPHA for seed in range(100)])
    assert rejected > 0.2


def test_an_effect_is_seen_on_the_sample():
    rejected = np.mean([pvalue(seed, effect=1.0) <= ALPHA for seed in range(100)])
    assert rejected > 0.8


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
