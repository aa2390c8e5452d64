"""Families of behaviors that are variants of one another."""

import numpy as np
import pytest

from isaerft.errors import InputError
from isaerft.stats import families_of, overall_specificity, specificity_matrix, specificity_of
from isaerft.stats.families import family_means


def alike(rng, families, share=0.8, n=300, n_expected=15):
    """Return changes and expectations that behaviors of one family have mostly in common, and that are unrelated."""
    n_behaviors, n_families = len(families), max(families) + 1
    rows = []
    for _ in range(2):
        common = rng.normal(size=(n_families, n))[families]
        rows.append(np.sqrt(share) * common + np.sqrt(1 - share) * rng.normal(size=(n_behaviors, n)))
    expected = rows[1] >= np.sort(rows[1], axis=1)[:, [-n_expected]]
    return rows[0], expected


def test_variants_are_found_and_unrelated_behaviors_are_not_joined():
    families = np.array([0, 0, 1, 2, 2, 2, 3, 4])
    found = [families_of(*alike(np.random.default_rng(seed), families)) for seed in range(40)]
    assert np.mean([np.array_equal(one, families) for one in found]) > 0.9


def test_changes_or_expectations_alone_make_no_family():
    rng = np.random.default_rng(0)
    changes, expected = alike(rng, np.array([0, 0, 1, 1]))
    others = alike(rng, np.arange(4))
    assert families_of(changes, others[1]).tolist() == [0, 1, 2, 3]
    assert families_of(others[0], expected).tolist() == [0, 1, 2, 3]


def test_a_move_that_all_trainings_share_makes_no_family():
    rng = np.random.default_rng(0)
    changes, expected = alike(rng, np.arange(5))
    same = expected | expected[0]
    assert families_of(changes + 5 * rng.normal(size=300), same).tolist() == [0, 1, 2, 3, 4]


def test_declared_families_are_joined():
    changes, expected = alike(np.random.default_rng(0), np.arange(4))
    assert families_of(changes, expected, declared=[7, 8, 7, 9]).tolist() == [0, 1, 0, 2]


def test_means_are_over_all_pairs_of_behaviors():
    matrix = np.arange(9.0).reshape(3, 3)
    assert family_means(matrix, [0, 0, 1]).tolist() == [[2.0, 3.5], [6.5, 8.0]]


@pytest.mark.slow
def test_specificity_of_variants_holds_its_level_only_with_families():
    families = np.array([0, 0, 0, 1, 1, 2, 2])  # few enough to enumerate quickly
    plain, grouped, covered = [], [], []
    for seed in range(250):
        changes, expected = alike(np.random.default_rng(seed), families)
        matrix, found = specificity_matrix(changes, expected), families_of(changes, expected)
        if found.max() == 0:
            continue
        plain.append(specificity_of(matrix).pvalue)
        result = overall_specificity(matrix, families=found)
        grouped.append(result.pvalue)
        covered.append(result.confidence_interval.low <= 0 <= result.confidence_interval.high)
    assert np.mean(np.array(plain) <= 0.05) > 0.08
    assert np.mean(np.array(grouped) <= 0.05) < 0.08
    assert np.mean(covered) > 0.91


def test_one_family_has_no_specificity():
    with pytest.raises(InputError, match="1 independent behaviors"):
        specificity_of(np.eye(3), families=[0, 0, 0])


def test_shapes_must_agree():
    with pytest.raises(InputError, match="same shape"):
        families_of(np.zeros((2, 5)), np.zeros((3, 5)))
