"""Matching profiles: what scores high, and how often what is not so is said to be."""

import numpy as np
import pytest
from scipy.stats import linregress, norm, rankdata, ttest_ind

from isaerft.errors import InputError
from isaerft.stats import ProfileMatch, decide, match_profiles, score_elsewhere
from isaerft.stats.verdicts import MAX_PROFILES, PooledNull

LEVEL = 0.05


def world(rng, *, n=300, n_behaviors=6, n_expecting=60, right=1.0, effect=3.0, confounded=False):
    """Return changes, what explanations say, strata, and which explanations are right."""
    truth = np.zeros((n_behaviors, n))
    truth[np.arange(n_expecting) % n_behaviors, np.arange(n_expecting)] = 1
    said, is_right = truth.copy(), rng.uniform(size=n) < right
    wrong = np.flatnonzero(~is_right)
    said[:, wrong] = truth[:, rng.permutation(wrong)]
    is_right |= (said == truth).all(axis=0)
    strata = rng.integers(0, 5, n)
    changes = rng.normal(size=(n_behaviors, n)) * rng.uniform(0.5, 2, n) + rng.normal(size=n) * 2 + effect * truth
    if confounded:
        # Some strata move with some behaviors, and are said to.
        changes += 2 * (strata == np.arange(n_behaviors)[:, None])
        said = np.where(rng.uniform(size=said.shape) < 0.2 * (strata == np.arange(n_behaviors)[:, None]), 1.0, 0.0)
        changes -= effect * truth
    return changes, said, strata, is_right


def test_a_latent_that_moves_under_every_training_adds_nothing():
    rng = np.random.default_rng(0)
    changes, said, strata, _ = world(rng)
    moved = np.zeros(300)
    found = match_profiles(changes, said, strata=strata)
    assert np.nanmedian(found.score[:60]) > 1.5
    everything = np.ones_like(said)
    none = match_profiles(changes, everything + moved, strata=strata)
    assert np.isnan(none.score).all()
    lifted = match_profiles(changes, said + rng.normal(size=300), strata=strata)
    np.testing.assert_allclose(lifted.score[:60], found.score[:60])


def test_only_ranks_within_a_behavior_count():
    rng = np.random.default_rng(1)
    changes, said, strata, _ = world(rng)
    found = match_profiles(changes, said, strata=strata)
    again = match_profiles(np.exp(changes) * np.arange(1, 7)[:, None], said, strata=strata)
    np.testing.assert_array_equal(again.score, found.score)


def normal_scores(changes, strata):
    """Return normal scores within behaviors, less the mean of the stratum."""
    scores = norm.ppf((rankdata(changes, axis=1) - 0.5) / changes.shape[1])
    for stratum in np.unique(strata):
        scores[:, strata == stratum] -= scores[:, strata == stratum].mean(axis=1, keepdims=True)
    return scores


def test_a_score_is_the_t_of_named_against_other_behaviors_where_explanations_are_few():
    rng = np.random.default_rng(2)
    changes, _, strata, _ = world(rng)
    said = np.zeros((6, 300))
    said[0, :3] = said[1, 3:6] = said[:2, 6] = 1
    found, scores = match_profiles(changes, said, strata=strata), normal_scores(changes, strata)
    for latent in (0, 4, 6):
        named = said[:, latent] > 0
        expected = ttest_ind(scores[named, latent], scores[~named, latent]).statistic
        assert found.score[latent] == pytest.approx(expected)
        assert score_elsewhere(changes, said, latent, latent, strata=strata) == pytest.approx(expected)
    there = said[:, 0] > 0
    elsewhere = ttest_ind(scores[there, 100], scores[~there, 100]).statistic
    assert score_elsewhere(changes, said, 0, 100, strata=strata) == pytest.approx(elsewhere)


