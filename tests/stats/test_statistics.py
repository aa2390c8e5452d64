"""Each statistic against its definition, by another library or by hand."""

from dataclasses import replace
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as sp

from isaerft.errors import InputError
from isaerft.stats import (
    STATISTICS,
    agreement_test,
    agreement_tests,
    auroc,
    enrichment,
    precision_at,
    precision_at_k,
    sign_agreement,
    spearman,
    stratified_auroc,
)

NAMES = ["auroc", "enrichment", "precision_at_k", "spearman", "stratified_auroc"]


def tied_world(seed, n=60, levels=12):
    rng = np.random.default_rng(seed)
    return rng.integers(0, levels, n).astype(float), rng.random(n) < 0.3, rng.integers(0, 4, n)


def test_registry_lists_the_statistics():
    assert sorted(STATISTICS) == sorted([*NAMES, "sign_agreement"])


@pytest.mark.parametrize("seed", range(5))
def test_auroc_against_mannwhitneyu_with_ties(seed):
    change, expected, _ = tied_world(seed)
    u = sp.mannwhitneyu(change[expected], change[~expected]).statistic
    assert auroc(change, expected) == pytest.approx(u / (expected.sum() * (~expected).sum()), abs=1e-14)


@pytest.mark.parametrize("seed", range(5))
def test_stratified_auroc_against_pairs_counted_one_by_one(seed):
    change, expected, strata = tied_world(seed)
    wins = pairs = 0.0
    for i in np.flatnonzero(expected):
        for j in np.flatnonzero(~expected & (strata == strata[i])):
            wins += (change[i] > change[j]) + 0.5 * (change[i] == change[j])
            pairs += 1
    assert stratified_auroc(change, expected, strata) == pytest.approx(wins / pairs, abs=1e-14)


@pytest.mark.parametrize("seed", range(5))
def test_spearman_against_spearmanr_with_ties(seed):
    change, _, graded = tied_world(seed)
    assert spearman(change, graded) == pytest.approx(sp.spearmanr(change, graded).statistic, abs=1e-14)


def test_precision_at_k_is_the_mean_over_all_ways_to_break_ties():
    change = np.array([3.0, 2.0, 2.0, 2.0, 1.0])
    expected = np.array([True, True, False, False, True])
    assert precision_at_k(change, expected, k=2) == pytest.approx((1 + 1 / 3) / 2)
    assert precision_at_k(change, expected, k=4) == pytest.approx(2 / 4)


def enrichment_step_by_step(change, expected):
    ranks = sp.rankdata(change)
    sums, values = [0.0], np.sort(np.unique(change))[::-1]
    for value in values:
        above = change >= value
        sums.append(
            ranks[above & expected].sum() / ranks[expected].sum() - (above & ~expected).sum() / (~expected).sum()
        )
    return max(sums, key=lambda s: (abs(s), s))


@pytest.mark.parametrize("seed", range(5))
def test_enrichment_against_a_walk_down_the_list(seed):
    change, expected, _ = tied_world(seed)
    assert enrichment(change, expected) == pytest.approx(enrichment_step_by_step(change, expected), abs=1e-12)


@pytest.mark.parametrize("function", [auroc, spearman, precision_at_k, enrichment])
def test_many_label_sets_at_once_equal_one_by_one(function):
    rng = np.random.default_rng(0)
    change = rng.integers(0, 9, 40).astype(float)
    sets = rng.permuted(np.tile(np.arange(40) < 11, (2, 3, 1)), axis=-1)
    together = function(change, sets)
    assert together.shape == (2, 3)
    np.testing.assert_allclose(together[1, 2], function(change, sets[1, 2]), atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_a_bound_statistic_equals_the_plain_function(name):
    change, expected, strata = tied_world(3)
    scorer = STATISTICS[name].bind(change, expected, strata)
    plain = {"auroc": auroc, "spearman": spearman, "precision_at_k": precision_at_k, "enrichment": enrichment}
    value = stratified_auroc(change, expected, strata) if name == "stratified_auroc" else plain[name](change, expected)
    assert scorer(scorer.labels[None])[0] == pytest.approx(float(value), abs=1e-14)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=4, max_size=40).filter(lambda v: len(set(v)) > 1), st.randoms())
def test_invariance_to_monotone_transform_and_to_latent_order(values, random):
    change = np.array(values, dtype=float)
    n = len(change)
    expected = np.array([index % 3 == 0 for index in range(n)])
    order = np.array(random.sample(range(n), n))
    for function in (auroc, spearman, precision_at_k, enrichment):
        value = function(change, expected)
        np.testing.assert_allclose(function(np.arctan(change) * 5 + 2, expected), value, atol=1e-12)
        np.testing.assert_allclose(function(change[order], expected[order]), value, atol=1e-12)


