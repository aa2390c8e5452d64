"""The null of exchanged units: what it is, exchange by exchange, and that tests by it hold their level."""

import numpy as np
import pytest

from isaerft.calibration import Dictionary, World, draw
from isaerft.stats import agreement_test, agreement_tests, joined, mean_rank, negative_controls, strata_of
from isaerft.stats.agreement import prepare_test
from isaerft.stats.confounds import smooth_confounds
from isaerft.stats.exchange import units_within
from isaerft.stats.nulls import FEW, _Studentized, linear_nulls
from isaerft.stats.shifts import Shifts
from tests.stats.test_shifts import positions_of


def groups_of(drawn):
    confounds = np.array([drawn.firing_rate, drawn.decoder_norm, drawn.density])
    strata = strata_of(*confounds, n_bins=3, clusters=drawn.clusters)
    return {"strata": strata, "clusters": drawn.clusters, "confounds": confounds}


@pytest.fixture(scope="module")
def world():
    drawn = draw(World(240, n_behaviors=3, confounding=0.4, clustered=0.3, odds_ratio=1.5), np.random.default_rng(0))
    return drawn, groups_of(drawn)


def prepared(drawn, groups, statistic="auroc"):
    own = {key: groups[key] for key in ("strata", "clusters")}
    labels = drawn.effect if statistic == "spearman" else drawn.expected
    return prepare_test(mean_rank(drawn.changes[0]), labels[0], statistic=statistic, **own)


@pytest.mark.parametrize("statistic", ["auroc", "spearman", "stratified_auroc", "precision_at_k"])
def test_the_null_is_that_of_the_formula_unit_by_unit(world, statistic):
    drawn, groups = world
    test = prepared(drawn, groups, statistic=statistic)
    smooth = smooth_confounds(groups["confounds"], groups["strata"], groups["clusters"])
    ((null, exact),) = linear_nulls(test.units, [(test.scorer, smooth)], 20, np.random.default_rng(5))
    assert not exact
    scorer, order = test.scorer, test.units.exchange.order
    labels, weights = scorer.labels.astype(float), scorer.scale * scorer.weights.astype(float)
    clusters = drawn.clusters
    r, s = weights - smooth.fitted(weights), labels - smooth.fitted(labels)
    y = np.array([r[clusters == unit].sum() for unit in range(clusters.max() + 1)])[order]
    u = np.array([s[clusters == unit].mean() for unit in range(clusters.max() + 1)])[order]
    for cell in test.units.exchange.cells:
        for part in (y, u):
            part[cell.start : cell.stop] -= part[cell.start : cell.stop].mean()
    unit = smooth.inflation * np.sqrt(((y * u) ** 2).sum())
    positions = positions_of(Shifts.draw(test.units.exchange, 20, np.random.default_rng(5)), len(y))
    moved = y * u[positions]
    wanted = test.value - (y * u).sum() + unit * moved.sum(axis=1) / np.sqrt((moved**2).sum(axis=1))
    assert null == pytest.approx(wanted)


def test_units_without_any_product_leave_what_the_confounds_explain():
    # Residuals of all labels are 0 where weights are not, whatever the exchange: nothing to divide by.
    units, y = units_within(40), np.zeros(40)
    test = _Studentized(0.5, y, np.random.default_rng(0).normal(size=40), 1.0)
    assert test.null(Shifts.draw(units.exchange, 9, np.random.default_rng(0))).tolist() == [0.5] * 9


def test_few_expected_units_are_exchanged_as_they_are(world):
    drawn, groups = world
    labels = np.zeros(240, bool)
    labels[np.flatnonzero(np.bincount(drawn.clusters)[drawn.clusters] == 1)[:3]] = True
    change = np.random.default_rng(0).normal(size=240) + 10.0 * labels
    perfect = agreement_test(change, labels, **groups, n_resamples=9999, rng=0)
    assert perfect.n_expected_units == 3 < FEW
    assert perfect.pvalue < 0.001  # studentized, it could not be below 0.014


def test_many_tests_have_the_nulls_of_each_alone(world):
    drawn, groups = world
    pairs = [(mean_rank(change), label) for change, label in zip(drawn.changes, drawn.expected, strict=True)]
    together = agreement_tests(pairs, **groups, n_resamples=99, rng=1)
    for pair, found in zip(pairs, together, strict=True):
        alone = agreement_test(*pair, **groups, n_resamples=99, rng=1)
        assert found.null_distribution == pytest.approx(alone.null_distribution)


def test_taking_confounds_out_leaves_the_statistic_and_its_interval_as_they_are(world):
    drawn, groups = world
    own = {key: groups[key] for key in ("strata", "clusters")}
    change, labels = mean_rank(drawn.changes[0]), drawn.expected[0]
    with_confounds = agreement_test(change, labels, **groups, n_resamples=99, rng=0)
    without = agreement_test(change, labels, **own, n_resamples=99, rng=0)
    assert with_confounds.statistic == without.statistic
    assert with_confounds.confidence_interval == without.confidence_interval


def test_too_few_latents_to_fit_anything_are_tested_within_strata_alone():
    rng = np.random.default_rng(0)
    change, labels, confounds = rng.normal(size=50), rng.random(50) < 0.3, rng.normal(size=(3, 50))
    fitted = agreement_test(change, labels, confounds=confounds, n_resamples=99, rng=0)
    assert np.array_equal(
        fitted.null_distribution, agreement_test(change, labels, n_resamples=99, rng=0).null_distribution
    )