def test_graded_effects_are_regressed_on():
    rng = np.random.default_rng(2)
    changes, _, strata, _ = world(rng)
    said = np.zeros((6, 300))
    said[:, :4] = rng.normal(size=(6, 4))
    found, scores = match_profiles(changes, said, strata=strata), normal_scores(changes, strata)
    for latent in range(4):
        fit = linregress(said[:, latent], scores[:, latent])
        assert found.score[latent] == pytest.approx(fit.slope / fit.stderr)


def test_behaviors_of_one_family_are_one_replicate():
    rng = np.random.default_rng(2)
    changes, _, _, _ = world(rng, n_behaviors=8)
    said, families = np.zeros((8, 300)), np.array([0, 0, 1, 2, 2, 3, 4, 5])
    said[:2, :4] = 1
    found, scores = match_profiles(changes, said, families=families), normal_scores(changes, np.zeros(300, int))
    averaged = np.array([scores[families == family].mean(axis=0) for family in range(6)])
    assert found.score[0] == pytest.approx(ttest_ind(averaged[:1, 0], averaged[1:, 0]).statistic)
    assert np.isnan(match_profiles(changes, said, families=families % 2).score).all()


def test_a_pvalue_is_the_share_of_such_scores_where_explanations_are_exchanged():
    rng = np.random.default_rng(2)
    changes, said, strata, _ = world(rng, n_expecting=18, effect=5.0)
    found, speaks = match_profiles(changes, said, strata=strata), np.arange(18)
    # Of 18 latents said to belong to one of 6 behaviors each, every profile is tried on the 15 of the other behaviors.
    exchanged = [
        score_elsewhere(changes, said, profile, latent, strata=strata)
        for profile in range(6)
        for latent in speaks
        if latent % 6 != profile
    ]
    seen = np.flatnonzero(found.pvalue[:18] <= LEVEL)
    assert len(seen) > 8
    for latent in seen:
        n_higher = np.sum(np.array(exchanged) >= found.score[latent] - 1e-9)
        assert found.pvalue[latent] == pytest.approx((n_higher + 1) / (len(exchanged) + 1))


def test_near_duplicates_add_nothing_to_what_the_null_resolves():
    rng = np.random.default_rng(2)
    changes, said, _, _ = world(rng, effect=9.0)
    clusters = np.r_[np.arange(30), np.arange(30), 30 + np.arange(240)]
    alone, together = (match_profiles(changes, said, clusters=given) for given in (None, clusters))
    assert np.nanmin(alone.pvalue) == pytest.approx(1 / (60 * 5 + 1))
    assert np.nanmin(together.pvalue) == pytest.approx(1 / (30 * 5 + 1))


def test_many_profiles_are_thinned_without_harm(monkeypatch):
    rng = np.random.default_rng(2)
    changes, said = rng.normal(size=(6, 300)), rng.normal(size=(6, 300))
    assert MAX_PROFILES < 300
    thinned = match_profiles(changes, said).pvalue
    monkeypatch.setattr("isaerft.stats.verdicts.MAX_PROFILES", 300)
    np.testing.assert_allclose(match_profiles(changes, said).pvalue, thinned, atol=0.02)


@pytest.mark.parametrize("confounded", [False, True])
def test_where_explanations_are_exchanged_few_worlds_have_any_supported_and_pvalues_are_uniform(confounded):
    rng, pvalues, supported = np.random.default_rng(3), [], []
    for _ in range(120):
        changes, said, strata, _ = world(rng, right=0.0, effect=0.0, confounded=confounded)
        found = match_profiles(changes, said, strata=strata)
        pvalues.append(found.pvalue[np.isfinite(found.pvalue)])
        supported.append(bool((found.qvalue < LEVEL).any()))
        assert len(pvalues[-1]) > 30
    assert 0.04 < (np.concatenate(pvalues) <= 0.05).mean() < 0.06
    # Under the global null the false discovery rate is the chance of any discovery.
    assert np.mean(supported) < 0.11


