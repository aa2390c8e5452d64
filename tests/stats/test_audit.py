"""What two data sets teach differently: the moderated t, its factor for other rows, and the ranking of candidates."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from isaerft.errors import InputError
from isaerft.registry import STATISTICS, StatisticFacts
from isaerft.stats import agreement_test
from isaerft.stats.audit import MIN_SEEDS, taught_differently, variance_factor
from isaerft.stats.moderated import moderated_means
from isaerft.stats.statistics import AUROC, Statistic

N_SEEDS, N = 4, 300


def subsampled(rng, *, n_rows=100, share=0.5, n_seeds=N_SEEDS, n=50):
    """Effects of `n` latents, means over rows as training on a random share of them gives, for each seed."""
    rows = rng.normal(size=(n_rows, n))
    return np.array([rows[rng.permutation(n_rows)[: round(share * n_rows)]].mean(0) for _ in range(n_seeds)])


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_the_factor_turns_the_spread_of_subsamples_into_that_of_other_rows(share):
    rng = np.random.default_rng(0)
    drawn = np.array([subsampled(rng, share=share) for _ in range(300)])
    true = drawn.mean(1).var()
    told = variance_factor(share, N_SEEDS) * drawn.var(1, ddof=1).mean()
    assert abs(told / true - 1) < 0.1
    assert drawn.var(1, ddof=1).mean() / N_SEEDS < true / 1.5  # what seeds alone would say is too little


@pytest.mark.parametrize(("share", "n_seeds"), [(0.5, 6), (0.5, 4), (0.8, 4)])
def test_two_draws_of_one_origin_differ_significantly_as_often_as_the_level_says(share, n_seeds):
    rng = np.random.default_rng(1)
    rates = []
    for _ in range(60):
        pair = [subsampled(rng, share=share, n_seeds=n_seeds) for _ in range(2)]
        rates.append((moderated_means(pair[1] - pair[0], variance_factor(share, n_seeds)).pvalue < 0.05).mean())
    assert 0.03 < np.mean(rates) < 0.07


@pytest.mark.parametrize(
    ("values", "share"),
    [(np.ones((4, 5)), 1.0), (np.ones((1, 5)), 0.5), (np.ones((MIN_SEEDS - 1, 5)), 0.5)],
    ids=["all rows", "one", "three"],
)
def test_what_seeds_cannot_know_has_no_pvalue(values, share):
    found = moderated_means(values, variance_factor(share, len(values)))
    assert np.isnan(found.pvalue).all()
    assert np.isnan(found.statistic).all()
    assert (found.mean == 1).all()


@pytest.mark.parametrize("share", [0, 1.1, -1])
def test_a_share_of_rows_is_a_share(share):
    with pytest.raises(InputError, match="share of rows"):
        variance_factor(share, N_SEEDS)


class World:
    """Four candidates of 30 latents each; the suspect set raises those of `taught`."""

    def __init__(self, seed=0, taught=None, height=1.0, n_seeds=N_SEEDS):
        rng = np.random.default_rng(seed)
        self.expected = np.zeros((4, N), bool)
        for place in range(4):
            self.expected[place, 30 * place : 30 * place + 30] = True
        common = rng.normal(size=N)
        self.clean, self.suspect = (common + rng.normal(size=(n_seeds, N)) for _ in range(2))
        if taught is not None:
            self.suspect[:, self.expected[taught]] += height

    def asked(self, **options):
        return taught_differently(self.clean, self.suspect, self.expected, share=0.5, **options)


@pytest.mark.parametrize("taught", range(4))
def test_what_the_suspect_set_teaches_besides_stands_first_and_is_found(taught):
    found = World(seed=taught, taught=taught).asked()
    assert int(np.argmax([result.estimate for result in found])) == taught
    assert found[taught].pvalue < 0.05
    assert min(result.pvalue for place, result in enumerate(found) if place != taught) > 0.05


def test_what_both_teach_is_not_found_and_what_the_suspect_lacks_stands_last():
    world = World(taught=1)
    world.clean, world.suspect = world.suspect, world.clean
    found = world.asked()
    assert int(np.argmin([result.estimate for result in found])) == 1
    assert found[1].pvalue > 0.5
    world.suspect[:] = world.clean + np.random.default_rng(8).normal(size=world.clean.shape)
    assert min(result.pvalue for result in world.asked()) > 0.01


def test_the_estimate_is_the_mean_over_seeds_and_its_interval_holds_it():
    world = World(taught=2)
    for statistic, labels in (("auroc", world.expected), ("spearman", world.expected.astype(float))):
        by_seed = [
            stats.spearmanr(row, labels[2]).statistic
            if statistic == "spearman"
            else stats.mannwhitneyu(row[labels[2]], row[~labels[2]]).statistic / (30 * (N - 30))
            for row in world.suspect - world.clean
        ]
        found = taught_differently(world.clean, world.suspect, labels, share=0.5, statistic=statistic)[2]
        assert found.estimate == pytest.approx(np.mean(by_seed))
        assert found.confidence_interval.low < found.estimate < found.confidence_interval.high


def test_noise_of_the_rows_that_moves_a_candidates_latents_together_is_no_finding():
    """All seeds share their rows' noise: exchanges of explanations between latents call it a finding."""
    exchange, ours = [], []
    for seed in range(40):
        world = World(seed=100 + seed)
        rng = np.random.default_rng(seed)
        for changes in (world.clean, world.suspect):
            rows = rng.normal(size=(100, 4))
            for place, own in enumerate(world.expected):
                halves = np.array([rows[rng.permutation(100)[:50], place].mean() for _ in range(N_SEEDS)])
                changes[:, own] += 6 * halves[:, None]
        difference = (world.suspect - world.clean).mean(axis=0)
        exchanged = [agreement_test(difference, labels, n_resamples=199, rng=0).pvalue for labels in world.expected]
        exchange.append(min(exchanged) < 0.05 / 4)
        ours.append(min(result.pvalue for result in world.asked()) < 0.05 / 4)
    assert np.mean(exchange) > 0.5
    assert np.mean(ours) < 0.15


