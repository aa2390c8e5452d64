"""Absorption that was planted is found in held-out worlds, and only where it is."""

import numpy as np
import pytest

from benchmarks.absorption import LEVEL, Measured, calibrated, planted

PATTERN = "asymmetry of a pair"


@pytest.fixture(scope="module")
def tables():
    return planted(range(6), "relu"), planted(range(6, 12), "relu")


def found(fitted, heldout):
    return calibrated(fitted, heldout).set_index("pattern").loc[PATTERN]


@pytest.mark.slow
def test_most_absorbed_latents_are_found_and_few_others(tables):
    result = found(*tables)
    assert result.n >= 15
    assert result.sensitivity >= 0.8
    assert result.specificity >= 0.8
    assert result.right >= 0.7
    assert result.absorber < 0.4


@pytest.mark.slow
def test_nothing_is_found_where_the_truth_is_shuffled(tables):
    rng, fitted, heldout = np.random.default_rng(0), *tables
    mixed = [table.assign(role=rng.permutation(table.role.to_numpy())) for table in (fitted, heldout)]
    result = found(*mixed)
    assert result.auroc == pytest.approx(0.5, abs=0.15)
    assert result.sensitivity < 0.35


@pytest.mark.slow
def test_the_threshold_has_its_false_positive_rate_where_it_was_set(tables):
    result = found(tables[0], tables[0])
    assert result.specificity == pytest.approx(1 - LEVEL, abs=0.02)


def by_hand(*, quiet=0.0, carried=1.0):
    """Return a dictionary of two latents on tokens of a parent alone, of its child, and of neither, and the states."""
    state = np.repeat([0, 1, 2], 50)  # parent alone, child, neither
    parent, child = np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])
    tokens = np.where((state < 2)[:, None], parent, 0) + np.where((state == 1)[:, None], child, 0)
    active = np.stack([np.where(state == 0, 1.0, np.where(state == 1, quiet, 0)), state == 1], axis=1).astype(float)
    return Measured(tokens, active, np.stack([parent, carried * parent + child])), state


def pairs(measured, state):
    return measured.absorbed_by(state < 2, [state == 1], state == 2)


def test_a_latent_is_absorbed_if_it_is_silent_where_a_childs_latent_carries_its_direction():
    assert pairs(*by_hand()) == {(0, 1)}
    assert pairs(*by_hand(quiet=0.1)) == {(0, 1)}  # partial absorption: it fires, but weakly


def test_a_latent_that_fires_with_the_child_or_whose_direction_is_not_carried_is_not_absorbed():
    assert pairs(*by_hand(quiet=0.9)) == set()
    assert pairs(*by_hand(carried=0.2)) == set()


def test_states_that_are_shuffled_over_tokens_leave_no_absorption():
    measured, state = by_hand()
    assert pairs(measured, np.random.default_rng(0).permutation(state)) == set()
