"""The test of agreement: exact p-values, options, errors, and many pairs at once."""

from dataclasses import replace
from itertools import permutations, product

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
    exchange_pvalue,
    precision_at,
    precision_at_k,
    sign_agreement,
    spearman,
    strata_of,
    stratified_auroc,
)

NAMES = ["auroc", "enrichment", "precision_at_k", "spearman", "stratified_auroc"]
GRADED = ("spearman", "sign_agreement")


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
    change, graded = rng.normal(size=6), rng.normal(size=6)
    reference = sp.permutation_test(
        (change,), lambda x: sp.spearmanr(x, graded).statistic, permutation_type="pairings", alternative="greater"
    )
    assert agreement_test(change, graded, statistic="spearman").pvalue == pytest.approx(reference.pvalue, abs=1e-12)


DESIGNS = {
    "free": {},
    "strata": {"strata": np.array([0, 1, 0, 1, 1, 0, 0, 1])},
    "clusters": {"clusters": np.array([0, 0, 1, 1, 2, 2, 3, 4])},
}


def every_exchange(labels, strata=None, clusters=None):
    """Return each distinct exchange of labels (8,) that a design allows, found among all permutations."""
    n = len(labels)
    strata = np.zeros(n, int) if strata is None else strata
    clusters = np.arange(n) if clusters is None else clusters
    orders = np.array(list(permutations(range(n))))
    orders = orders[(strata[orders] == strata).all(axis=1)]
    for members in (np.flatnonzero(clusters == code) for code in np.unique(clusters)):
        # A cluster gets the labels of a single cluster of its size, in their order.
        source = clusters[orders[:, members]]
        whole = (source == source[:, :1]).all(axis=1) & (np.bincount(clusters)[source[:, 0]] == len(members))
        orders = orders[whole & (np.diff(orders[:, members], axis=1) > 0).all(axis=1)]
    return np.unique(labels[orders], axis=0)


def statistic_of(name, change, labels, strata):
    """Return a statistic of many label sets by its plain function."""
    if name == "stratified_auroc":
        return stratified_auroc(change, labels, np.zeros(len(change), int) if strata is None else strata)
    functions = {
        "auroc": auroc,
        "enrichment": enrichment,
        "precision_at_k": precision_at_k,
        "spearman": spearman,
        "sign_agreement": sign_agreement,
    }
    return functions[name](change, labels)


# Clusters exchange the labels of single latents only for statistics that are not linear in them.
@pytest.mark.parametrize(
    ("statistic", "design"),
    [*product([*NAMES, "sign_agreement"], ["free", "strata"]), ("enrichment", "clusters")],
)
def test_the_pvalue_is_the_share_of_all_exchanges_that_are_as_extreme(statistic, design):
    groups = DESIGNS[design]
    expected = np.array([0, 1, 0, 0, 1, 1, 0, 1], bool)
    effect = np.array([-0.5, 1.0, 0.5, -1.0, 0.5, 1.0, 0.25, 0.0])
    labels = effect if statistic in GRADED else expected
    allowed = every_exchange(np.sign(labels) if statistic == "sign_agreement" else labels, **groups)
    kind = replace(STATISTICS[statistic], interval="none")
    tied, untied = np.array([1.0, 3.0, 0.0, 0.0, -2.0, 3.0, 1.0, -1.0]), np.array([0.5, 3, 1, -4, 2, 6, -7, -8.0])
    for change in (tied, untied):
        values = statistic_of(statistic, change, allowed, groups.get("strata"))
        observed = statistic_of(statistic, change, labels, groups.get("strata"))
        greater, less = np.mean(values >= observed - 1e-12), np.mean(values <= observed + 1e-12)
        wanted = {"greater": greater, "less": less, "two-sided": min(1, 2 * min(greater, less))}
        for alternative, pvalue in wanted.items():
            options = {"statistic": kind, "alternative": alternative, "n_resamples": 50_000}
            result = agreement_test(change, labels, rng=0, **options, **groups)
            assert result.exact
            assert result.pvalue == pytest.approx(pvalue, abs=1e-12)
            assert result.statistic == pytest.approx(float(observed), abs=1e-12)
        np.testing.assert_allclose(np.sort(result.null_distribution), np.sort(values), atol=1e-12)