def test_without_strata_a_confounder_would_support_explanations():
    rng, shares = np.random.default_rng(3), []
    for _ in range(20):
        changes, said, _, _ = world(rng, right=0.0, effect=0.0, confounded=True)
        shares.append((match_profiles(changes, said).pvalue[said.any(axis=0)] <= 0.05).mean())
    assert np.mean(shares) > 0.09


def test_of_what_is_supported_few_are_wrong_and_of_what_is_contradicted_few_are_right():
    rng, false_support, false_contradiction, n_supported = np.random.default_rng(4), [], [], 0
    for _ in range(60):
        changes, said, strata, right = world(rng, right=0.7, effect=5.0)
        found = match_profiles(changes, said, strata=strata)
        supported, contradicted = found.qvalue < LEVEL, found.contradiction_qvalue < LEVEL
        n_supported += supported.sum()
        false_support.append((supported & ~right).sum() / max(1, supported.sum()))
        false_contradiction.append((contradicted & right).sum() / max(1, contradicted.sum()))
    assert np.mean(false_support) < LEVEL
    assert np.mean(false_contradiction) < LEVEL
    assert n_supported > 60 * 15


def test_explanations_without_effect_are_contradicted_where_effects_are_large_and_alike():
    rng, wrong = np.random.default_rng(4), np.arange(300) % 10 == 0
    said = np.zeros((12, 300))
    for step in range(4):
        said[(4 * np.arange(60) + step) % 12, np.arange(60)] = 1
    changes = 0.3 * rng.normal(size=(12, 300)) + rng.normal(size=300) + 2 * said * ~wrong
    found = match_profiles(changes, said)
    assert found.small_effect == pytest.approx(found.effect / 2)
    contradicted = found.contradiction_qvalue[:60] < LEVEL
    assert contradicted[wrong[:60]].mean() > 0.6
    assert not contradicted[~wrong[:60]].any()
    assert (found.contradiction_power[:60] > 0.5).mean() > 0.9


def test_where_latents_that_explanations_name_are_noisier_none_is_supported_for_that():
    rng, supported = np.random.default_rng(4), []
    for _ in range(60):
        changes, said, strata, _ = world(rng, effect=0.0)
        changes[:, :60] = rng.normal(size=(6, 60)) * 3
        supported.append(bool((match_profiles(changes, said, strata=strata).qvalue < LEVEL).any()))
    assert np.mean(supported) < 0.11


def test_a_pooled_null_weighs_profiles_and_adds_the_score_itself():
    scores = np.array([np.arange(10.0), np.arange(10.0) + 20])
    null = PooledNull.of(scores, np.arange(10) < np.array([[10], [2]]), np.array([1, 3]), 12)
    assert null.at_least(np.array([15.0])) == pytest.approx((12 * 0.75 + 1) / 13)
    assert null.at_least(np.array([99.0])) == pytest.approx(1 / 13)
    assert null.critical(0.05) == np.inf
    assert null.critical(0.5) == 20.0


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.1])
def test_where_all_are_right_few_worlds_have_any_contradicted_however_unequal_their_effects(spread):
    rng, any_contradicted = np.random.default_rng(5), []
    for _ in range(60):
        changes, said, strata, _ = world(rng, effect=0.0)
        changes += 6 * said * np.exp(spread * rng.normal(size=300) - spread**2 / 2)
        any_contradicted.append(bool((match_profiles(changes, said, strata=strata).contradiction_qvalue < LEVEL).any()))
    assert np.mean(any_contradicted) < 0.12


def test_power_says_how_often_a_right_explanation_is_seen():
    rng, powers, seen = np.random.default_rng(6), [], []
    for _ in range(40):
        changes, said, strata, _ = world(rng, effect=2.0)
        found = match_profiles(changes, said, strata=strata)
        powers.append(np.nanmean(found.power))
        seen.append((found.pvalue[:60] < 0.05).mean())
    assert 0.2 < np.mean(seen) < 0.95
    assert np.mean(powers) == pytest.approx(np.mean(seen), abs=0.1)


