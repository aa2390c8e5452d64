from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as sp

from isaerft.errors import InputError
from isaerft.stats import agreement_test, auroc, precision_at

NAMES = ["auroc", "enrichment", "precision_at_k", "spearman", "stratified_auroc"]


def world(seed, n=80, effect=0.5):
    rng = np.random.default_rng(seed)
    expected = rng.random(n) < 0.3
    return rng.normal(size=n) + effect * expected, expected, rng.integers(0, 4, n)


@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
def test_exact_pvalue_against_mannwhitneyu(alternative):
    change, expected, _ = world(1, n=12)
    result = agreement_test(change, expected, alternative=alternative)
    exact = sp.mannwhitneyu(change[expected], change[~expected], alternative=alternative, method="exact")
    assert result.exact
    assert result.pvalue == pytest.approx(exact.pvalue, abs=1e-12)


def test_exact_pvalue_against_permutation_test_for_spearman():
    rng = np.random.default_rng(0)
    change, graded = rng.normal(size=7), rng.normal(size=7)
    reference = sp.permutation_test(
        (change,), lambda x: sp.spearmanr(x, graded).statistic, permutation_type="pairings", alternative="greater"
    )
    assert agreement_test(change, graded, statistic="spearman").pvalue == pytest.approx(reference.pvalue, abs=1e-12)


def test_exact_stratified_pvalue_against_enumeration_by_hand():
    change = np.array([1.0, 2.0, 2.0, 5.0, 0.0, 3.0, 4.0])
    expected, strata = np.array([0, 1, 0, 1, 0, 0, 1], bool), np.array([0, 0, 0, 0, 1, 1, 1])
    values = []
    for first in combinations(range(4), 2):
        for second in (4, 5, 6):
            labels = np.isin(np.arange(7), [*first, second])
            values.append(float(auroc(change, labels)))
    result = agreement_test(change, expected, strata=strata)
    assert result.pvalue == np.mean(np.array(values) >= auroc(change, expected))
    np.testing.assert_allclose(np.sort(result.null_distribution), np.sort(values))


