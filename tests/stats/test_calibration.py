"""By simulation: tests hold their level where the world is confounded or clustered, and don't where that is ignored."""

import numpy as np
import pytest

from isaerft.stats import agreement_test, strata_of

N_WORLDS = 400
# 0.05 within 3.5 standard deviations of 400 worlds.
LOW, HIGH = 0.015, 0.09


def false_positives(make_world, statistic, **use):
    rejected = 0
    for seed in range(N_WORLDS):
        change, expected, groups = make_world(np.random.default_rng(seed))
        options = {name: groups[name] for name in use.get("groups", ())}
        result = agreement_test(change, expected, statistic=statistic, n_resamples=199, rng=seed, **options)
        rejected += result.pvalue <= 0.05
    return rejected / N_WORLDS


def confounded(rng, n=200):
    level = rng.integers(0, 5, n)
    expected = rng.random(n) < 0.1 + 0.12 * level
    return rng.normal(size=n) + 0.5 * level, expected, {"strata": level}


def confounded_graded(rng):
    change, _, groups = confounded(rng)
    return change, rng.normal(size=change.size) + 0.5 * groups["strata"], groups


def clustered(rng):
    # 120 latents: 60 alone and 20 groups of three near-duplicates that share change and label.
    clusters = np.concatenate([np.arange(60), np.repeat(np.arange(60, 80), 3)])
    change, expected = rng.normal(size=80)[clusters], (rng.random(80) < 0.3)[clusters]
    return change + 0.05 * rng.normal(size=120), expected, {"clusters": clusters}


@pytest.mark.parametrize("statistic", ["auroc", "stratified_auroc", "enrichment"])
def test_level_is_held_under_confounded_strata(statistic):
    assert LOW < false_positives(confounded, statistic, groups=["strata"]) < HIGH


def test_level_of_spearman_is_held_under_confounded_strata():
    assert LOW < false_positives(confounded_graded, "spearman", groups=["strata"]) < HIGH


def test_ignoring_confounded_strata_breaks_the_level():
    assert false_positives(confounded, "auroc") > 0.5


def test_level_is_held_with_duplicated_latents_when_they_exchange_as_blocks():
    assert LOW < false_positives(clustered, "auroc", groups=["clusters"]) < HIGH


def test_ignoring_duplicated_latents_inflates_the_level():
    assert false_positives(clustered, "auroc") > 0.1


def test_quantile_strata_hold_the_level_of_a_continuous_confound():
    def world(rng):
        rate = rng.normal(size=400)
        expected = rng.random(400) < 1 / (1 + np.exp(1.5 - rate))
        return rng.normal(size=400) + rate, expected, {"strata": strata_of(rate, n_bins=15, min_size=20)}

    assert false_positives(world, "auroc", groups=["strata"]) < HIGH
    assert false_positives(world, "auroc") > 0.9


def test_a_real_effect_is_found_inside_confounded_strata():
    found = 0
    for seed in range(40):
        change, expected, groups = confounded(np.random.default_rng(seed), n=600)
        result = agreement_test(change + 0.5 * expected, expected, n_resamples=199, rng=seed, **groups)
        found += result.pvalue <= 0.05
    assert found >= 36


def test_small_pvalues_are_not_too_frequent():
    """Without the + 1, one in 20 null worlds of 19 exchanges more would be called significant at 0.05."""
    pvalues = []
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        result = agreement_test(rng.normal(size=40), rng.permutation(40) < 10, n_resamples=19, rng=rng)
        pvalues.append(result.pvalue)
    assert min(pvalues) == 1 / 20
    assert 0.03 < np.mean(np.array(pvalues) <= 0.05) < 0.07