def test_units_are_sets_of_latents_linked_by_any_group():
    assert joined([0, 0, 1, 2, 3], [5, 6, 6, 7, 8]).tolist() == [0, 0, 0, 1, 2]


def test_units_exchange_labels_with_units_of_about_their_size_and_their_stratum():
    sizes = np.array([1] * 40 + [2, 3, 2, 3, 2, 2] + [40, 50])
    codes = np.repeat(np.arange(len(sizes)), sizes)
    strata = (np.arange(len(codes)) % 2).astype(int)
    units = units_within(len(codes), strata, codes)
    cell_of = np.empty(len(sizes), int)
    for index, cell in enumerate(units.exchange.cells):
        cell_of[units.exchange.order[cell.start : cell.stop]] = index
    assert len(set(cell_of[:40])) == 2  # single latents, by stratum
    assert all(
        strata[codes == unit][0] == strata[codes == other][0]
        for unit in range(40)
        for other in range(40)
        if cell_of[unit] == cell_of[other]
    )
    assert not set(cell_of[:40]) & set(cell_of[40:])
    assert cell_of[-1] == cell_of[-2] == cell_of[40]  # two giants alone could hardly move


def co_moving(rng, n=400, size=8, correlation=0.3):
    """Return one change and one expectation by concept, in blocks of latents that move together, and the blocks."""
    blocks = np.arange(n) // size
    change = np.sqrt(correlation) * rng.normal(size=n)[blocks] + np.sqrt(1 - correlation) * rng.normal(size=n)
    return change, np.isin(blocks, rng.choice(n // size, 5, replace=False)), blocks


@pytest.mark.slow
def test_latents_of_one_text_that_move_together_make_no_false_positives_when_texts_are_exchanged():
    single, texts = [], []
    for seed in range(400):
        change, labels, blocks = co_moving(np.random.default_rng(seed))
        single.append(agreement_test(change, labels, n_resamples=99, rng=1000 + seed).pvalue)
        texts.append(agreement_test(change, labels, clusters=blocks, n_resamples=99, rng=1000 + seed).pvalue)
    assert np.mean(np.array(single) <= 0.05) > 0.12
    assert 0.02 < np.mean(np.array(texts) <= 0.05) < 0.085  # 0.05 +- 3.2 standard errors


@pytest.mark.slow
def test_other_trainings_take_out_a_confound_that_nobody_measured():
    with_controls, without = [], []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        hidden = rng.normal(size=400)
        changes = 0.5 * hidden + rng.normal(size=(8, 400))
        label = 0.5 * hidden + rng.normal(size=(8, 400))
        expected = label > np.quantile(label, 0.9, axis=1, keepdims=True)
        confounds = rng.normal(size=(2, 400))
        options = {"confounds": confounds, "n_resamples": 99, "rng": seed}
        controls = negative_controls(changes[1:], expected[1:])
        with_controls.append(agreement_test(changes[0], expected[0], controls=controls, **options).pvalue)
        without.append(agreement_test(changes[0], expected[0], **options).pvalue)
    assert np.mean(np.array(without) <= 0.05) > 0.6
    assert np.mean(np.array(with_controls) <= 0.05) < 0.25


@pytest.fixture(scope="module")
def null_worlds():
    base = World(300, n_behaviors=3, confounding=0.5, clustered=0.3)
    worlds = []
    for seed in range(250):
        rng = np.random.default_rng(seed)
        worlds.append(Dictionary(base, rng).behaviors(3, rng))
    return [(drawn, groups_of(drawn)) for drawn in worlds]


def rate(null_worlds, statistic, *, with_confounds):
    found = []
    for index, (drawn, groups) in enumerate(null_worlds):
        own = groups if with_confounds else {key: groups[key] for key in ("strata", "clusters")}
        labels = drawn.effect if statistic == "spearman" else drawn.expected
        pair = mean_rank(drawn.changes[0]), labels[0]
        found.append(agreement_test(*pair, statistic=statistic, **own, n_resamples=99, rng=index).pvalue <= 0.05)
    return np.mean(found)


@pytest.mark.slow
@pytest.mark.parametrize("statistic", ["auroc", "spearman"])
def test_a_smooth_confound_makes_no_false_positives_where_strata_alone_do(null_worlds, statistic):
    assert rate(null_worlds, statistic, with_confounds=False) > 0.1
    assert rate(null_worlds, statistic, with_confounds=True) < 0.1


def test_an_effect_is_found_as_often_as_without_confounds():
    world = World(400, odds_ratio=2.5)
    found = {"with": 0, "without": 0}
    for seed in range(60):
        drawn = draw(world, np.random.default_rng(seed))
        groups = groups_of(drawn)
        pair = mean_rank(drawn.changes[0]), drawn.expected[0]
        own = {"strata": groups["strata"]}
        found["with"] += agreement_test(*pair, **groups, n_resamples=99, rng=seed).pvalue <= 0.05
        found["without"] += agreement_test(*pair, **own, n_resamples=99, rng=seed).pvalue <= 0.05
    assert abs(found["with"] - found["without"]) <= 8
    assert found["with"] >= 45
