"""Steering: does it have the effect that an explanation claims, and what tells in advance for which latents it does?

>>> import numpy as np
>>> outcome = np.array([True, True, False, False])
>>> found = compare_predictors(outcome, {"verdict": [1, 1, 0, 0], "detection": [0.9, 0.6, 0.7, 0.5]})
>>> found["verdict"].auroc, found["detection"].auroc, found["detection"].difference
(1.0, 0.75, -0.25)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from isaerft.errors import InputError, shown, unknown_name
from isaerft.stats.checks import as_binary, as_finite, as_share
from isaerft.stats.intervals import UNDEFINED, ConfidenceInterval, auroc_interval, mean_interval, percentile_interval

N_RESAMPLES = 2000


class ClaimedEffect(NamedTuple):
    """Mean effect in the claimed direction, in standard deviations of the scores, and its interval over prompts."""

    estimate: float
    confidence_interval: ConfidenceInterval


class Predictor(NamedTuple):
    """How well a score of latents tells which of them have a property.

    Attributes
    ----------
    n_latents, n_positive : int
        Latents that have the score, and those of them that have the property.
    auroc : float
        P(score of a latent with the property > score of one without) + P(equal) / 2; NaN without both kinds.
    confidence_interval : ConfidenceInterval
        Over latents, `isaerft.stats.auroc_interval`.
    difference : float
        AUROC less the reference's on the same latents.
    difference_interval : ConfidenceInterval
        Paired bootstrap over latents.
    """

    n_latents: int
    n_positive: int
    auroc: float
    confidence_interval: ConfidenceInterval
    difference: float
    difference_interval: ConfidenceInterval


def claimed_effect(
    amplified: ArrayLike, suppressed: ArrayLike, claims: ArrayLike, *, scale: ArrayLike, confidence_level: float = 0.95
) -> ClaimedEffect:
    """Return how far steering moves answers as claimed, over the behaviors that something is claimed of.

    Parameters
    ----------
    amplified, suppressed : (n_behaviors, n_prompts) float
        Scores of the answers to each prompt.
    claims : (n_behaviors,) float
        Of each behavior 1 (amplifying raises its score), -1 (lowers it) or 0 (no claim).
    scale : (n_behaviors,) float
        Unit of each behavior's effect, such as the standard deviation of its scores. Where it is 0, all answers are
        alike, and the effect is 0.
    confidence_level : float

    Returns
    -------
    ClaimedEffect
        Mean over claimed behaviors of claim * (amplified - suppressed) / scale, with Student's t interval over prompts;
        NaN where nothing is claimed.

    Raises
    ------
    InputError
        Shapes differ, a value is not finite, or a claim is not -1, 0 or 1.
    """
    high, low = (as_finite(name, x, n_dims=2) for name, x in (("amplified", amplified), ("suppressed", suppressed)))
    signs, unit = (as_finite(name, x, n_dims=1) for name, x in (("claims", claims), ("scale", scale)))
    if high.shape != low.shape or not len(signs) == len(unit) == len(high):
        raise InputError(
            f"amplified {high.shape}, suppressed {low.shape}, claims {signs.shape}, scale {unit.shape}",
            allowed="(n_behaviors, n_prompts) twice, then (n_behaviors,) twice",
        )
    if not np.isin(signs, (-1, 0, 1)).all():
        raise InputError(f"claims {shown(signs)}", allowed="-1, 0, 1")
    claimed = signs != 0
    if not claimed.any():
        return ClaimedEffect(math.nan, UNDEFINED)
    per_unit = np.divide(signs, unit, out=np.zeros_like(unit), where=unit > 0)
    values = (per_unit[:, None] * (high - low))[claimed].mean(axis=0)
    return ClaimedEffect(float(values.mean()), mean_interval(values, confidence_level))


def compare_predictors(
    outcome: ArrayLike,
    predictors: Mapping[str, ArrayLike],
    *,
    reference: str | None = None,
    confidence_level: float = 0.95,
    n_resamples: int = N_RESAMPLES,
    rng: np.random.Generator | int = 0,
) -> dict[str, Predictor]:
    """Compare scores of latents by how well each tells which of them have a property.

    Parameters
    ----------
    outcome : (n,) bool
        Whether each latent has the property.
    predictors : mapping of str to (n,) float
        Scores by name; NaN where a latent has none.
    reference : str, optional
        The predictor that differences are taken to; the first if not given.
    confidence_level : float
    n_resamples : int
        Resamples of the latents for each difference.
    rng : Generator or int

    Returns
    -------
    dict of str to Predictor
        In the order given. The reference's difference to itself is undefined.

    Raises
    ------
    InputError
        There is no predictor, the reference is not among them, or lengths differ.

    Notes
    -----
    Latents with and without the property are resampled apart, as their numbers are not in question (the stratified
    bootstrap of paired AUROCs; Robin et al. 2011, "pROC", BMC Bioinformatics 12:77). Both predictors of a difference
    see the same resamples.
    """
    if not predictors:
        raise InputError("no predictors", allowed="one or more")
    scores = {name: np.asarray(values, dtype=np.float64) for name, values in predictors.items()}
    first = next(iter(scores)) if reference is None else reference
    if first not in scores:
        raise unknown_name("reference", first, scores)
    labels = as_binary(outcome, len(scores[first]))
    level, generator = as_share("confidence_level", confidence_level), np.random.default_rng(rng)
    found = {}
    for name, values in scores.items():
        if values.shape != labels.shape:
            raise InputError(f"predictor {name!r} has shape {values.shape}", allowed=f"{labels.shape}")
        known = np.isfinite(values)
        positive = int(labels[known].sum())
        value, interval = _auroc(labels[known], values[known], level)
        both = known & np.isfinite(scores[first])
        difference = math.nan, UNDEFINED
        if name != first:
            difference = _difference(labels[both], values[both], scores[first][both], level, n_resamples, generator)
        found[name] = Predictor(int(known.sum()), positive, value, interval, *difference)
    return found


def _auroc(labels: np.ndarray, values: np.ndarray, level: float) -> tuple[float, ConfidenceInterval]:
    """Return an AUROC and its interval over latents; NaN without latents of both kinds, 0.5 where all are equal."""
    wins = _wins(labels, values)
    if not wins.size:
        return math.nan, UNDEFINED
    value = float(wins.mean())
    if np.ptp(values) == 0:
        return value, UNDEFINED
    return value, auroc_interval(value, values, labels, np.arange(len(labels)), level)


def _difference(
    labels: np.ndarray,
    values: np.ndarray,
    reference: np.ndarray,
    level: float,
    n_resamples: int,
    rng: np.random.Generator,
) -> tuple[float, ConfidenceInterval]:
    """Return the difference of two AUROCs on the same latents, with its bootstrap interval."""
    wins = _wins(labels, values) - _wins(labels, reference)
    if not wins.size:
        return math.nan, UNDEFINED
    weights = [rng.multinomial(n, np.full(n, 1 / n), size=n_resamples) / n for n in wins.shape]
    resampled = np.einsum("ri,ij,rj->r", weights[0], wins, weights[1], optimize=True)
    return float(wins.mean()), percentile_interval(resampled, level)


def _wins(labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return whether a labeled latent scores higher than another, (n_with, n_without): 1, 0, or 0.5 if equal."""
    return (np.sign(values[labels][:, None] - values[~labels][None, :]) + 1) / 2
