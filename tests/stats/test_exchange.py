from collections import Counter
from math import comb

import numpy as np
import pytest
from scipy import stats as sp

from isaerft.errors import InputError
from isaerft.stats import exchange_within
from isaerft.stats.exchange import all_exchanges, draw_subsets, is_enumerable


@pytest.mark.parametrize("chosen", [1, 2, 4, 5])
def test_every_subset_of_a_cell_is_equally_likely(chosen):
    sizes = np.array([6, 30, 6])
    masks = draw_subsets(sizes, np.array([chosen, 9, 3]), 20_000, np.random.default_rng(chosen))
    assert (masks[:, :6].sum(axis=1) == chosen).all()
    assert (masks[:, 6:36].sum(axis=1) == 9).all()
    counts = Counter(map(bytes, masks[:, :6]))
    assert len(counts) == comb(6, chosen)
    assert sp.chisquare(list(counts.values())).pvalue > 1e-3


def test_large_cells_get_the_right_numbers_and_moments():
    sizes, chosen = np.array([70_000, 300, 40]), np.array([7_000, 290, 0])
    masks = draw_subsets(sizes, chosen, 60, np.random.default_rng(0))
    assert (np.add.reduceat(masks, np.array([0, 70_000, 70_300]), axis=1, dtype=int) == chosen).all()
    position = (masks[:, :70_000] @ np.arange(70_000)) / 7_000
    sd = np.sqrt(70_000**2 / 12 / 7_000 * 0.9)
    assert abs(position.mean() - 34_999.5) < 4 * sd / np.sqrt(60)
    assert 0.7 < position.std() / sd < 1.3


def test_two_elements_are_chosen_together_as_often_as_by_chance():
    masks = draw_subsets(np.array([200]), np.array([60]), 20_000, np.random.default_rng(1)).astype(float)
    together = (masks.T @ masks / len(masks))[np.triu_indices(200, 1)]
    expected = 60 * 59 / (200 * 199)
    z = (together - expected) / np.sqrt(expected * (1 - expected) / len(masks))
    assert abs(z.mean()) < 0.05
    assert 0.9 < z.std() < 1.1


def labels_with_ids(n):
    return np.arange(n, dtype=float)


def test_labels_stay_in_their_stratum():
    strata = np.array([3, 1, 1, 3, 3, 1, 7])
    exchange = exchange_within(7, strata)
    labels = labels_with_ids(7)[exchange.order]
    drawn = exchange.draw(labels, 50, np.random.default_rng(0))
    assert (strata[drawn.astype(int)] == strata[exchange.order]).all()
    assert len(np.unique(drawn, axis=0)) > 10


def test_clusters_exchange_as_blocks_of_equal_size_and_strata():
    clusters = np.array([0, 0, 1, 1, 2, 2, 3, 4, 4, 4])
    strata = np.array([0, 0, 0, 0, 5, 5, 0, 0, 0, 0])
    exchange = exchange_within(10, strata, clusters)
    labels = labels_with_ids(10)[exchange.order]
    seen = set()
    for drawn in exchange.draw(labels, 40, np.random.default_rng(0)):
        moved = np.empty(10, int)
        moved[exchange.order] = drawn.astype(int)
        seen.add(tuple(moved[:4]))
        assert moved[4:].tolist() == [4, 5, 6, 7, 8, 9]
    assert seen == {(0, 1, 2, 3), (2, 3, 0, 1)}


def test_a_cluster_across_strata_exchanges_only_with_one_across_the_same_strata():
    clusters, strata = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 1, 0, 0, 0])
    exchange = exchange_within(6, strata, clusters)
    labels = labels_with_ids(6)[exchange.order]
    for drawn in exchange.draw(labels, 20, np.random.default_rng(0)):
        assert (strata[drawn.astype(int)] == strata[exchange.order]).all()
    assert exchange.n_distinct(labels) == 2


def test_one_permutation_can_be_applied_to_several_label_sets():
    strata, clusters = np.array([0, 0, 0, 1, 1, 1, 1]), np.array([0, 1, 2, 3, 3, 4, 4])
    exchange = exchange_within(7, strata, clusters)
    for places in exchange.permutations(30, np.random.default_rng(0)):
        latents = exchange.order[places]
        assert sorted(latents) == list(range(7))
        assert (strata[latents] == strata[exchange.order]).all()
        assert set(map(tuple, latents[3:].reshape(2, 2))) == {(3, 4), (5, 6)}


@pytest.mark.parametrize("kind", ["yes_no", "graded", "clusters"])
def test_enumeration_gives_each_distinct_exchange_once_and_draws_stay_inside_it(kind):
    strata = np.array([0] * 5 + [1] * 4)
    clusters = np.array([0, 0, 1, 1, 2, 3, 4, 5, 6]) if kind == "clusters" else None
    labels = (
        np.array([1, 0, 0, 1, 0, 1, 1, 0, 0], bool) if kind != "graded" else np.array([1, 1, 2, 3, 3, 0, 1, 1, 0.5])
    )
    exchange = exchange_within(9, strata, clusters)
    labels = labels[exchange.order]
    every = np.concatenate(list(all_exchanges(exchange, labels, max_bytes=500)))
    rows = {tuple(row) for row in every}
    n = {"yes_no": comb(5, 2) * comb(4, 2), "graded": 30 * 12, "clusters": 2 * comb(4, 2)}[kind]
    assert len(every) == len(rows) == n == exchange.n_distinct(labels)
    assert tuple(labels) in rows
    drawn = [tuple(row) for row in exchange.draw(labels, 200 * n, np.random.default_rng(0))]
    counts = Counter(drawn)
    assert set(counts) == rows
    assert sp.chisquare(list(counts.values())).pvalue > 1e-3


def test_nothing_is_enumerated_beyond_the_number_of_resamples():
    exchange, labels = exchange_within(30), np.arange(30) < 15
    assert not is_enumerable(exchange, labels, 9999)
    assert is_enumerable(exchange, np.arange(30) < 2, 435)


def test_batches_are_bounded_in_memory_and_add_up():
    exchange, labels = exchange_within(1000), np.arange(1000) < 100
    batches = list(exchange.batches(labels, 250, np.random.default_rng(0), max_bytes=800_000))
    assert [len(batch) for batch in batches] == [100, 100, 50]


def test_strata_that_are_not_integers_are_refused():
    with pytest.raises(InputError, match=r"strata has dtype float64.*strata_of"):
        exchange_within(3, np.array([0.0, 1.0, 2.0]))
    with pytest.raises(InputError, match=r"clusters has shape \(2,\)"):
        exchange_within(3, None, np.array([0, 1]))
