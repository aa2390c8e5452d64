"""Effects in the claimed direction, and predictors of them."""

import math
from itertools import product

import numpy as np
import pytest

from isaerft.errors import InputError
from isaerft.stats import auroc, claimed_effect, compare_predictors


def test_an_effect_counts_in_the_direction_and_unit_of_its_claim():
    amplified, suppressed = np.array([[1.0, 1, 1, 0], [2, 2, 2, 2], [9, 9, 9, 9]]), np.zeros((3, 4))
    found = claimed_effect(amplified, suppressed, [1, -1, 0], scale=[0.5, 4.0, 1.0])
    per_prompt = ((amplified[0] / 0.5) - (amplified[1] / 4.0)) / 2
    assert found.estimate == pytest.approx(per_prompt.mean())
    half = 3.182446 * per_prompt.std(ddof=1) / 2  # Student's t with 3 degrees of freedom
    assert found.confidence_interval == pytest.approx((found.estimate - half, found.estimate + half))
    opposite = claimed_effect(amplified, suppressed, [-1, 1, 0], scale=[0.5, 4.0, 1.0])
    assert opposite.estimate == pytest.approx(-found.estimate)


def test_steering_in_neither_direction_has_no_effect():
    scores = np.random.default_rng(0).normal(size=(2, 5))
    assert claimed_effect(scores, scores, [1, -1], scale=[1, 1]).estimate == 0


def test_answers_that_are_all_alike_show_no_effect_and_without_a_claim_there_is_none():
    ones = np.ones((2, 3))
    found = claimed_effect(ones, ones * 0, [1, 1], scale=[0.0, 1.0])
    assert found.estimate == 0.5
    assert math.isnan(claimed_effect(ones, ones, [0, 0], scale=[1, 1]).estimate)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"suppressed": np.zeros((2, 4))}, "amplified"),
        ({"claims": [1]}, "claims"),
        ({"claims": [1, 0.5]}, "allowed: -1, 0, 1"),
        ({"amplified": np.full((2, 3), np.nan)}, "amplified"),
    ],
)
def test_effects_of_bad_shapes_or_claims_are_refused(changes, expected):
    given = {"amplified": np.ones((2, 3)), "suppressed": np.zeros((2, 3)), "claims": [1, 0]} | changes
    with pytest.raises(InputError, match=expected):
        claimed_effect(given["amplified"], given["suppressed"], given["claims"], scale=[1, 1])


def test_a_predictors_auroc_is_that_of_auroc_and_ties_count_half():
    rng = np.random.default_rng(1)
    outcome = rng.random(40) < 0.4
    scores = {"flag": (rng.random(40) < 0.5).astype(float), "score": rng.normal(size=40) + outcome}
    found = compare_predictors(outcome, scores)
    for name, values in scores.items():
        assert found[name].auroc == pytest.approx(float(auroc(values, outcome)))
        assert found[name].confidence_interval.low < found[name].auroc < found[name].confidence_interval.high
    assert found["score"].difference == pytest.approx(found["score"].auroc - found["flag"].auroc)
    assert math.isnan(found["flag"].difference)


def test_a_difference_is_taken_on_the_latents_that_have_both_scores():
    outcome = np.array([1, 1, 0, 0, 1, 0], dtype=bool)
    first = np.array([1.0, 0, 0, 0, 1, 1])
    second = np.array([0.2, 0.9, 0.1, 0.4, np.nan, np.nan])
    found = compare_predictors(outcome, {"first": first, "second": second})
    assert found["first"].n_latents == 6
    assert (found["second"].n_latents, found["second"].n_positive) == (4, 2)
    expected = float(auroc(second[:4], outcome[:4])) - float(auroc(first[:4], outcome[:4]))
    assert found["second"].difference == pytest.approx(expected)


def test_the_paired_bootstrap_is_that_of_all_resamples_within_outcomes():
    outcome = np.array([1, 1, 0, 0], dtype=bool)
    first, second = np.array([1.0, 0, 0, 1]), np.array([0.9, 0.3, 0.5, 0.1])
    differences = []
    for i, j, k, m in product((0, 1), (0, 1), (2, 3), (2, 3)):
        drawn = [i, j, k, m]
        wins = [
            np.mean([(np.sign(s[a] - s[b]) + 1) / 2 for a in drawn[:2] for b in drawn[2:]]) for s in (first, second)
        ]
        differences.append(wins[1] - wins[0])
    found = compare_predictors(outcome, {"a": first, "b": second}, confidence_level=0.6, n_resamples=40000, rng=0)
    expected = np.quantile(np.repeat(differences, 1000), [0.2, 0.8])
    assert found["b"].difference_interval == pytest.approx(expected, abs=1e-9)


@pytest.mark.slow
def test_the_interval_of_a_difference_covers_it():
    rng, hits, n_worlds = np.random.default_rng(3), 0, 300
    for _ in range(n_worlds):
        outcome = np.repeat([True, False], 40)
        common = rng.normal(size=80) + outcome
        scores = {"a": common + rng.normal(size=80), "b": common + rng.normal(size=80)}
        low, high = compare_predictors(outcome, scores, n_resamples=400, rng=rng)["b"].difference_interval
        hits += low <= 0 <= high
    assert 0.91 <= hits / n_worlds <= 0.99


def test_where_no_latent_or_every_latent_has_the_property_nothing_is_known():
    for outcome in ([True] * 4, [False] * 4):
        found = compare_predictors(np.array(outcome), {"a": [1, 2, 3, 4], "b": [4, 3, 2, 1]})
        assert math.isnan(found["a"].auroc)
        assert math.isnan(found["b"].difference)
    constant = compare_predictors([True, False, False], {"a": [1, 1, 1]})["a"]
    assert constant.auroc == 0.5
    assert math.isnan(constant.confidence_interval.low)


def test_predictors_that_cannot_be_compared_are_refused():
    with pytest.raises(InputError, match="no predictors"):
        compare_predictors([True, False], {})
    with pytest.raises(InputError, match="predictor 'b' has shape"):
        compare_predictors([True, False], {"a": [1, 2], "b": [1, 2, 3]})
    with pytest.raises(InputError, match="did you mean 'verdict'"):
        compare_predictors([True, False], {"verdict": [1, 2]}, reference="verdicts")