def test_without_agreement_nothing_is_contradicted():
    rng = np.random.default_rng(7)
    changes, said, strata, _ = world(rng, effect=-3.0)
    found = match_profiles(changes, said, strata=strata)
    assert found.effect < 0
    assert np.nanmin(found.contradiction_qvalue) == 1


def test_what_cannot_be_compared_is_empty():
    rng = np.random.default_rng(8)
    changes, said, _, _ = world(rng)
    found = match_profiles(changes, said)
    assert np.isfinite(found.score[:60]).all()
    assert np.isnan(found.pvalue[60:]).all()
    assert np.isnan(match_profiles(changes[:2], said[:2]).score).all()
    with pytest.raises(InputError, match="at least two behaviors"):
        match_profiles(changes[:1], said[:1])
    with pytest.raises(InputError, match="behavior 2 all latents changed alike"):
        match_profiles(np.where(np.arange(6)[:, None] == 2, 1.0, changes), said)
    assert np.isnan(match_profiles(changes, np.zeros_like(said)).score).all()


NAN = float("nan")


def matched(*, score=1.0, qvalue=0.5, contradiction_qvalue=0.5, power=0.9, contradiction_power=0.0, effect=1.0):
    """Return the match of a single explanation."""
    one = {
        "score": score,
        "pvalue": qvalue,
        "qvalue": qvalue,
        "expected_score": 1.0,
        "power": power,
        "contradiction_pvalue": contradiction_qvalue,
        "contradiction_qvalue": contradiction_qvalue,
        "contradiction_power": contradiction_power,
    }
    columns = {name: np.array([value]) for name, value in one.items()}
    return ProfileMatch(**columns, effect=effect, small_effect=effect / 2, critical=1.7)


def test_a_verdict_is_decided_by_the_first_check_that_applies():
    rises = np.array([1.0, 0.0])
    cases = [
        (matched(score=NAN), np.zeros(2), "untestable", "predicts_nothing"),
        (matched(score=NAN), np.ones(2), "untestable", "predicts_the_same"),
        (matched(score=NAN), rises, "untestable", "too_few_behaviors"),
        # Support is seen before anything that speaks against it.
        (
            matched(qvalue=0.04, contradiction_qvalue=0.01, power=0.1, effect=-1),
            rises,
            "supported",
            "changed_as_predicted",
        ),
        (matched(qvalue=0.05), rises, "inconclusive", "undecided"),
        (matched(contradiction_qvalue=0.01, power=0.1, effect=0.0), rises, "inconclusive", "no_average_effect"),
        (matched(contradiction_qvalue=0.01, power=0.1), rises, "contradicted", "changed_otherwise"),
        (matched(contradiction_qvalue=0.05, power=0.49), rises, "untestable", "low_power"),
        (matched(power=0.5), rises, "inconclusive", "undecided"),
        (matched(power=0.1, contradiction_power=0.5), rises, "inconclusive", "undecided"),
    ]
    for match, effects, verdict, reason in cases:
        assert decide(match, 0, effects) == (verdict, reason)


def test_a_contradicted_explanation_was_absorbed_if_the_absorber_reaches_the_critical_score():
    match = matched(contradiction_qvalue=0.01)
    found = [decide(match, 0, np.array([1.0, 0.0]), absorber_score=lambda s=s: s).name for s in (1.7, 1.69, NAN)]
    assert found == ["absorbed", "contradicted", "contradicted"]


def test_an_absorber_is_only_scored_where_it_could_matter():
    def never():
        raise AssertionError("scored")

    for match in (matched(), matched(score=NAN), matched(qvalue=0.01), matched(effect=0.0)):
        decide(match, 0, np.array([1.0, 0.0]), absorber_score=never)


def test_level_and_power_of_a_verdict_can_be_chosen():
    match = matched(qvalue=0.04, power=0.6)
    assert decide(match, 0, np.array([1.0, 0.0]), level=0.01).reason == "undecided"
    assert decide(match, 0, np.array([1.0, 0.0]), level=0.01, min_power=0.7).reason == "low_power"
