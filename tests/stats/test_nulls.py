"""The null with confounds taken out: what it is, exchange by exchange, and that tests by it hold their level."""

from dataclasses import replace

import numpy as np
import pytest

from isaerft.calibration import Dictionary, World, draw
from isaerft.stats import (
    STATISTICS,
    agreement_test,
    agreement_tests,
    mean_rank,
    overall_agreement,
    pooled_agreements,
    strata_of,
)
from isaerft.stats.agreement import prepare_test
from isaerft.stats.confounds import smooth_confounds
from isaerft.stats.exchange import exchange_within
from isaerft.stats.nulls import freedman_lane_null, studentised_mean_null, studentised_null


def groups_of(drawn):
    confounds = np.array([drawn.firing_rate, drawn.decoder_norm, drawn.density])
    strata = strata_of(*confounds, n_bins=3, clusters=drawn.clusters)
    return {"strata": strata, "clusters": drawn.clusters, "confounds": confounds}


@pytest.fixture(scope="module")
def world():
    drawn = draw(World(240, n_behaviors=3, confounding=0.4, clustered=0.3, odds_ratio=1.5), np.random.default_rng(0))
    return drawn, groups_of(drawn)


def prepared(drawn, groups, behavior=0, statistic="auroc"):
    exchange = exchange_within(len(drawn), groups["strata"], groups["clusters"])
    own = {key: groups[key] for key in ("strata", "clusters")}
    labels = drawn.effect if statistic == "spearman" else drawn.expected
    change = mean_rank(drawn.changes[behavior])
    return prepare_test(change, labels[behavior], statistic=statistic, exchange=exchange, **own)


@pytest.mark.parametrize("statistic", ["auroc", "spearman", "stratified_auroc", "precision_at_k"])
def test_the_null_is_that_of_the_formula_block_by_block(world, statistic):
    drawn, groups = world
    test = prepared(drawn, groups, statistic=statistic)
    smooth = smooth_confounds(groups["confounds"], groups["strata"], groups["clusters"])
    null = studentised_null(test.exchange, smooth, [test.scorer], 20, np.random.default_rng(5))[0]
    order, scorer = test.exchange.order, test.scorer
    labels, weights = scorer.labels.astype(float), scorer.weights.astype(float)
    s, r = (labels - smooth.fitted(labels))[order], (weights - smooth.fitted(weights))[order]
    for cell in test.exchange.cells:
        for part in (s, r):
            part[cell.start : cell.stop] -= np.tile(cell.blocks(part).mean(axis=0), cell.n_blocks)

    def sums(moved):
        return np.concatenate([(cell.blocks(moved) * cell.blocks(r)).sum(axis=1) for cell in test.exchange.cells])

    own = sums(s)
    error = scorer.scale * smooth.inflation * np.sqrt((own**2).sum())
    start = test.value - scorer.scale * own.sum()
    for places, found in zip(test.exchange.permutations(20, np.random.default_rng(5)), null, strict=True):
        each = sums(s[places])
        assert found == pytest.approx(start + error * each.sum() / np.sqrt((each**2).sum()), rel=1e-9)


def test_labels_that_stay_in_place_give_the_statistic_but_for_the_degrees_of_freedom(world):
    drawn, groups = world
    test, smooth = prepared(drawn, groups), smooth_confounds(groups["confounds"], groups["strata"], groups["clusters"])

    class Still:
        def permuted(self, rows, axis, out=None):
            return rows

    null = studentised_null(test.exchange, smooth, [test.scorer], 3, Still())[0]
    start = null.mean()
    mean = studentised_mean_null(test.exchange, smooth, [test.scorer], 3, Still())
    assert np.allclose(null, start)
    assert np.allclose(mean, null)
    assert start == pytest.approx(test.value, abs=0.05)


def test_the_mean_of_one_statistic_has_its_null(world):
    drawn, groups = world
    test, smooth = prepared(drawn, groups), smooth_confounds(groups["confounds"], groups["strata"], groups["clusters"])
    one = studentised_null(test.exchange, smooth, [test.scorer], 50, np.random.default_rng(1))[0]
    mean = studentised_mean_null(test.exchange, smooth, [test.scorer], 50, np.random.default_rng(1))
    np.testing.assert_allclose(one, mean, rtol=1e-10)


def test_taking_confounds_out_leaves_the_statistic_and_its_interval_as_they_are(world):
    drawn, groups = world
    pair = mean_rank(drawn.changes[0]), drawn.expected[0]
    with_them = agreement_test(*pair, n_resamples=99, rng=0, **groups)
    without = agreement_test(*pair, n_resamples=99, rng=0, **groups | {"confounds": None})
    assert with_them.statistic == without.statistic
    assert with_them.confidence_interval == without.confidence_interval
    assert with_them.null_mean != without.null_mean
    assert not with_them.exact


def test_many_tests_have_the_nulls_of_each_alone(world):
    drawn, groups = world
    pairs = [(mean_rank(drawn.changes[i]), drawn.expected[j]) for i in range(3) for j in range(2)]
    together = agreement_tests(pairs, n_resamples=60, rng=4, **groups)
    for pair, result in zip(pairs, together, strict=True):
        alone = agreement_test(*pair, n_resamples=60, rng=4, **groups)
        np.testing.assert_allclose(result.null_distribution, alone.null_distribution, rtol=1e-10)


