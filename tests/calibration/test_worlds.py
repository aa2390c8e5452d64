"""Worlds are what they say: the effect, the confounding and the noise are those asked for."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from isaerft.calibration import WORLDS, Dictionary, World, draw, world_of
from isaerft.config import Calibration
from isaerft.stats import agreement_test, auroc, mean_rank, reliability
from isaerft.stats.power import auroc_of_odds_ratio


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("odds_ratio", [1.0, 1.9, 4.0])
@pytest.mark.parametrize("clustered", [0.0, 0.3])
def test_the_effect_is_the_odds_ratio_asked_for(odds_ratio, clustered):
    drawn = draw(World(60_000, odds_ratio=odds_ratio, clustered=clustered, reliability=1.0), rng())
    found = float(auroc(drawn.changes[0, 0], drawn.expected[0]))
    assert found == pytest.approx(auroc_of_odds_ratio(odds_ratio), abs=0.015)


@pytest.mark.parametrize("wanted", [0.3, 0.7])
def test_seeds_are_as_reliable_as_asked_for(wanted):
    drawn = draw(World(20_000, reliability=wanted), rng())
    assert reliability(drawn.changes[0]).icc_single == pytest.approx(wanted, abs=0.05)


def test_firing_rates_spread_over_decades_and_the_expected_share_is_that_asked_for():
    drawn = draw(World(5000, n_behaviors=2), rng())
    low, high = np.quantile(drawn.firing_rate, [0.05, 0.95])
    assert 100 < high / low < 2000
    assert (drawn.firing_rate < 1).all()
    assert drawn.expected.sum(axis=1).tolist() == [750, 750]
    assert set(np.unique(drawn.effect)) <= {round(step / 10, 1) for step in range(-10, 11)}
    assert drawn.effect[0][drawn.expected[0]].min() >= drawn.effect[0][~drawn.expected[0]].max()


def test_a_confound_is_seen_in_changes_and_in_explanations_and_only_where_asked_for():
    for name, low, high in (("plain", 0.47, 0.53), ("confounded", 0.56, 0.70), ("strongly_confounded", 0.62, 0.85)):
        drawn = draw(world_of(name, n_latents=20_000), rng())
        assert low < float(auroc(drawn.firing_rate, drawn.expected[0])) < high
        correlation = spearmanr(drawn.firing_rate, drawn.changes[0, 0]).statistic
        assert abs(correlation) < 0.03 if name == "plain" else correlation > 0.1


def test_within_the_levels_of_a_stepwise_confound_none_is_left():
    drawn = draw(world_of("stepwise", n_latents=40_000), rng())
    assert float(auroc(drawn.changes[0, 0], drawn.expected[0])) > 0.55
    for level in np.unique(drawn.level):
        here = drawn.level == level
        assert float(auroc(drawn.changes[0, 0][here], drawn.expected[0][here])) == pytest.approx(0.5, abs=0.05)


def test_without_spread_every_behavior_is_confounded_alike():
    made = World(4000, n_behaviors=30, confounding=0.6)
    rates = {}
    for spread in (0, 0.5):
        drawn = draw(replace(made, confounding_spread=spread), rng())
        rates[spread] = np.std([float(auroc(drawn.firing_rate, labels)) for labels in drawn.expected])
    assert rates[0] < 0.6 * rates[0.5]


def test_unknown_levels_confound_as_known_ones_do_and_no_stratum_knows_them():
    drawn = draw(world_of("jump_confounded", n_latents=20_000), rng())
    assert not drawn.level.any()
    assert float(auroc(drawn.changes[0, 0], drawn.expected[0])) > 0.53


def test_a_folded_confound_is_at_both_ends_of_the_firing_rate():
    drawn = draw(world_of("folded_confounded", n_latents=20_000), rng())
    assert abs(spearmanr(drawn.firing_rate, drawn.changes[0, 0]).statistic) < 0.03
    assert float(auroc(drawn.changes[0, 0], drawn.expected[0])) > 0.53
    far = np.abs(np.log(drawn.firing_rate) - np.log(drawn.firing_rate).mean())
    assert spearmanr(far, drawn.changes[0, 0]).statistic > 0.1


def test_near_duplicates_share_changes_and_explanations():
    drawn = draw(world_of("clustered", n_latents=6000), rng())
    sizes = np.bincount(drawn.clusters)
    assert np.isin(sizes, [1, 2, 3, 4, 5, 6]).all()
    assert sizes[sizes > 1].sum() == pytest.approx(1800, abs=6)
    first, second = np.array([np.flatnonzero(drawn.clusters == code)[:2] for code in np.flatnonzero(sizes > 1)]).T
    for values in (drawn.changes[0, 0], drawn.effect[0], np.log(drawn.firing_rate)):
        assert np.corrcoef(values[first], values[second])[0, 1] > 0.55


def test_behaviors_share_their_latents():
    dictionary = Dictionary(World(20_000), rng())
    drawn = dictionary.behaviors(2, rng(1))
    again = dictionary.behaviors(1, rng(2))
    for one, other in ((drawn.changes[0, 0], drawn.changes[1, 0]), (drawn.changes[0, 0], again.changes[0, 0])):
        assert 0.1 < np.corrcoef(one, other)[0, 1] < 0.5
    assert 0.1 < np.corrcoef(drawn.effect)[0, 1] < 0.5


def test_another_odds_ratio_changes_nothing_but_the_effect():
    first, second = (draw(World(300, odds_ratio=ratio, clustered=0.3), rng(3)) for ratio in (1.2, 4.0))
    assert np.array_equal(first.expected, second.expected)
    assert np.array_equal(first.firing_rate, second.firing_rate)
    rise = [mean_rank(one.changes[0])[first.expected[0]].mean() for one in (first, second)]
    assert rise[1] > rise[0] + 0.1


def test_the_config_allows_the_worlds_that_there_are():
    assert Calibration().worlds == list(WORLDS)


def test_a_world_can_be_tested_as_a_study_is():
    drawn = draw(World(400, odds_ratio=4.0, clustered=0.3), rng(4))
    result = agreement_test(mean_rank(drawn.changes[0]), drawn.expected[0], clusters=drawn.clusters, rng=0)
    assert result.pvalue < 0.001


def seed_free(name, n_latents=4000, n_behaviors=8, **other):
    """Return a draw of a world in which seeds do not differ."""
    return draw(replace(world_of(name, n_latents, n_behaviors), reliability=1.0, n_seeds=1, **other), rng())


def test_latents_of_one_concept_carry_one_text_and_move_together():
    for name in ("co_moving", "geometry"):
        drawn = seed_free(name)
        k = int(drawn.texts.max()) + 1
        assert 8 < len(drawn) / k < 12
        per_text = np.array([np.bincount(drawn.texts, weights=labels) for labels in drawn.expected])
        assert (np.isin(per_text, [0]) | (per_text == np.bincount(drawn.texts))).all()
        assert drawn.expected.mean(axis=1) == pytest.approx(0.05, abs=0.01)
        own, other = (drawn.changes[0, 0] - drawn.changes[0, 0].mean(), np.bincount(drawn.texts))
        between = (np.bincount(drawn.texts, weights=own) ** 2 - np.bincount(drawn.texts, weights=own**2)).sum()
        assert between / (other * (other - 1)).sum() / own.var() == pytest.approx(0.2, abs=0.05)


def test_in_the_residual_stream_changes_are_directions_and_no_two_latents_are_near_duplicates():
    world = replace(world_of("geometry", 400, 70), reliability=1.0, n_seeds=1)
    dictionary = Dictionary(world, rng())
    changes = np.array([dictionary._moves(1, rng(seed))[0] for seed in range(100)])
    assert np.linalg.matrix_rank(changes) == world.n_directions
    cosines = dictionary.decoder @ dictionary.decoder.T
    np.fill_diagonal(cosines, 0)
    assert cosines.max() < 0.9
    same = dictionary.texts[:, None] == dictionary.texts
    np.fill_diagonal(same, False)
    assert cosines[same].mean() == pytest.approx(0.2, abs=0.05)


def test_an_unmeasured_confound_is_in_changes_and_explanations_and_nothing_known_tells_of_it():
    drawn = seed_free("unmeasured", 20_000, 1)
    assert float(auroc(drawn.changes[0, 0], drawn.expected[0])) > 0.53
    for known in (drawn.firing_rate, drawn.decoder_norm, drawn.density):
        assert float(auroc(known, drawn.expected[0])) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(("name", "alike"), [("unmeasured", True), ("unlike_placebos", False)])
def test_placebo_trainings_are_confounded_as_behaviors_are_or_not_at_all(name, alike):
    drawn = seed_free(name, 20_000, 1, n_placebos=4)
    assert drawn.placebos.shape == (4, 1, 20_000)
    found = float(np.mean([auroc(placebo, drawn.expected[0]) for placebo in drawn.placebos[:, 0]]))
    assert found > 0.53 if alike else found == pytest.approx(0.5, abs=0.02)


def test_a_shared_load_confounds_a_behaviors_training_as_it_does_its_explanations():
    loads = {}
    for name in ("shared_loads", "confounded"):
        drawn = seed_free(name, 2000, 60, confounding_spread=2.0)
        score = np.log(drawn.firing_rate)
        of_change = [spearmanr(score, change[0]).statistic for change in drawn.changes]
        of_label = [float(auroc(score, labels)) for labels in drawn.expected]
        loads[name] = np.corrcoef(of_change, of_label)[0, 1]
    assert loads["shared_loads"] > 0.9
    assert abs(loads["confounded"]) < 0.4


def test_behaviors_of_one_family_are_near_duplicates():
    drawn = seed_free("families")
    assert drawn.families.tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    same = drawn.families[:, None] == drawn.families
    for values in (drawn.changes[:, 0], drawn.effect):
        found = np.corrcoef(values)
        np.fill_diagonal(found, np.nan)
        assert np.nanmin(found[same]) > 0.8
        assert np.nanmax(found[~same]) < 0.5


def test_few_latents_are_expected_and_a_sparse_adapter_changes_few():
    counts = draw(world_of("few_expected", 500, 200), rng()).expected.sum(axis=1)
    assert set(counts) == {1, 2, 3, 4}
    changed = (draw(world_of("sparse_changes", 500, 3), rng()).changes != 0).sum(axis=2)
    assert (changed == 25).all()
