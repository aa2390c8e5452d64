"""Each score against its published formula, and on the testbed's language: right ones high, wrong ones at chance."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

from isaerft.config import Scorer
from isaerft.registry import SCORES
from isaerft.scorers import Item, questions_of, score_explanations, tasks_of
from isaerft.scorers.scores import (
    accuracy_of_odd_ones,
    correlation,
    faithfulness,
    purity,
    ratings,
    responsiveness,
    separation,
)


def items(truth, groups=None):
    groups = [0] * len(truth) if groups is None else groups
    return [Item("t", "t", value, group) for value, group in zip(truth, groups, strict=True)]


def drawn(seed, n=12):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.1, 3, n) * (np.arange(n) % 2)
    return rng.integers(0, 4, n) / 3 + 0.3 * (truth > 0), truth


@pytest.mark.parametrize("seed", range(5))
def test_separation_is_the_auroc_and_for_yes_and_no_balanced_accuracy(seed):
    fits, truth = drawn(seed)
    assert separation(fits, items(truth)) == pytest.approx(roc_auc_score(truth > 0, fits))
    yes = (fits > 0.5).astype(float)
    assert separation(yes, items(truth)) == pytest.approx(balanced_accuracy_score(truth > 0, yes))
    assert separation(np.full(12, 0.3), items(truth)) == 0.5


def test_simulation_is_the_correlation_over_the_tokens_of_all_windows_together():
    """By hand: the second window is silent, and told from the first by nothing but its level."""
    truth, fits = [0, 4, 0, 0], np.array([0.0, 2, 0, 2])
    assert correlation(fits, items(truth, [0, 0, 1, 1])) == pytest.approx(1 / np.sqrt(3))
    assert correlation(10 * fits + 3, items(truth)) == pytest.approx(1 / np.sqrt(3))
    assert correlation(-fits, items(truth)) == pytest.approx(-1 / np.sqrt(3))
    assert correlation(np.ones(4), items(truth)) == 0
    assert correlation(fits, items([0, 0, 0, 0])) == 0


def test_an_odd_one_is_found_where_it_fits_worst_and_ties_count_by_their_share():
    truth = [1, 1, 1, 1, 0] * 3
    groups = [group for group in range(3) for _ in range(5)]
    fits = np.array([2, 2, 2, 2, 1, 0, 2, 2, 2, 1, 1, 1, 1, 1, 1], float)
    assert accuracy_of_odd_ones(fits, items(truth, groups)) == pytest.approx((1 + 0 + 1 / 5) / 3)


def test_ratings_are_thirds_of_the_range_and_yes_and_no_are_two_and_zero():
    assert ratings(np.array([0.0, 0.3, 0.35, 0.65, 0.7, 1.0])).tolist() == [0, 0, 1, 1, 2, 2]
    assert ratings(np.array([0.0, 1, 1, 0])).tolist() == [0, 2, 2, 0]
    assert ratings(np.full(3, 0.7)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sign", [1, -1])
def test_responsiveness_and_purity_are_fades(seed, sign):
    """|2 AUROC - 1| of activations, and average precision, texts rated 1 left out; both with the better sign."""
    fits, truth = drawn(seed)
    fits = sign * fits
    rated = ratings(fits)
    kept = rated != 1
    gini = 2 * roc_auc_score(rated[kept] == 2, truth[kept]) - 1
    assert responsiveness(fits, items(truth)) == pytest.approx(abs(gini))
    activations = truth[kept] if gini >= 0 else -truth[kept]
    assert purity(fits, items(truth)) == pytest.approx(average_precision_score(rated[kept] == 2, activations))
    assert responsiveness(np.ones(12), items(truth)) == purity(np.ones(12), items(truth)) == 0


def test_responsiveness_and_purity_by_hand():
    """Activations 3 and 1 are rated 2, 2 and 0 are rated 0: three pairs of four in order, precision 1 and 2/3."""
    fits, truth = np.array([1.0, 0, 1, 0]), items([3, 2, 1, 0])
    assert responsiveness(fits, truth) == pytest.approx(2 * 3 / 4 - 1)
    assert purity(fits, truth) == pytest.approx((1 + 2 / 3) / 2)


def test_faithfulness_is_fades_share_of_what_there_is_to_raise():
    """By hand: 3 of 4 texts fit when amplified, 1 of 4 as it is: (3/4 - 1/4) / (1 - 1/4)."""
    truth = items([1, 1, 1, 1, 0, 0, 0, 0])
    assert faithfulness(np.array([1.0, 1, 1, 0, 1, 0, 0, 0]), truth) == pytest.approx(2 / 3)
    assert faithfulness(np.array([1.0, 0, 0, 0, 1, 1, 0, 0]), truth) == 0
    assert faithfulness(np.array([1.0, 0, 0, 0, 1, 1, 1, 1]), truth) == 0
    assert faithfulness(np.ones(8), truth) == 0
    by_strength = items([1, 1, 10, 10, 0, 0])
    assert faithfulness(np.array([0.0, 1, 1, 1, 0, 1]), by_strength) == pytest.approx((1 - 1 / 2) / (1 - 1 / 2))
    assert faithfulness(np.array([1.0, 1, 0, 0, 0, 1]), by_strength) == 1
    assert faithfulness(np.array([1.0, 0, 0, 0, 0, 0, 0]), items([1, 1, 10, 10, 0, 0, 0])) == 1 / 2


@pytest.mark.parametrize("score", SCORES.builtin)
def test_the_facts_of_a_score_hold(score):
    """Its chance level is what random fits get on average, and no value leaves its bounds."""
    facts, rng = SCORES.facts(score), np.random.default_rng(0)
    truth, groups = [1, 1, 1, 1, 0] * 4, [group for group in range(4) for _ in range(5)]
    values = [SCORES[score].value(rng.normal(size=20), items(truth, groups)) for _ in range(500)]
    assert facts.bounds[0] <= min(values) <= max(values) <= facts.bounds[1]
    if facts.chance is not None:
        constant = SCORES[score].value(np.zeros(20), items(truth, groups))
        assert constant == pytest.approx(facts.chance)
        # Those that count one direction only are above it.
        one_sided = score in ("responsiveness", "faithfulness")
        assert np.mean(values) == pytest.approx(facts.chance, abs=0.4 if one_sided else 0.03)
    assert facts.meaning
    assert facts.paper


def values_of(world, explained, *, shuffle=False, scores=SCORES.builtin):
    scorer = Scorer(kind="lexicon", path="{subject_dir}/phrases.csv", scores=list(scores))
    tasks = tasks_of(world.contexts, explained, questions_of(scores), 0)
    if shuffle:
        rng = np.random.default_rng(0)
        tasks = [
            replace(
                task,
                items=tuple(
                    replace(item, truth=truth)
                    for item, truth in zip(task.items, rng.permutation([one.truth for one in task.items]), strict=True)
                ),
            )
            for task in tasks
        ]
    frame = score_explanations("lexicon", scorer, tasks, seed=0, subject_dir=world.folder)
    assert (frame.groupby("score").size() == len(world.concepts)).all()
    return frame.pivot(index="latent_index", columns="score", values="value")


@pytest.fixture(scope="module")
def right(language_world):
    return values_of(language_world, language_world.explained())


@pytest.fixture(scope="module")
def wrong(language_world):
    return values_of(language_world, language_world.explained(shift=3))


HIGH = {"detection": 0.85, "fuzzing": 0.7, "output": 0.95, "simulation": 0.5, "responsiveness": 0.6, "purity": 0.8}
HIGH |= {"steering": 0.95, "faithfulness": 0.6}


@pytest.mark.parametrize("score", HIGH)
def test_right_explanations_score_high_and_wrong_ones_do_not(right, wrong, score):
    assert right[score].mean() > HIGH[score]
    chance = SCORES.facts(score).chance
    if score in ("detection", "fuzzing", "output", "simulation", "steering"):
        assert abs(wrong[score].mean() - chance) < 0.1
    told = roc(right[score], wrong[score])
    assert told > 0.8


def test_the_control_without_explanation_says_the_same_of_right_and_wrong(right, wrong):
    assert (right["intruder"] == wrong["intruder"]).all()
    assert right["intruder"].mean() > 0.3  # the windows have something in common
    assert not SCORES.facts("intruder").reads_explanation
    assert all(SCORES.facts(score).reads_explanation for score in HIGH)


@pytest.mark.parametrize("score", [*HIGH, "intruder"])
def test_a_shuffled_truth_takes_every_score_to_chance(language_world, right, score):
    values = values_of(language_world, language_world.explained(), shuffle=True, scores=[score])[score]
    chance = SCORES.facts(score).chance
    if score in ("responsiveness", "faithfulness", "purity"):  # one-sided: above chance by chance
        assert values.mean() < right[score].mean() - 0.2
    else:
        assert abs(values.mean() - chance) < 0.1


def roc(right, wrong):
    return roc_auc_score([1] * len(right) + [0] * len(wrong), [*right, *wrong])