def test_auroc_is_undefined_when_all_or_none_are_expected():
    change = np.arange(5.0)
    values = auroc(change, np.array([np.zeros(5, bool), np.ones(5, bool), np.arange(5) > 2]))
    assert np.isnan(values[:2]).all()
    assert values[2] == 1


def test_equal_aurocs_are_equal_to_the_bit():
    change = np.arange(7.0)
    values = auroc(change, np.array([[1, 0, 0, 0, 0, 1, 0], [0, 1, 0, 0, 1, 0, 0], [0, 0, 1, 1, 0, 0, 0]], dtype=bool))
    assert all(a == b for a, b in pairwise(values))


def test_graded_expectations_are_refused_where_yes_or_no_is_asked():
    with pytest.raises(InputError, match=r"holds the value 0.5.*spearman"):
        auroc(np.arange(4.0), [0, 0.5, 1, 0])


@pytest.mark.parametrize("k", [0, 41, 2.5])
def test_k_outside_the_latents_is_refused(k):
    with pytest.raises(InputError, match="k is"):
        precision_at(k).bind(np.arange(40.0), np.arange(40) < 5, np.zeros(40, int))


CHANGE = np.array([0.2, -1.0, 3.0, 0.0, -2.0])
EFFECT = np.array([1.0, -0.5, -1.0, 0.3, 0.0])


def test_it_is_the_share_that_moved_as_expected_less_the_share_that_moved_against():
    # Of four with an expected direction two moved that way, one against it, one not at all.
    assert sign_agreement(CHANGE, EFFECT) == pytest.approx((2 - 1) / 4)
    assert agreement_test(CHANGE, EFFECT, statistic="sign_agreement").statistic == pytest.approx(0.25)
    assert sign_agreement(CHANGE, [EFFECT, -EFFECT]).tolist() == [0.25, -0.25]
    assert np.isnan(sign_agreement(CHANGE, np.zeros(5)))


def test_only_signs_count():
    rng = np.random.default_rng(0)
    change, effect = rng.normal(size=40), rng.normal(size=40)
    stretched = sign_agreement(change**3 * 7, effect / 9)
    assert stretched == sign_agreement(change, effect)


def test_its_pvalue_is_that_of_every_exchange():
    result = agreement_test(CHANGE, EFFECT, statistic="sign_agreement")
    signs = np.sign(EFFECT)
    every = [float(np.sign(CHANGE) @ order) / 4 for order in permutations(signs)]
    assert result.exact
    assert result.pvalue == pytest.approx(np.mean(np.array(every) >= 0.25 - 1e-12))


def test_where_all_rise_and_all_are_expected_to_there_is_no_evidence():
    change, effect = np.arange(1.0, 41.0), np.r_[np.ones(20), np.zeros(20)]
    with pytest.raises(InputError, match="no exchange can change the statistic"):
        agreement_test(change, effect, statistic="sign_agreement")
    change[30:] *= -1
    with pytest.raises(InputError, match="no exchange can change the labels"):
        agreement_test(change, 1 - effect / 9, statistic="sign_agreement")


def test_without_any_expected_direction_it_is_refused():
    with pytest.raises(InputError, match="expected is 0 for all 5 latents"):
        agreement_test(CHANGE, np.zeros(5), statistic="sign_agreement")


def test_false_positives_stay_at_the_level_where_most_latents_rise_and_most_are_expected_to():
    rng = np.random.default_rng(1)
    pairs = [
        (rng.normal(size=120) + 0.8, np.where(rng.uniform(size=120) < 0.5, 0.0, rng.choice([1, -1], 120, p=[0.8, 0.2])))
        for _ in range(600)
    ]
    kind = replace(STATISTICS["sign_agreement"], interval="none")
    answers = agreement_tests(pairs, statistic=kind, n_resamples=199, rng=2)
    assert np.mean([answer.statistic for answer in answers]) > 0.2
    assert np.mean([answer.pvalue <= 0.05 for answer in answers]) < 0.08


def test_directions_that_agree_are_found():
    rng = np.random.default_rng(3)
    effect = np.where(rng.uniform(size=200) < 0.3, rng.choice([1.0, -1.0], 200), 0.0)
    result = agreement_test(rng.normal(size=200) + effect, effect, statistic="sign_agreement", rng=4)
    assert result.pvalue < 0.001
    assert result.confidence_interval.low < result.statistic < result.confidence_interval.high


def test_seeds_are_averaged_before_the_sign_is_taken_and_not_as_ranks():
    kind = STATISTICS["sign_agreement"]
    changes = np.array([[3.0, -0.1, 1.0], [-1.0, -0.1, 1.0]])
    assert kind.combine(changes).tolist() == [1.0, -0.1, 1.0]
    assert (STATISTICS["auroc"].combine(changes) > 0).all()