def test_the_order_of_the_latents_does_not_matter():
    drawn = draw(World(240, confounding=0.4, odds_ratio=1.5), np.random.default_rng(1))
    groups = groups_of(drawn)
    shuffled = np.random.default_rng(2).permutation(len(drawn))
    change, labels = mean_rank(drawn.changes[0]), drawn.expected[0]
    options = {"n_resamples": 4999, "rng": 0}
    one = agreement_test(change, labels, **groups, **options)
    moved = {key: value[..., shuffled] for key, value in groups.items()}
    other = agreement_test(change[shuffled], labels[shuffled], **moved, **options)
    assert one.statistic == pytest.approx(other.statistic)
    assert one.null_mean == pytest.approx(other.null_mean, abs=0.003)
    assert one.null_sd == pytest.approx(other.null_sd, rel=0.05)


def test_too_few_latents_to_fit_anything_are_tested_within_strata_alone():
    rng = np.random.default_rng(0)
    change, labels, confounds = rng.normal(size=40), np.arange(40) < 8, rng.normal(size=(3, 40))
    with_them = agreement_test(change, labels, confounds=confounds, n_resamples=99, rng=1)
    assert np.array_equal(
        with_them.null_distribution, agreement_test(change, labels, n_resamples=99, rng=1).null_distribution
    )


@pytest.fixture(scope="module")
def null_worlds():
    """Draw 40 confounded dictionaries with 24 behaviors each, in which explanations say nothing."""
    made = World(200, confounding=0.5, clustered=0.2)
    drawn = []
    for index in range(40):
        rng = np.random.default_rng([8, index])
        drawn.append(Dictionary(made, rng).behaviors(24, rng))
    return [(one, groups_of(one)) for one in drawn]


def without_confounds(groups):
    return groups | {"confounds": None}


def rate(null_worlds, statistic, change_groups=lambda groups: groups, n_behaviors=24):
    """Return how often p <= 0.05; behaviors of a dictionary share their exchanges."""
    pvalues = []
    for drawn, groups in null_worlds:
        labels = drawn.effect if statistic == "spearman" else drawn.expected
        pairs = [(mean_rank(seeds), row) for seeds, row in zip(drawn.changes, labels, strict=True)][:n_behaviors]
        kind = replace(STATISTICS[statistic], interval="none")
        results = agreement_tests(pairs, statistic=kind, n_resamples=99, rng=0, **change_groups(groups))
        pvalues += [result.pvalue for result in results]
    return np.mean(np.array(pvalues) <= 0.05)


@pytest.mark.parametrize("statistic", ["auroc", "spearman"])
def test_a_smooth_confound_makes_no_false_positives_where_strata_alone_do(null_worlds, statistic):
    # 960 worlds: 0.05 has a standard deviation of 0.008, and a test at twice its level would not pass.
    assert rate(null_worlds, statistic) < 0.08
    assert rate(null_worlds, statistic, without_confounds) > 0.13


@pytest.mark.slow
def test_nor_for_a_statistic_that_is_not_linear(null_worlds):
    # Exchanging changes is conservative.
    assert rate(null_worlds, "enrichment", n_behaviors=6) < 0.075
    assert rate(null_worlds, "enrichment", without_confounds) > 0.09


@pytest.mark.slow
def test_nor_in_the_mean_over_behaviors_or_over_changes(null_worlds):
    for change_groups, low, high in ((lambda groups: groups, 0.0, 0.09), (without_confounds, 0.13, 1.0)):
        overall, pooled = [], []
        for drawn, groups in null_worlds:
            options = {"n_resamples": 99, "rng": 0} | change_groups(groups)
            pairs = [(mean_rank(seeds), labels) for seeds, labels in zip(drawn.changes, drawn.expected, strict=True)]
            overall += [overall_agreement(pairs[i : i + 3], **options).pvalue for i in range(0, 24, 3)]
            pools = [(seeds, labels[None]) for seeds, labels in zip(drawn.changes, drawn.expected, strict=True)]
            pooled += [result.pvalue for result in pooled_agreements(pools, **options)]
        for pvalues in (overall, pooled):
            assert low <= np.mean(np.array(pvalues) <= 0.05) < high


def test_an_effect_is_found_as_often_as_without_confounds():
    found = []
    for index in range(60):
        drawn = draw(World(400, odds_ratio=2.5), np.random.default_rng([9, index]))
        groups = groups_of(drawn)
        pair = mean_rank(drawn.changes[0]), drawn.expected[0]
        found.append(
            [
                agreement_test(*pair, n_resamples=99, rng=0, **groups).pvalue <= 0.05,
                agreement_test(*pair, n_resamples=99, rng=0, **groups | {"confounds": None}).pvalue <= 0.05,
            ]
        )
    with_them, without = np.mean(found, axis=0)
    assert with_them > without - 0.1
    assert without > 0.6


def test_changes_exchanged_in_place_of_labels_give_the_same_null_for_a_linear_statistic(world):
    drawn, groups = world
    test = prepared(drawn, groups)
    smooth = smooth_confounds(groups["confounds"], groups["strata"], groups["clusters"])
    linear = studentised_null(test.exchange, smooth, [test.scorer], 2000, np.random.default_rng(1))[0]
    rng = np.random.default_rng(2)
    moved = freedman_lane_null(test.exchange, smooth, test.change, test.value_of_changes, 1000, rng)
    assert moved.mean() == pytest.approx(linear.mean(), abs=0.01)
    assert moved.std() == pytest.approx(linear.std(), rel=0.25)
