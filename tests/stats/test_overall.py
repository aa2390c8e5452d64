"""Pooled controls and results over behaviors."""

from itertools import permutations, product

import numpy as np
import pytest
from scipy.stats import kstest, spearmanr, t, ttest_1samp

from isaerft.errors import InputError
from isaerft.stats import overall_agreement, overall_specificity, pooled_agreement


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def world(rng, n=200, n_behaviors=6, shift=0.0, shared=False):
    expected = rng.random((n_behaviors, n)) < 0.2
    if shared:
        expected[:] = expected[0]
    return rng.normal(size=(n_behaviors, n)) + shift * expected, expected


def test_the_estimate_is_the_mean_and_its_interval_that_of_a_t_test(rng):
    values = rng.random(6)
    result = overall_agreement(values)
    assert result.statistic == pytest.approx(values.mean())
    interval = ttest_1samp(values, 0).confidence_interval(0.95)
    assert result.confidence_interval == pytest.approx((interval.low, interval.high))
    without = [np.mean(np.delete(values, i)) for i in range(len(values))]
    assert result.leave_one_out == pytest.approx((min(without), max(without)))
    assert result.n_families == len(values)
    assert np.isnan(result.pvalue)


def test_variants_of_one_behavior_count_once():
    result = overall_agreement([0.6, 0.8, 0.5], families=[0, 0, 1])
    assert result.per_family.tolist() == pytest.approx([0.7, 0.5])
    assert result.statistic == pytest.approx(0.6)


def test_one_behavior_has_an_estimate_but_no_interval_over_behaviors():
    result = overall_agreement([0.7])
    assert result.statistic == 0.7
    assert np.isnan([*result.confidence_interval, *result.leave_one_out]).all()


def test_no_behavior_is_refused():
    with pytest.raises(InputError, match="no behavior"):
        overall_agreement([])


def test_specificity_is_diagonal_less_rest_and_exact(rng):
    matrix = rng.normal(0.5, 0.02, size=(5, 5)) + 0.3 * np.eye(5)
    result = overall_specificity(matrix)
    off = matrix[~np.eye(5, dtype=bool)]
    assert result.statistic == pytest.approx(np.diagonal(matrix).mean() - off.mean())
    assert result.per_family.mean() == pytest.approx(result.statistic)
    assert result.pvalue == pytest.approx(1 / 120)
    low, high = result.leave_one_out
    assert low < result.statistic < high
    assert result.confidence_interval.low < result.statistic < result.confidence_interval.high


def test_what_any_training_and_any_explanation_share_is_not_specific(rng):
    rows, columns = rng.normal(size=(2, 6))
    result = overall_specificity(rows[:, None] + columns[None, :] + rng.normal(0, 1e-3, (6, 6)))
    assert abs(result.statistic) < 2e-3
    assert result.pvalue > 0.01


def test_leaving_one_of_two_behaviors_out_leaves_nothing_to_be_specific_to():
    result = overall_specificity([[0.9, 0.5], [0.5, 0.8]])
    assert np.isnan(result.leave_one_out).all()
    assert result.pvalue == pytest.approx(0.5)


def pairwise(above, below):
    difference = above[:, None] - below[None]
    return (difference > 0).mean() + (difference == 0).mean() / 2


def brute_force(changes, expected, statistic):
    """Return every agreement, (S, J)."""
    score = {
        "auroc": lambda change, labels: pairwise(change[labels], change[~labels]),
        "spearman": lambda change, labels: spearmanr(change, labels).statistic,
    }[statistic]
    return np.array([[score(change, labels) for labels in expected] for change in changes])