def test_nan_is_refused():
    world = World()
    world.clean[0, 0] = np.nan
    with pytest.raises(InputError, match="NaN"):
        world.asked()


def rows_move_candidates(rng, share, mixed):
    """Return two sets of one origin: rows move the 30 latents of each of 8 candidates together, some candidates alike.

    With so few rows per seed a candidate's AUROC is often near 0 or 1.
    """
    n_rows, candidates = 120, 8
    expected = np.repeat(np.eye(candidates, 10, dtype=bool), 30, axis=1)
    changes = []
    for _ in range(2):
        rows = rng.normal(size=(n_rows, candidates)) @ (np.eye(candidates) * (1 - mixed) + mixed)
        own = rng.normal(size=(n_rows, 300))
        drawn = [rng.permutation(n_rows)[: round(share * n_rows)] for _ in range(N_SEEDS)]
        noise = 0.3 * rng.normal(size=(N_SEEDS, 300))
        changes.append(np.array([6 * rows[one].mean(0) @ expected + 3 * own[one].mean(0) for one in drawn]) + noise)
    return *changes, expected


@pytest.mark.parametrize("share", [0.5, 0.8])
@pytest.mark.parametrize("mixed", [0.0, 0.5])
def test_the_pvalue_over_rows_and_the_interval_hold_though_candidates_share_noise_and_aurocs_are_extreme(share, mixed):
    rejected, held = [], []
    for world in range(60):
        clean, suspect, expected = rows_move_candidates(np.random.default_rng(world), share, mixed)
        found = taught_differently(clean, suspect, expected, share=share)
        rejected += [result.pvalue <= 0.05 for result in found]
        held += [result.confidence_interval.low <= 0.5 <= result.confidence_interval.high for result in found]
    assert np.mean(rejected) < 0.07
    assert 0.92 < np.mean(held) < 0.99


def test_a_statistic_of_another_package_is_audited_by_its_own_chance_and_bounds(monkeypatch):
    def twice_the_auroc_less_one(change, expected, strata):
        scorer = AUROC.bind(change, expected, strata)
        return replace(scorer, scale=2 * scorer.scale, offset=2 * scorer.offset - 1)

    facts = StatisticFacts(chance=0.0, bounds=(-1.0, 1.0))
    part = Statistic(twice_the_auroc_less_one, interval="none", facts=facts)
    monkeypatch.setitem(STATISTICS._parts, "somers_d", part)
    monkeypatch.setitem(STATISTICS._facts, "somers_d", facts)
    world = World(taught=2)
    plain, other = world.asked()[2], world.asked(statistic="somers_d")[2]
    assert other.estimate == pytest.approx(2 * plain.estimate - 1)
    assert other.pvalue == pytest.approx(plain.pvalue)
    assert other.confidence_interval.low == pytest.approx(2 * plain.confidence_interval.low - 1)
