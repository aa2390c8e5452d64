import numpy as np
import pytest

from isaerft.errors import InputError
from isaerft.stats import agreement_test, agreement_tests, exchange_within, nulls, pooled_agreement, pooled_agreements
from isaerft.stats.nulls import joint_null
from isaerft.stats.statistics import LinearScorer


def world(n=120, seed=0):
    rng = np.random.default_rng(seed)
    strata = rng.integers(0, 3, n)
    clusters = np.arange(n)
    clusters[1:12:2] = clusters[0:12:2]
    strata[1:12:2] = strata[0:12:2]
    return rng.normal(size=(4, n)) + strata, rng.random((3, n)) < 0.15, rng.normal(size=(2, n)), strata, clusters


@pytest.mark.parametrize("statistic", ["auroc", "stratified_auroc", "spearman", "precision_at_k", "enrichment"])
def test_answers_are_those_of_asking_one_by_one(statistic):
    changes, expected, graded, strata, clusters = world()
    labels = graded if statistic == "spearman" else expected
    pairs = [(change, label) for change in changes for label in labels]
    options = {"statistic": statistic, "strata": strata, "clusters": clusters, "n_resamples": 1999}
    for pair, found in zip(pairs, agreement_tests(pairs, **options, rng=0), strict=True):
        alone = agreement_test(*pair, **options, rng=1)
        assert found.statistic == alone.statistic
        assert (found.n_latents, found.n_expected, found.n_movable) == (
            alone.n_latents,
            alone.n_expected,
            alone.n_movable,
        )
        assert found.pvalue == pytest.approx(alone.pvalue, abs=0.06)
        assert found.null_mean == pytest.approx(alone.null_mean, abs=5 * alone.null_sd / np.sqrt(1999))
        assert found.null_sd == pytest.approx(alone.null_sd, rel=0.3 if statistic == "enrichment" else 0.1)
        if statistic not in ("enrichment", "precision_at_k"):  # whose intervals are bootstrapped
            assert found.confidence_interval == alone.confidence_interval


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_the_null_is_the_statistic_of_exchanged_labels(share):
    rng = np.random.default_rng(2)
    n = 40
    strata = np.repeat([0, 1], 20)
    exchange = exchange_within(n, strata)
    labels = (rng.random(n) < share).astype(float)
    labels[0] = 1
    weights = rng.integers(-9, 9, (3, n)).astype(float)
    null = joint_null(exchange, [LinearScorer(labels, row, 2.0, 0.5) for row in weights], 300, np.random.default_rng(7))
    drawn = exchange.permutations(300, np.random.default_rng(7))
    inverse = np.argsort(drawn, axis=1)
    ordered, ranked = labels[exchange.order], weights[:, exchange.order]
    forward = 0.5 + 2 * (ordered[drawn] @ ranked.T).T
    backward = 0.5 + 2 * (ordered[inverse] @ ranked.T).T
    assert np.array_equal(null, forward) or np.array_equal(null, backward)


def test_one_exchange_moves_all_expectations_so_their_dependence_is_kept():
    changes, expected, _, strata, _ = world()
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


def test_few_exchanges_are_enumerated():
    change, expected = np.array([3.0, 1.0, 2.0, 0.0]), np.array([True, False, False, False])
    (result,) = agreement_tests([(change, expected)], n_resamples=99, rng=0)
    assert result.exact
    assert result.pvalue == 0.25


def test_a_pair_that_cannot_be_tested_leaves_the_others_alone():
    changes, expected, *_ = world()
    bad, good = agreement_tests([(changes[0], np.zeros(120, bool)), (changes[0], expected[0])], n_resamples=99, rng=0)
    assert isinstance(bad, InputError)
    assert good.pvalue > 0


def test_small_batches_give_the_same_null(monkeypatch):
    changes, expected, _, strata, _ = world()
    pairs = [(change, expected[0]) for change in changes]
    whole = agreement_tests(pairs, strata=strata, n_resamples=500, rng=0)
    monkeypatch.setattr(nulls, "_GATHERED_BYTES", 4096)
    parts = agreement_tests(pairs, strata=strata, n_resamples=500, rng=0)
    for one, other in zip(whole, parts, strict=True):
        assert np.array_equal(one.null_distribution, other.null_distribution)


def test_many_pools_are_answered_as_one_by_one():
    changes, expected, _, strata, clusters = world(seed=4)
    options = {"strata": strata, "clusters": clusters, "n_resamples": 1999}
    pools = [(changes[:2], expected), (changes[2:], expected[:1])]
    for pool, found in zip(pools, pooled_agreements(pools, **options, rng=0), strict=True):
        alone = pooled_agreement(*pool, **options, rng=5)
        assert found.statistic == alone.statistic
        assert found.confidence_interval == alone.confidence_interval or len(pool[0]) == 1
        assert found.pvalue == pytest.approx(alone.pvalue, abs=0.06)


def test_the_joint_test_keeps_its_level():
    rng = np.random.default_rng(11)
    n, rejected = 60, []
    strata = np.repeat([0, 1, 2], 20)
    for _ in range(300):
        confound = strata + rng.normal(size=n)
        expected = rng.random(n) < 0.1 + 0.2 * strata
        results = agreement_tests([(confound, expected)], strata=strata, n_resamples=199, rng=rng)
        rejected += [result.pvalue <= 0.05 for result in results if not isinstance(result, InputError)]
    assert 0.02 < np.mean(rejected) < 0.09