@pytest.mark.parametrize("design", ["free", "strata"])
def test_of_all_exchanges_a_share_of_exactly_the_level_is_called_significant(design):
    groups = DESIGNS[design]
    labels = np.array([0, 1, 0, 0, 1, 1, 0, 1], bool)
    allowed = every_exchange(labels, **groups)
    change = np.array([0.5, 3, 1, -4, 2, 6, -7, -8.0])
    results = agreement_tests([(change, row) for row in allowed], n_resamples=50_000, **groups)
    pvalues = np.sort([result.pvalue for result in results])
    # Never more than the level, and for exchanges with different statistics not less either.
    assert (pvalues >= np.arange(1, len(pvalues) + 1) / len(pvalues) - 1e-12).all()
    values = auroc(change, allowed)
    ranked = np.array([np.mean(values >= value - 1e-12) for value in np.sort(values)[::-1]])
    np.testing.assert_allclose(pvalues, ranked, atol=1e-12)


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
    clusters = np.r_[np.zeros(4, int), np.arange(1, 77)]
    expected[:4] = True
    result = agreement_test(change, expected, strata=strata, clusters=clusters, n_resamples=99, rng=0)
    assert (result.n_latents, result.n_expected) == (80, expected.sum())
    assert (result.n_units, result.n_expected_units) == (77, expected.sum() - 3)
    assert result.n_distinct == np.inf
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


def many_latents(n=120, seed=0):
    rng = np.random.default_rng(seed)
    strata = rng.integers(0, 3, n)
    clusters = np.arange(n)
    clusters[1:12:2] = clusters[0:12:2]
    strata[1:12:2] = strata[0:12:2]
    return rng.normal(size=(4, n)) + strata, rng.random((3, n)) < 0.15, rng.normal(size=(2, n)), strata, clusters


@pytest.mark.parametrize("statistic", ["auroc", "stratified_auroc", "spearman", "precision_at_k", "enrichment"])
def test_answers_are_those_of_asking_one_by_one(statistic):
    changes, expected, graded, strata, clusters = many_latents()
    labels = graded if statistic == "spearman" else expected
    pairs = [(change, label) for change in changes for label in labels]
    kind = STATISTICS[statistic]
    kind = replace(kind, interval="none") if kind.interval == "bootstrap" else kind
    options = {"statistic": kind, "strata": strata, "clusters": clusters, "n_resamples": 1999}
    for pair, found in zip(pairs, agreement_tests(pairs, **options, rng=0), strict=True):
        alone = agreement_test(*pair, **options, rng=1)
        assert found.statistic == alone.statistic
        assert (found.n_latents, found.n_expected) == (alone.n_latents, alone.n_expected)
        assert (found.n_units, found.n_expected_units) == (alone.n_units, alone.n_expected_units)
        assert found.pvalue == pytest.approx(alone.pvalue, abs=0.06)
        assert found.null_mean == pytest.approx(alone.null_mean, abs=5 * alone.null_sd / np.sqrt(1999))
        assert found.null_sd == pytest.approx(alone.null_sd, rel=0.3 if statistic == "enrichment" else 0.1)
        if kind.interval != "none":
            assert found.confidence_interval == alone.confidence_interval


def test_one_exchange_moves_all_expectations_so_their_dependence_is_kept():
    changes, expected, _, strata, _ = many_latents()
    first, second = agreement_tests([(changes[0], expected[0]), (changes[0], ~expected[0])], strata=strata, rng=0)
    assert np.allclose(first.null_distribution + second.null_distribution, 1)


