"""Scores: what is made of how well an explanation fits its latent's items. Larger is better in all of them.

The formulas are those of the papers that `isaerft.registry.SCORES` names with each score. An outside package registers
a `Score` of its own there (entry-point group `isaerft.scores`).

FADE rates texts 0 (the description does not fit), 1 or 2 (it clearly fits), and leaves out those rated 1. Scorers give
numbers, so here the ratings are the thirds of the range of a latent's fits; yes and no become 2 and 0. Its fourth
score, clarity, needs texts that are written from the explanation and then read by the model, and is left out: scores
are computed without the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from isaerft.scorers.tasks import (
    CONTINUATIONS,
    EVERY_TOKEN,
    INTRUDERS,
    MARKED_TOKENS,
    TOKEN_LISTS,
    WINDOWS,
    Item,
    Question,
)
from isaerft.stats import auroc

Value = Callable[[np.ndarray, Sequence[Item]], float]


@dataclass(frozen=True)
class Score:
    """A question, and what its answers are worth.

    Attributes
    ----------
    question : Question
    value : callable
        `value(fits, items)` with fits (n_items,) float, rounded, so that rounding errors neither make nor break ties.
    """

    question: Question
    value: Value


def separation(fits: np.ndarray, items: Sequence[Item]) -> float:
    """Return P(an item that holds fits better than one that doesn't) + P(equal) / 2.

    For answers of yes and no this is balanced accuracy. An uninformative explanation has 0.5, however often a scorer
    says yes.
    """
    return float(auroc(fits, [item.holds for item in items])) if np.ptp(fits) else 0.5


def correlation(fits: np.ndarray, items: Sequence[Item]) -> float:
    """Return the correlation of the fits with the activations over all tokens; 0 if one of them is constant.

    The windows are joined first: their correlations one by one would not count whether the windows in which the latent
    is silent are told from the others.
    """
    truth = np.array([item.truth for item in items])
    return float(np.corrcoef(fits, truth)[0, 1]) if np.ptp(fits) and np.ptp(truth) else 0.0


def accuracy_of_odd_ones(fits: np.ndarray, items: Sequence[Item]) -> float:
    """Return the share of groups whose item that does not hold fits worst; ties count by their share."""
    groups = np.array([item.group for item in items])
    holds = np.array([item.holds for item in items])
    found = []
    for group in np.unique(groups):
        own = groups == group
        worst = fits[own] == fits[own].min()
        found.append((worst & ~holds[own]).sum() / worst.sum())
    return float(np.mean(found))


def ratings(fits: np.ndarray) -> np.ndarray:
    """Return 0, 1 or 2 for fits in the lower, middle and upper third of their range, (n_items,) int64."""
    low, size = fits.min(), np.ptp(fits)
    share = (fits - low) / size if size else np.zeros(len(fits))
    return np.where(share >= 2 / 3, 2, np.where(share <= 1 / 3, 0, 1))


def responsiveness(fits: np.ndarray, items: Sequence[Item]) -> float:
    """Return FADE's responsiveness: |2 AUROC - 1| of the activations of texts rated 2 against those rated 0.

    0 if the scorer rates all texts alike: it then found none that the explanation fits more than others.
    """
    return abs(_gini(*_rated(fits, items)))


def purity(fits: np.ndarray, items: Sequence[Item]) -> float:
    """Return FADE's purity: average precision of the activations for texts rated 2, among those and those rated 0.

    As in FADE, activations count with the sign that makes the Gini coefficient of `responsiveness` positive. 0 if the
    scorer rates all texts alike.
    """
    from sklearn.metrics import average_precision_score

    activations, fitting = _rated(fits, items)
    if not fitting.any():
        return 0.0
    sign = -1 if _gini(activations, fitting) < 0 else 1
    return float(average_precision_score(fitting, sign * activations))


def faithfulness(fits: np.ndarray, items: Sequence[Item]) -> float:
    """Return FADE's faithfulness: by how much steering raises the share of texts rated 2, of what there is to raise.

    max(share when amplified - share as it is, 0) / (1 - share as it is), with the strength of the largest share, and 0
    if all texts are rated 2 anyway.
    """
    fitting = ratings(fits) == 2
    strengths = np.array([item.truth for item in items])
    before = fitting[strengths == 0].mean()
    after = max(fitting[strengths == strength].mean() for strength in np.unique(strengths[strengths > 0]))
    return float(max(after - before, 0) / (1 - before)) if before < 1 else 0.0


def _rated(fits: np.ndarray, items: Sequence[Item]) -> tuple[np.ndarray, np.ndarray]:
    """Return the activations of the texts rated 0 or 2, (n,) float, and which of them are rated 2, (n,) bool."""
    rated = ratings(fits)
    kept = rated != 1
    return np.array([item.truth for item in items])[kept], rated[kept] == 2


def _gini(activations: np.ndarray, fitting: np.ndarray) -> float:
    # Rounded, so that a coefficient of 0 has no sign.
    return round(2 * float(auroc(activations, fitting)) - 1, 9) if fitting.any() and np.ptp(activations) else 0.0


DETECTION = Score(WINDOWS, separation)
FUZZING = Score(MARKED_TOKENS, separation)
OUTPUT = Score(TOKEN_LISTS, separation)
SIMULATION = Score(EVERY_TOKEN, correlation)
INTRUDER = Score(INTRUDERS, accuracy_of_odd_ones)
RESPONSIVENESS = Score(WINDOWS, responsiveness)
PURITY = Score(WINDOWS, purity)
STEERING = Score(CONTINUATIONS, separation)
FAITHFULNESS = Score(CONTINUATIONS, faithfulness)