def drawn_pool(n_changes, n_expected, n, statistic, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    changes = rng.integers(0, 4, (n_changes, n)).astype(float) if ties else rng.normal(size=(n_changes, n))
    if statistic == "spearman":
        return changes, rng.integers(0, 3, (n_expected, n)).astype(float)
    labels = np.zeros((n_expected, n), bool)
    for row in labels:
        row[rng.choice(n, rng.integers(1, n // 2 + 1), replace=False)] = True
    return changes, labels


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("n_changes", "n_expected"), [(1, 1), (4, 1), (1, 5), (3, 4)])
@pytest.mark.parametrize("statistic", ["auroc", "spearman"])
def test_the_estimate_is_the_mean_of_all_pairs(statistic, n_changes, n_expected, ties):
    changes, expected = drawn_pool(n_changes, n_expected, 30, statistic, ties=ties)
    result = pooled_agreement(changes, expected, statistic=statistic, n_resamples=99, rng=0)
    assert result.statistic == pytest.approx(brute_force(changes, expected, statistic).mean())


@pytest.mark.parametrize("statistic", ["auroc", "spearman"])
def test_the_null_is_that_of_exchanging_all_expectations_together(statistic):
    changes, expected = drawn_pool(2, 3, 6, statistic, seed=3)
    null = np.array(
        [brute_force(changes, expected[:, list(order)], statistic).mean() for order in permutations(range(6))]
    )
    result = pooled_agreement(changes, expected, statistic=statistic, n_resamples=20_000, rng=1)
    assert result.null_mean == pytest.approx(null.mean(), abs=0.01)
    assert result.null_sd == pytest.approx(null.std(), rel=0.03)
    exact = np.mean(null >= result.statistic - 1e-12)
    assert result.pvalue == pytest.approx(exact, abs=0.015)


def test_exchange_stays_within_strata():
    changes, expected = drawn_pool(2, 3, 8, "auroc", seed=5)
    strata = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    null = []
    for first, second in product(permutations(range(4)), permutations(range(4, 8))):
        null.append(brute_force(changes, expected[:, [*first, *second]], "auroc").mean())
    result = pooled_agreement(changes, expected, strata=strata, n_resamples=20_000, rng=1)
    assert result.null_mean == pytest.approx(np.mean(null), abs=0.005)
    assert result.null_sd == pytest.approx(np.std(null), rel=0.03)


def test_latents_of_one_cluster_are_exchanged_together():
    changes, expected = drawn_pool(1, 2, 8, "auroc", seed=7)
    expected = np.repeat(np.array([[1, 0, 0, 1], [0, 1, 0, 0]], bool), 2, axis=1)
    clusters = np.repeat(np.arange(4), 2)
    null = []
    for order in permutations(range(4)):
        moved = [2 * block + i for block in order for i in range(2)]
        null.append(brute_force(changes, expected[:, moved], "auroc").mean())
    result = pooled_agreement(changes, expected, clusters=clusters, n_resamples=20_000, rng=1)
    assert result.null_sd == pytest.approx(np.std(null), rel=0.03)


@pytest.mark.parametrize("statistic", ["auroc", "spearman"])
def test_pvalues_are_uniform_when_expectations_say_nothing_although_they_depend_on_each_other(statistic):
    rng = np.random.default_rng(0)
    pvalues = []
    for _ in range(300):
        shared = rng.normal(size=60)
        changes = shared + 0.5 * rng.normal(size=(3, 60))
        labels = rng.normal(size=60) + 0.5 * rng.normal(size=(4, 60))
        expected = labels > 0.8 if statistic == "auroc" else labels
        result = pooled_agreement(changes, expected, statistic=statistic, n_resamples=199, rng=rng)
        pvalues.append(result.pvalue)
    assert kstest(pvalues, "uniform").pvalue > 0.01
    assert np.mean(np.array(pvalues) <= 0.05) < 0.09


def test_agreement_that_is_there_is_found_and_the_p_value_is_never_zero():
    rng = np.random.default_rng(0)
    expected = np.arange(200) < 30
    result = pooled_agreement(rng.normal(size=(3, 200)) + 2 * expected, expected[None], n_resamples=99, rng=0)
    assert result.statistic > 0.85
    assert result.pvalue == 1 / 100


def test_ties_with_the_observed_value_count_against_it():
    result = pooled_agreement(np.ones((1, 6)), [[1, 0, 0, 1, 0, 0]], n_resamples=99, rng=0)
    assert result.statistic == 0.5
    assert result.pvalue == 1


@pytest.mark.parametrize(("n_changes", "n_expected"), [(5, 1), (5, 3), (1, 4)])
def test_the_interval_is_students_over_the_replicates(n_changes, n_expected):
    changes, expected = drawn_pool(n_changes, n_expected, 40, "auroc")
    pairs = brute_force(changes, expected, "auroc")
    replicates = pairs.mean(1) if n_changes > 1 else pairs[0]
    low, high = t.interval(
        0.9, len(replicates) - 1, replicates.mean(), replicates.std(ddof=1) / np.sqrt(len(replicates))
    )
    result = pooled_agreement(changes, expected, n_resamples=99, confidence_level=0.9, rng=0)
    assert result.confidence_interval.low == pytest.approx(low)
    assert result.confidence_interval.high == pytest.approx(high)


def test_one_change_and_one_expectation_have_no_interval():
    changes, expected = drawn_pool(1, 1, 40, "auroc")
    assert np.isnan(pooled_agreement(changes, expected, n_resamples=99, rng=0).confidence_interval).all()


def test_the_same_seed_gives_the_same_result():
    changes, expected = drawn_pool(2, 2, 40, "auroc")
    one, two, other = (pooled_agreement(changes, expected, n_resamples=199, rng=seed) for seed in (4, 4, 5))
    assert one == two
    assert one.null_sd != other.null_sd


@pytest.mark.parametrize(
    ("changes", "expected", "options", "message"),
    [
        (
            [[1, 2, 3]],
            [[1, 0, 0]],
            {"statistic": "enrichment"},
            "'enrichment'; allowed: auroc, sign_agreement",
        ),
        ([[1, np.nan, 3]], [[1, 0, 0]], {}, "NaN"),
        ([[1, 2, 3]], [[0, 0, 0]], {}, "none of the 3 latents"),
        ([[1, 2, 3]], [[1, 0, 0], [1, 1, 1]], {}, "all of the 3 latents"),
        ([[2, 2, 2]], [[1, 2, 3]], {"statistic": "spearman"}, "constant"),
        ([[1, 2, 3]], [[1.0, 1, 1]], {"statistic": "spearman"}, "expected is 1 for all"),
        ([[1, 2, 3]], [[1.0, np.nan, 1]], {"statistic": "spearman"}, "NaN"),
    ],
)
def test_what_cannot_be_pooled_is_refused(changes, expected, options, message):
    with pytest.raises(InputError, match=message):
        pooled_agreement(changes, expected, n_resamples=99, rng=0, **options)