def test_clusters_move_as_one():
    n = 60
    clusters = np.repeat(np.arange(n // 3), 3)
    expected = np.isin(clusters, [1, 4])
    change = np.where(clusters % 2, 1.0, 0.0) + np.arange(n) % 3 * 1e-3
    (together,) = agreement_tests([(change, expected)], clusters=clusters, n_resamples=180, rng=0)
    alone = agreement_test(change, expected, clusters=clusters, n_resamples=180, rng=3)
    assert (
        len(np.unique(together.null_distribution.round(9))) <= len(np.unique(alone.null_distribution.round(9))) <= 190
    )


def test_one_pair_is_tested_by_the_code_that_tests_many():
    changes, expected, _, strata, clusters = many_latents()
    confounds = np.random.default_rng(0).normal(size=(2, 120))
    for options in ({}, {"strata": strata, "clusters": clusters}, {"strata": strata, "confounds": confounds}):
        (one,) = agreement_tests([(changes[0], expected[0])], n_resamples=199, rng=3, **options)
        alone = agreement_test(changes[0], expected[0], n_resamples=199, rng=3, **options)
        assert np.array_equal(one.null_distribution, alone.null_distribution)
        assert (one.pvalue, one.confidence_interval) == (alone.pvalue, alone.confidence_interval)


def test_few_exchanges_are_enumerated():
    change, expected = np.array([3.0, 1.0, 2.0, 0.0]), np.array([True, False, False, False])
    (result,) = agreement_tests([(change, expected)], n_resamples=99, rng=0)
    assert result.exact
    assert result.pvalue == 0.25


def test_a_pair_that_cannot_be_tested_leaves_the_others_alone():
    changes, expected, *_ = many_latents()
    bad, good = agreement_tests([(changes[0], np.zeros(120, bool)), (changes[0], expected[0])], n_resamples=99, rng=0)
    assert isinstance(bad, InputError)
    assert good.pvalue > 0


@pytest.mark.slow
def test_strata_and_clusters_that_are_ignored_make_false_positives():
    confounded, duplicated = [], []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        level = rng.integers(0, 5, 200)
        expected = rng.random(200) < 0.1 + 0.12 * level
        confounded.append(agreement_test(rng.normal(size=200) + 0.5 * level, expected, n_resamples=99, rng=seed))
        # 60 latents alone and 20 groups of three near-duplicates that share change and label.
        clusters = np.concatenate([np.arange(60), np.repeat(np.arange(60, 80), 3)])
        change, expected = rng.normal(size=80)[clusters], (rng.random(80) < 0.3)[clusters]
        change = change + 0.05 * rng.normal(size=120)
        duplicated.append(agreement_test(change, expected, n_resamples=99, rng=seed))
    assert np.mean([result.pvalue <= 0.05 for result in confounded]) > 0.5
    assert np.mean([result.pvalue <= 0.05 for result in duplicated]) > 0.08


@pytest.mark.slow
def test_quantile_strata_hold_the_level_of_a_continuous_confound():
    within, free = [], []
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        rate = rng.normal(size=400)
        expected, change = rng.random(400) < 1 / (1 + np.exp(1.5 - rate)), rng.normal(size=400) + rate
        strata = strata_of(rate, n_bins=15, min_size=20)
        within.append(agreement_test(change, expected, strata=strata, n_resamples=99, rng=seed).pvalue)
        if seed < 50:
            free.append(agreement_test(change, expected, n_resamples=99, rng=seed).pvalue)
    # Bins leave a little of the confound, so the rate is above 0.05, but far from twice that.
    assert np.mean(np.array(within) <= 0.05) < 0.08
    assert np.mean(np.array(free) <= 0.05) > 0.9


def test_a_real_effect_is_found_inside_confounded_strata():
    found = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        level = rng.integers(0, 5, 600)
        expected = rng.random(600) < 0.1 + 0.12 * level
        change = rng.normal(size=600) + 0.5 * level + 0.5 * expected
        found += agreement_test(change, expected, strata=level, n_resamples=99, rng=seed).pvalue <= 0.05
    assert found >= 36


def test_the_observed_labels_count_among_sampled_exchanges():
    null = np.array([1.0, 3.0, 2.0, 0.0])
    found = {
        (alternative, exact): exchange_pvalue(2.0, null, alternative, exact=exact)
        for alternative in ("greater", "less", "two-sided")
        for exact in (False, True)
    }
    assert found == {
        ("greater", False): 3 / 5,
        ("greater", True): 2 / 4,
        ("less", False): 4 / 5,
        ("less", True): 3 / 4,
        ("two-sided", False): 1.0,
        ("two-sided", True): 1.0,
    }
    assert exchange_pvalue(9.0, null, "two-sided", exact=False) == 2 / 5
