"""Exchanges by shifts: what they are, one by one, and that p-values from them are exact."""

import numpy as np
import pytest
from scipy import stats as sp

from isaerft.stats import agreement_test, exchange_within
from isaerft.stats.shifts import Shifts


def positions_of(shifts, n):
    """Return (n_resamples, n): in exchange i, the unit at position j gets the label that was at [i, j]."""
    first, second = shifts.orders
    found = np.tile(np.arange(n), (len(shifts.rounds), 1))
    start = 0
    for cell, drawn in zip(shifts.cells, shifts.shifts, strict=True):
        own = slice(start, start + cell.n_blocks)
        for i, (row, shift) in enumerate(zip(shifts.rounds, drawn, strict=True)):
            found[i, first[row, own]] = np.roll(second[row, own], -shift)
        start += cell.n_blocks
    return found


DESIGNS = {"one cell": np.zeros(60, int), "cells": np.r_[[9, 4, 4], np.arange(57) % 3 % 2], "alone": np.arange(60)}


@pytest.mark.parametrize("design", list(DESIGNS))
@pytest.mark.parametrize("n_resamples", [1, 7, 200])
def test_the_sums_are_those_of_permutations_within_cells(design, n_resamples):
    rng, exchange = np.random.default_rng(0), exchange_within(60, DESIGNS[design])
    shifts, (y, label) = Shifts.draw(exchange, n_resamples, rng), rng.normal(size=(2, 60))
    positions, strata = positions_of(shifts, 60), DESIGNS[design][exchange.order]
    assert positions.shape == (n_resamples, 60)
    assert (np.sort(positions, axis=1) == np.arange(60)).all()
    assert (strata[positions] == strata).all()
    np.testing.assert_allclose(shifts.sums(y, label), label[positions] @ y, atol=1e-12)


@pytest.mark.parametrize("design", ["one cell", "cells"])
def test_exchanges_of_the_observed_round_are_different_shifts_in_one_order_and_never_the_observed_labels(design):
    for seed in range(20):
        shifts = Shifts.draw(exchange_within(60, DESIGNS[design]), 99, np.random.default_rng(seed))
        first, second = shifts.orders
        (own,) = np.flatnonzero((first == second).all(axis=1))
        assert 100 // len(first) <= np.bincount(shifts.rounds)[own] + 1 <= 15  # the observed labels are one of 100
        combinations = {tuple(column) for column in shifts.shifts[:, shifts.rounds == own].T}
        assert len(combinations) == np.count_nonzero(shifts.rounds == own)
        assert not any(set(combination) == {0} for combination in combinations)


def test_few_units_are_permuted_independently():
    shifts = Shifts.draw(exchange_within(5), 2000, np.random.default_rng(0))
    assert len(shifts.orders[0]) == 2001
    counts = np.unique(positions_of(shifts, 5), axis=0, return_counts=True)[1]
    assert len(counts) == 120
    assert sp.chisquare(counts).pvalue > 1e-3


def test_every_unit_gets_every_label_of_its_cell_equally_often():
    positions = positions_of(Shifts.draw(exchange_within(40), 20_000, np.random.default_rng(0)), 40)
    counts = np.array([np.bincount(column, minlength=40) for column in positions.T])
    assert sp.chisquare(counts.ravel(), ddof=40 + 39).pvalue > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("n_cells", [1, 3])
def test_pvalues_of_exchangeable_labels_are_uniform(n_cells):
    rng = np.random.default_rng(n_cells)
    change, graded = np.arange(60.0) ** 2, np.exp(rng.normal(size=60))
    options = {"statistic": "spearman", "strata": np.arange(60) % n_cells, "n_resamples": 19}
    places = np.empty(4000)
    for i in range(len(places)):
        places[i] = round(20 * agreement_test(change, rng.permutation(graded), rng=rng, **options).pvalue)
    counts = np.bincount(places.astype(int), minlength=21)[1:]
    assert sp.chisquare(counts).pvalue > 1e-3


def test_the_pvalue_varies_as_with_independent_permutations():
    rng, exchange = np.random.default_rng(3), exchange_within(400, np.arange(400) % 8)
    y, label = rng.normal(size=400), rng.random(400) < 0.1
    observed = label.sum() * y.mean() + 1.3 * y.std() * np.sqrt(label.sum() * 0.9)
    found = [(Shifts.draw(exchange, 999, rng).sums(y, label.astype(float)) >= observed).mean() for _ in range(150)]
    p = np.mean(found)
    assert 0.05 < p < 0.5
    assert 0.8 < np.std(found) / np.sqrt(p * (1 - p) / 999) < 1.25  # 1 +- 4 standard errors