@pytest.mark.parametrize("statistic", NAMES)
def test_sampled_pvalue_agrees_with_the_enumerated_one(statistic):
    change, expected, strata = world(2, n=14)
    exact = agreement_test(change, expected, statistic=statistic, strata=strata // 2, n_resamples=10**5)
    sampled = agreement_test(
        change, expected, statistic=statistic, strata=strata // 2, n_resamples=exact.n_resamples - 1
    )
    assert exact.exact
    assert not sampled.exact
    sd = np.sqrt(exact.pvalue * (1 - exact.pvalue) / sampled.n_resamples)
    assert abs(sampled.pvalue - exact.pvalue) < 5 * sd + 1 / sampled.n_resamples


def test_p_never_zero_and_smallest_possible_when_agreement_is_perfect():
    expected = np.arange(400) < 60
    result = agreement_test(-np.arange(400.0), expected, n_resamples=999, rng=0)
    assert result.pvalue == 1 / 1000
    assert agreement_test(-np.arange(5.0), np.arange(5) < 2).pvalue == 1 / 10


def test_ties_with_the_observed_value_count_against_it():
    change, expected = np.array([0.0] * 30 + [1.0]), np.arange(31) == 30
    assert agreement_test(change, expected).pvalue == pytest.approx(1 / 31)
    assert agreement_test(change, np.arange(31) == 3).pvalue == 1.0
    many = np.arange(60) % 2 == 0
    p = agreement_test((np.arange(60) == 0).astype(float), many, n_resamples=2000, rng=0).pvalue
    assert p == pytest.approx(0.5, abs=0.05)


def test_the_same_seed_gives_the_same_result_and_another_gives_another():
    change, expected, strata = world(3)
    one, two, three = (agreement_test(change, expected, strata=strata, n_resamples=99, rng=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one.null_distribution, two.null_distribution)
    assert (one.null_distribution != three.null_distribution).any()


def test_result_is_frozen_and_counts_what_it_used():
    change, expected, strata = world(4)
    strata[:3], expected[:3] = 9, False
    result = agreement_test(change, expected, strata=strata, n_resamples=99, rng=0)
    assert (result.n_latents, result.n_expected, result.n_movable) == (80, expected.sum(), 77)
    assert result.n_resamples == len(result.null_distribution) == 99
    assert result.confidence_interval.low < result.statistic < result.confidence_interval.high
    with pytest.raises(AttributeError):
        result.pvalue = 0.0


def test_null_mean_shows_what_strata_explain():
    rng = np.random.default_rng(0)
    rate = np.repeat([0, 1], 500)
    expected = rng.random(1000) < np.where(rate, 0.5, 0.1)
    change = rng.normal(size=1000) + 2 * rate
    within = agreement_test(change, expected, strata=rate, n_resamples=499, rng=0)
    pooled = agreement_test(change, expected, n_resamples=499, rng=0)
    assert within.statistic == pooled.statistic
    assert within.null_mean > 0.65
    assert pooled.null_mean == pytest.approx(0.5, abs=0.01)
    assert agreement_test(
        change, expected, statistic="stratified_auroc", strata=rate, n_resamples=499, rng=0
    ).null_mean == pytest.approx(0.5, abs=0.01)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.permutations(range(4)))
def test_invariance_to_relabelling_strata_and_to_latent_order(seed, names):
    change, expected, strata = world(seed, n=16)
    if expected.sum() in (0, 16) or all(len(set(expected[strata == s])) < 2 for s in set(strata)):
        return
    base = agreement_test(change, expected, strata=strata, n_resamples=10**5)
    renamed = agreement_test(change, expected, strata=np.array(names)[strata] * 7 - 3, n_resamples=10**5)
    order = np.random.default_rng(seed).permutation(16)
    reordered = agreement_test(change[order], expected[order], strata=strata[order], n_resamples=10**5)
    assert base.pvalue == pytest.approx(renamed.pvalue) == pytest.approx(reordered.pvalue)
    assert base.statistic == pytest.approx(renamed.statistic) == pytest.approx(reordered.statistic)


def test_a_statistic_with_a_parameter_can_be_given_as_an_object():
    change, expected, _ = world(5)
    result = agreement_test(change, expected, statistic=precision_at(10), n_resamples=99, rng=0)
    assert result.statistic == pytest.approx(expected[np.argsort(-change)[:10]].mean())


GOOD, SOME = np.arange(6.0), np.arange(6) < 2


@pytest.mark.parametrize("statistic", NAMES)
@pytest.mark.parametrize(
    ("change", "expected", "match"),
    [
        (np.array([0, 1, np.nan, 2, 3, 4]), SOME, "1 NaN or infinite of 6"),
        (np.array([0, 1, np.inf, 2, 3, 4]), SOME, "1 NaN or infinite of 6"),
        (np.ones(6), SOME, "change is 1 for all 6 latents"),
        (GOOD[:1], SOME[:1], "change holds 1 latents"),
        (GOOD[:0], SOME[:0], "change holds 0 latents"),
        (GOOD.reshape(2, 3), SOME, r"shape \(2, 3\)"),
        (GOOD, SOME[:5], r"expected has shape \(5,\)"),
        (GOOD, np.ones(6), "all 6 latents|all of the 6"),
        (GOOD, np.zeros(6), "all 6 latents|none of the 6"),
        (GOOD, np.array([0, 1, np.nan, 0, 0, 0]), "expected holds 1 NaN"),
        (["a"] * 6, SOME, "not numeric"),
    ],
)
def test_degenerate_input_is_a_clear_error(statistic, change, expected, match):
    with pytest.raises(InputError, match=match):
        agreement_test(change, expected, statistic=statistic)


def test_strata_that_leave_nothing_to_exchange_are_a_clear_error():
    with pytest.raises(InputError, match=r"no exchange can change the labels.*fewer, larger strata"):
        agreement_test(GOOD, SOME, strata=np.arange(6))
    with pytest.raises(InputError, match="no exchange can change the labels"):
        agreement_test(GOOD, SOME, strata=SOME.astype(int))
    with pytest.raises(InputError, match=r"no exchange can change the statistic"):
        agreement_test(np.array([1, 1, 1, 2, 2, 2.0]), np.array([0, 1, 0, 0, 1, 0]), strata=[0, 0, 0, 1, 1, 1])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"alternative": "larger"}, "unknown alternative 'larger'"),
        ({"statistic": "auro"}, r"unknown statistic 'auro'.*did you mean 'auroc'"),
        ({"n_resamples": 0}, "n_resamples is 0"),
        ({"n_resamples": 9.5}, "n_resamples is 9.5"),
        ({"n_resamples": "many"}, "n_resamples is 'many'"),
        ({"n_resamples": float("inf")}, "n_resamples is inf"),
        ({"confidence_level": 95}, "confidence_level is 95"),
    ],
)
def test_wrong_options_are_a_clear_error(options, match):
    with pytest.raises(InputError, match=match):
        agreement_test(GOOD, SOME, **options)
