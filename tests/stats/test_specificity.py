from collections import Counter
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from isaerft.errors import InputError
from isaerft.stats import STATISTICS, auroc, specificity_matrix, specificity_of, specificity_test


def behaviors(seed, n_behaviors=5, n=300, effect=0.8, shared=0.0):
    rng = np.random.default_rng(seed)
    common = rng.normal(size=n)
    expected = rng.random((n_behaviors, n)) < 1 / (1 + np.exp(1.5 - shared * common))
    return rng.normal(size=(n_behaviors, n)) + effect * expected + shared * common, expected


def test_matrix_holds_every_training_against_every_judgement():
    changes, expected = behaviors(0)
    matrix = specificity_matrix(changes, expected)
    assert matrix[3, 1] == pytest.approx(float(auroc(changes[3], expected[1])))
    assert specificity_matrix(changes[:2], expected).shape == (2, 5)


def test_exact_pvalue_against_every_matching_by_hand():
    matrix = np.random.default_rng(1).random((4, 4)) + 0.3 * np.eye(4)
    result = specificity_of(matrix)
    traces = [sum(matrix[i, column] for i, column in enumerate(order)) for order in permutations(range(4))]
    assert result.exact
    assert result.pvalue == np.mean(np.array(traces) >= np.trace(matrix) - 1e-12)
    off = matrix[~np.eye(4, dtype=bool)].mean()
    assert result.statistic == pytest.approx(np.diagonal(matrix).mean() - off)
    assert result.null_distribution.mean() == pytest.approx(0, abs=1e-12)


def test_own_explanations_are_found_though_behaviors_share_what_changes():
    changes, expected = behaviors(2, n_behaviors=8, shared=1.0)
    result = specificity_test(changes, expected)
    assert result.pvalue == 1 / 40_320
    assert len(result.null_distribution) == 40_320
    assert result.own_rank.tolist() == [1] * 8
    assert (result.own_minus_others > 0).all()


def test_level_is_held_when_changes_agree_with_any_behavior_alike():
    rejected = 0
    for seed in range(300):
        changes, expected = behaviors(seed, n=80, effect=0.0, shared=1.0)
        rejected += specificity_test(changes, expected).pvalue <= 0.05
    assert 0.01 < rejected / 300 < 0.09


def test_many_behaviors_are_sampled_and_p_is_never_zero():
    changes, expected = behaviors(3, n_behaviors=10, effect=2.0)
    result = specificity_test(changes, expected, n_resamples=199, rng=0)
    assert not result.exact
    assert result.pvalue == 1 / 200


def test_row_and_column_levels_do_not_matter():
    matrix = np.random.default_rng(4).random((5, 5))
    shifted = matrix + np.arange(5)[:, None] + 10 * np.arange(5)
    assert specificity_of(shifted).pvalue == pytest.approx(specificity_of(matrix).pvalue)


def test_own_rank_counts_ties_against_it():
    assert specificity_of(np.array([[0.5, 0.5], [0.2, 0.9]])).own_rank.tolist() == [2, 1]


def test_a_behavior_with_nothing_expected_is_named():
    changes, expected = behaviors(5)
    expected[2] = False
    with pytest.raises(InputError, match="changes row 0 against expected row 2: none of the 300"):
        specificity_test(changes, expected)


def test_matrices_that_cannot_be_matched_are_refused():
    with pytest.raises(InputError, match=r"\(2, 3\)"):
        specificity_of(np.ones((2, 3)))
    with pytest.raises(InputError, match="at least two behaviors"):
        specificity_of(np.ones((1, 1)))
    with pytest.raises(InputError, match="the same n"):
        specificity_matrix(np.ones((2, 4)), np.ones((2, 5)))


@pytest.mark.parametrize("statistic", ["auroc", "stratified_auroc", "spearman", "sign_agreement", "precision_at_k"])
@pytest.mark.parametrize("adjusted", [False, True])
def test_the_matrix_ranks_every_change_and_every_expectation_once_and_holds_what_each_pair_has(statistic, adjusted):
    rng = np.random.default_rng(0)
    changes, labels = rng.normal(size=(3, 200)), rng.normal(size=(4, 200)).round(1)
    labels = labels if STATISTICS.facts(statistic).graded else labels > 1
    options = {"strata": np.arange(200) % 3, "confounds": rng.normal(size=(2, 200)) if adjusted else None}
    kind, made = STATISTICS[statistic], Counter()

    def counted(name, function):
        def call(*arguments):
            made[name] += 1
            return function(*arguments)

        return call

    if kind.parts is not None:
        parts = replace(kind.parts, weigh=counted("weigh", kind.parts.weigh), read=counted("read", kind.parts.read))
        kind = replace(kind, bind=parts.bind, parts=parts)
    found = specificity_matrix(changes, labels, statistic=kind, **options)
    assert made == ({"weigh": 3, "read": 4} if kind.parts is not None else {})
    alone = replace(STATISTICS[statistic], parts=None)
    pairs = [[specificity_matrix([c], [label], statistic=alone, **options)[0, 0] for label in labels] for c in changes]
    assert np.array_equal(found, pairs)
