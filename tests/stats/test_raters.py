"""Agreement of judges: the values of scikit-learn, intervals that cover, nothing where nothing is defined."""

import math

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score, matthews_corrcoef, recall_score

from isaerft.errors import InputError
from isaerft.stats import agreement_of_judges, rank_agreement


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def two_judges(rng, n_clusters, size, agree=0.8, share=0.2):
    """Return labels of two judges that err independently of each other, alike within a cluster, and the clusters."""
    clusters = np.repeat(np.arange(n_clusters), size)
    truth = rng.random(n_clusters) < share
    first, second = (np.where(rng.random(n_clusters) < agree, truth, rng.random(n_clusters) < share) for _ in "ab")
    return first[clusters], second[clusters], clusters


def test_estimates_are_those_of_scikit_learn(rng):
    for _ in range(20):
        first, second, clusters = two_judges(rng, 60, 3, agree=rng.random())
        found = agreement_of_judges(first, second, clusters, n_resamples=9)
        assert found["kappa"].estimate == pytest.approx(cohen_kappa_score(second, first))
        assert found["mcc"].estimate == pytest.approx(matthews_corrcoef(second, first))
        assert found["sensitivity"].estimate == pytest.approx(recall_score(second, first))
        assert found["specificity"].estimate == pytest.approx(recall_score(~second, ~first))


def test_the_same_judge_twice_agrees_wholly_and_its_opposite_not_at_all(rng):
    first, _, clusters = two_judges(rng, 50, 2)
    same, opposite = agreement_of_judges(first, first, clusters), agreement_of_judges(first, ~first, clusters)
    assert all(part.estimate == 1 and part.confidence_interval == (1, 1) for part in same.values())
    assert opposite["mcc"].estimate == pytest.approx(-1)
    assert opposite["sensitivity"].estimate == 0


def test_judges_that_know_nothing_of_each_other_agree_as_chance_does(rng):
    kappas = [
        agreement_of_judges(rng.random(500) < 0.3, rng.random(500) < 0.1, np.arange(500), n_resamples=9)["kappa"]
        for _ in range(200)
    ]
    assert abs(np.mean([kappa.estimate for kappa in kappas])) < 0.01


@pytest.mark.parametrize("size", [1, 8])
def test_intervals_cover_the_true_value_whatever_the_size_of_clusters(rng, size):
    """The explanation is the unit: eight latents that share one must not make the interval eight times as sure."""
    everyone = agreement_of_judges(*two_judges(np.random.default_rng(9), 200_000, 1), n_resamples=1)
    runs = 150
    covered = dict.fromkeys(everyone, 0)
    for _ in range(runs):
        found = agreement_of_judges(*two_judges(rng, 150, size), n_resamples=299, rng=rng)
        for name, part in found.items():
            low, high = part.confidence_interval
            covered[name] += low <= everyone[name].estimate <= high
    assert all(0.88 * runs <= count <= runs for count in covered.values()), covered


def test_rank_agreement_is_spearmans_and_its_interval_covers_by_clusters(rng):
    def drawn(n_clusters, size):
        clusters = np.repeat(np.arange(n_clusters), size)
        truth = rng.normal(size=n_clusters)
        return (*((truth + rng.normal(size=n_clusters))[clusters].round(1) for _ in "ab"), clusters)

    first, second, clusters = drawn(100, 3)
    assert rank_agreement(first, second, clusters).estimate == pytest.approx(spearmanr(first, second).statistic)
    true_value = 6 / math.pi * math.asin(0.5 / 2)
    inside = 0
    for _ in range(200):
        low, high = rank_agreement(*drawn(80, 6)).confidence_interval
        inside += low <= true_value <= high
    assert inside > 0.88 * 200


def test_what_is_undefined_is_not_a_number(rng):
    nothing, some = np.zeros(40, bool), np.arange(40) < 9
    found = agreement_of_judges(some, nothing, np.arange(40))
    assert math.isnan(found["mcc"].estimate)
    assert math.isnan(found["sensitivity"].estimate)
    assert found["specificity"].estimate == 31 / 40
    assert math.isnan(agreement_of_judges(nothing, nothing, np.arange(40))["kappa"].estimate)
    one_explanation = agreement_of_judges(some, some, np.zeros(40))
    assert all(math.isnan(part.confidence_interval.low) for part in one_explanation.values())
    assert math.isnan(rank_agreement(np.ones(5), np.arange(5.0), np.arange(5)).estimate)


def test_a_seed_gives_the_same_interval_again(rng):
    labels = two_judges(rng, 50, 2)
    assert agreement_of_judges(*labels, rng=3) == agreement_of_judges(*labels, rng=3)
    assert agreement_of_judges(*labels, rng=3) != agreement_of_judges(*labels, rng=4)


@pytest.mark.parametrize(
    ("first", "second", "clusters"),
    [([], [], []), ([1, 0], [1], [0, 1]), ([1, 0], [1, 0], [0]), ([0.5, 0], [1, 0], [0, 1]), (1, 1, 1)],
)
def test_judgements_that_do_not_belong_together_are_refused(first, second, clusters):
    with pytest.raises(InputError):
        agreement_of_judges(first, second, clusters)
