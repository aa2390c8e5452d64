"""Sign agreement: what it counts, and that its null is the exchange of expectations."""

from itertools import permutations

import numpy as np
import pytest

from isaerft.errors import InputError
from isaerft.stats import STATISTICS, agreement_test, agreement_tests, pooled_agreement, sign_agreement

CHANGE = np.array([0.2, -1.0, 3.0, 0.0, -2.0])
EFFECT = np.array([1.0, -0.5, -1.0, 0.3, 0.0])


def test_it_is_the_share_that_moved_as_expected_less_the_share_that_moved_against():
    # Of four with an expected direction two moved that way, one against it, one not at all.
    assert sign_agreement(CHANGE, EFFECT) == pytest.approx((2 - 1) / 4)
    assert agreement_test(CHANGE, EFFECT, statistic="sign_agreement").statistic == pytest.approx(0.25)
    assert sign_agreement(CHANGE, [EFFECT, -EFFECT]).tolist() == [0.25, -0.25]
    assert np.isnan(sign_agreement(CHANGE, np.zeros(5)))


def test_only_signs_count():
    rng = np.random.default_rng(0)
    change, effect = rng.normal(size=40), rng.normal(size=40)
    stretched = sign_agreement(change**3 * 7, effect / 9)
    assert stretched == sign_agreement(change, effect)


def test_its_pvalue_is_that_of_every_exchange():
    result = agreement_test(CHANGE, EFFECT, statistic="sign_agreement")
    signs = np.sign(EFFECT)
    every = [float(np.sign(CHANGE) @ order) / 4 for order in permutations(signs)]
    assert result.exact
    assert result.pvalue == pytest.approx(np.mean(np.array(every) >= 0.25 - 1e-12))


def test_where_all_rise_and_all_are_expected_to_there_is_no_evidence():
    change, effect = np.arange(1.0, 41.0), np.r_[np.ones(20), np.zeros(20)]
    with pytest.raises(InputError, match="no exchange can change the statistic"):
        agreement_test(change, effect, statistic="sign_agreement")
    change[30:] *= -1
    with pytest.raises(InputError, match="no exchange can change the labels"):
        agreement_test(change, 1 - effect / 9, statistic="sign_agreement")


def test_without_any_expected_direction_it_is_refused():
    with pytest.raises(InputError, match="expected is 0 for all 5 latents"):
        agreement_test(CHANGE, np.zeros(5), statistic="sign_agreement")


def test_false_positives_stay_at_the_level_where_most_latents_rise_and_most_are_expected_to():
    rng = np.random.default_rng(1)
    pairs = [
        (rng.normal(size=120) + 0.8, np.where(rng.uniform(size=120) < 0.5, 0.0, rng.choice([1, -1], 120, p=[0.8, 0.2])))
        for _ in range(600)
    ]
    answers = agreement_tests(pairs, statistic="sign_agreement", n_resamples=499, rng=2)
    assert np.mean([answer.statistic for answer in answers]) > 0.2
    assert np.mean([answer.pvalue <= 0.05 for answer in answers]) < 0.08


def test_directions_that_agree_are_found():
    rng = np.random.default_rng(3)
    effect = np.where(rng.uniform(size=200) < 0.3, rng.choice([1.0, -1.0], 200), 0.0)
    result = agreement_test(rng.normal(size=200) + effect, effect, statistic="sign_agreement", rng=4)
    assert result.pvalue < 0.001
    assert result.confidence_interval.low < result.statistic < result.confidence_interval.high


def test_seeds_are_averaged_before_the_sign_is_taken_and_not_as_ranks():
    kind = STATISTICS["sign_agreement"]
    changes = np.array([[3.0, -0.1, 1.0], [-1.0, -0.1, 1.0]])
    assert kind.combine(changes).tolist() == [1.0, -0.1, 1.0]
    assert (STATISTICS["auroc"].combine(changes) > 0).all()


def test_a_pool_is_the_mean_of_its_pairs():
    rng = np.random.default_rng(5)
    changes, effects = rng.normal(size=(3, 30)), rng.choice([-1.0, 0.0, 1.0], size=(2, 30))
    pooled = pooled_agreement(changes, effects, statistic="sign_agreement", n_resamples=99, rng=0)
    pairs = [float(sign_agreement(change, effect)) for change in changes for effect in effects]
    assert pooled.statistic == pytest.approx(np.mean(pairs))
