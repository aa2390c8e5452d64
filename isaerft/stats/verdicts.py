"""Verdicts: do the effects that an explanation predicts over behaviors match its latent's changes?

Model: z_ib = a_i + m_sb + d e_ib + noise. z_ib is the normal score of latent i's change when behavior b is trained,
e_ib the effect that its explanation predicts and m_sb the mean of its stratum s. The sufficient statistic for d is the
score S_i = sum_b (e_ib - mean e_i) z_ib: a latent that moves under every training adds nothing. Normal scores (van der
Waerden) are used instead of ranks because ranks flatten the few latents that moved far, which tell right predictions
from wrong ones.

>>> import numpy as np
>>> rng = np.random.default_rng(0)
>>> expected = np.zeros((4, 200))
>>> expected[np.arange(40) % 4, np.arange(40)] = 1
>>> changes = rng.normal(size=(4, 200)) + 3 * expected
>>> match = match_profiles(changes, expected)
>>> int((match.qvalue < 0.05).sum()) > 25
True
>>> decide(match, 100, expected[:, 100])
Verdict(name='untestable', reason='predicts_nothing')
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm, rankdata

from isaerft.errors import InputError
from isaerft.stats.checks import as_finite, as_groups
from isaerft.stats.confounds import smooth_confounds
from isaerft.stats.multiple_testing import qvalues

MIN_ALIKE = 10
"""Fewest latents that an explanation is compared on."""
LEVEL = 0.05
"""Level of the tests and of their power."""
MIN_POWER = 0.5
"""Least power with which a lack of evidence counts as inconclusive; with less the explanation is untestable."""


@dataclass(frozen=True)
class ProfileMatch:
    """Match of each explanation over all behaviors; all (n,) float, NaN where it cannot be tested.

    Attributes
    ----------
    score : how well the explanation matches its latent's changes, studentized against other latents of the stratum.
    pvalue : chance of so high a score if explanations were exchangeable within strata.
    qvalue : `pvalue` after Benjamini and Hochberg.
    expected_score : the score if the explanation had the effect that explanations have here on average.
    power : chance of p < 0.05 at `expected_score`.
    contradiction_pvalue : chance of so low a score if the effect were at least that average.
    contradiction_qvalue : the same after Benjamini and Hochberg.
    effect : float
        The average effect: normal scores per unit of predicted effect. Not above 0: nothing can be contradicted.
    critical : float
        The score at p = 0.05.
    """

    score: np.ndarray
    pvalue: np.ndarray
    qvalue: np.ndarray
    expected_score: np.ndarray
    power: np.ndarray
    contradiction_pvalue: np.ndarray
    contradiction_qvalue: np.ndarray
    effect: float
    critical: float


@dataclass(frozen=True)
class PooledNull:
    """A null distribution pooled over sets of scores, every set with the same weight.

    Attributes
    ----------
    values : (m,) float
        Ascending.
    cumulative : (m + 1,) float
    n_distinct : int
        Different scores among them: explanations that predict alike are compared on the same latents, and repeat them.
    """

    values: np.ndarray
    cumulative: np.ndarray
    n_distinct: int

    @classmethod
    def of(cls, sets: list[np.ndarray]) -> PooledNull:
        """Return the null of sets of scores, each (k,) float."""
        values = np.concatenate(sets)
        weights = np.concatenate([np.full(len(part), 1 / (len(part) * len(sets))) for part in sets])
        order = np.argsort(values, kind="stable")
        return cls(values[order], np.r_[0.0, np.cumsum(weights[order])], np.unique(values.round(9)).size)

    def at_least(self, scores: np.ndarray) -> np.ndarray:
        """Return the share of the null at or above each score, the score itself added to it."""
        return self._with_own(1 - self.cumulative[np.searchsorted(self.values, scores, side="left")])

    def at_most(self, scores: np.ndarray) -> np.ndarray:
        """Return the share of the null at or below each score, the score itself added to it."""
        return self._with_own(self.cumulative[np.searchsorted(self.values, scores, side="right")])

    def _with_own(self, share: np.ndarray) -> np.ndarray:
        # The (b + 1) / (m + 1) of a permutation test, so that no p-value is below what the null can resolve.
        n = self.n_distinct
        return np.clip((n * share + 1) / (n + 1), 1 / (n + 1), 1.0)

    def quantile(self, share: float) -> float:
        """Return the value below which `share` of the null lies."""
        return float(self.values[min(int(np.searchsorted(self.cumulative[1:], share)), len(self.values) - 1)])


@dataclass(frozen=True)
class _Comparison:
    """An explanation's profile on its own latent and on m others.

    Attributes
    ----------
    score : float
        Own score, studentized by the others.
    null : (m,) float
        Each other's score, studentized by the rest of the others; the own latent, which may well differ, is not there.
    excess, unit : float
        Own raw score above the others' mean; raw score per studentized unit.
    """

    score: float
    null: np.ndarray
    excess: float
    unit: float


def match_profiles(
    changes: ArrayLike,
    expected: ArrayLike,
    *,
    strata: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    confounds: ArrayLike | None = None,
) -> ProfileMatch:
    """Return how well every explanation matches its latent's changes over behaviors, against exchanged explanations.

    Parameters
    ----------
    changes : (n_behaviors, n) float
        Change of each latent when training on each behavior; only ranks within a behavior count.
    expected : (n_behaviors, n) float
        Predicted effects.
    strata, clusters : (n,) int, optional
        An explanation is compared on the latents of its latent's stratum, without those of its cluster.
    confounds : (k, n) float, optional
        What smooth functions of them explain of the changes is taken out first (see `isaerft.stats.confounds`).

    Returns
    -------
    ProfileMatch

    Notes
    -----
    Under the null an explanation is as good for its own latent as for others of the stratum; it is compared on those
    whose explanations predict the same of every behavior, or, with fewer than 10 of them, on all whose explanations do
    not predict alike. Which these are depends on explanations alone, so the exchange stays valid. Strata are small, so
    scores are studentized within them and one null distribution is pooled over all explanations, each with the same
    weight. *Assumes* that studentized nulls have one shape; p-values are then uniform for each explanation, and
    otherwise still on average over explanations.
    Contradiction is tested by shifting that null by the average effect: wrong explanations lower the average, which
    makes it conservative.

    Raises
    ------
    InputError
        Shapes differ, fewer than two behaviors, NaN, a behavior in which nothing changed.
    """
    normal, effects, stratum, cluster = _checked(changes, expected, strata, clusters, confounds)
    n = normal.shape[1]
    centred = _centred(effects)
    found: dict[int, _Comparison] = {}
    for own in np.flatnonzero(np.abs(centred).sum(axis=0) > 0):
        comparison = _compared(normal, centred, centred[:, own], int(own), stratum, cluster)
        if comparison is not None:
            found[int(own)] = comparison
    columns = {name: np.full(n, np.nan) for name in ("score", "pvalue", "expected_score", "power", "low")}
    if not found:
        empty = np.full(n, np.nan)
        return ProfileMatch(empty, empty, empty, empty, empty, empty, empty, 0.0, np.nan)
    null = PooledNull.of([part.null for part in found.values()])
    places, parts = np.array(list(found)), list(found.values())
    energy = (centred[:, places] ** 2).sum(axis=0)
    effect = float(sum(part.excess for part in parts) / energy.sum())
    score = np.array([part.score for part in parts])
    expected_score = max(effect, 0.0) * energy / np.array([part.unit for part in parts])
    columns["score"][places] = score
    columns["pvalue"][places] = null.at_least(score)
    columns["expected_score"][places] = expected_score
    critical = null.quantile(1 - LEVEL)
    columns["power"][places] = null.at_least(critical - expected_score)
    columns["low"][places] = null.at_most(score - expected_score) if effect > 0 else 1.0
    return ProfileMatch(
        score=columns["score"],
        pvalue=columns["pvalue"],
        qvalue=qvalues(columns["pvalue"]),
        expected_score=columns["expected_score"],
        power=columns["power"],
        contradiction_pvalue=columns["low"],
        contradiction_qvalue=qvalues(columns["low"]),
        effect=effect,
        critical=critical,
    )


def score_elsewhere(
    changes: ArrayLike,
    expected: ArrayLike,
    explanation: int,
    latent: int,
    *,
    strata: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    confounds: ArrayLike | None = None,
) -> float:
    """Return the studentized score of one latent's explanation on another latent, among that one's stratum.

    Parameters
    ----------
    changes, expected, strata, clusters, confounds
        As in `match_profiles`.
    explanation, latent : int
        Places of the latent whose explanation it is, and of the latent that it is tried on.

    Returns
    -------
    float
        NaN where too few latents are alike.
    """
    normal, effects, stratum, cluster = _checked(changes, expected, strata, clusters, confounds)
    centred = _centred(effects)
    found = _compared(normal, centred, centred[:, explanation], latent, stratum, cluster)
    return float("nan") if found is None else found.score


VerdictName = Literal["supported", "contradicted", "absorbed", "untestable", "inconclusive"]
Reason = Literal[
    "predicts_nothing",
    "predicts_the_same",
    "too_few_alike",
    "changed_as_predicted",
    "no_average_effect",
    "neighbour_changed",
    "changed_otherwise",
    "low_power",
    "undecided",
]


class Verdict(NamedTuple):
    """The verdict on an explanation, and the code of its reason.

    Attributes
    ----------
    name : {"supported", "contradicted", "absorbed", "untestable", "inconclusive"}
    reason : str
        untestable: "predicts_nothing" (no effect of any behavior), "predicts_the_same" (one effect for all behaviors),
        "too_few_alike" (too few latents of the stratum to compare with), "low_power" (power below `min_power`);
        supported: "changed_as_predicted"; absorbed: "neighbour_changed"; contradicted: "changed_otherwise";
        inconclusive: "no_average_effect" (the explanations together predict no change, so none can be contradicted),
        "undecided" (neither significantly right nor significantly wrong).
    """

    name: VerdictName
    reason: Reason


def _no_neighbour() -> float:
    return math.nan


def decide(
    match: ProfileMatch,
    index: int,
    effects: np.ndarray,
    *,
    neighbour_score: Callable[[], float] = _no_neighbour,
    level: float = LEVEL,
    min_power: float = MIN_POWER,
) -> Verdict:
    """Decide the verdict on one explanation from all behaviors.

    Parameters
    ----------
    match : ProfileMatch
    index : int
        Position of the explanation's latent in `match`.
    effects : (n_behaviors,) float
        Effects that the explanation predicts, as they were given to `match_profiles`.
    neighbour_score : callable
        Returns the explanation's score on the neighbor that may have absorbed its latent (`score_elsewhere`), NaN
        without such a neighbor. Only called for explanations that would otherwise be contradicted.
    level : float
        Largest q-value that supports or contradicts (exclusive).
    min_power : float
        Least power with which a lack of evidence is "inconclusive" instead of "untestable".

    Returns
    -------
    Verdict

    Notes
    -----
    The checks run in this order: is there a score; is the explanation supported; do explanations have an effect on
    average; is this one contradicted, and if so, was its latent absorbed (the neighbor's score reaches
    `match.critical`); was there power.
    """
    if np.isnan(match.score[index]):
        if np.ptp(effects) == 0:
            return Verdict("untestable", "predicts_the_same" if effects.any() else "predicts_nothing")
        return Verdict("untestable", "too_few_alike")
    if match.qvalue[index] < level:
        return Verdict("supported", "changed_as_predicted")
    if match.effect <= 0:
        return Verdict("inconclusive", "no_average_effect")
    if match.contradiction_qvalue[index] < level:
        if neighbour_score() >= match.critical:
            return Verdict("absorbed", "neighbour_changed")
        return Verdict("contradicted", "changed_otherwise")
    if match.power[index] < min_power:
        return Verdict("untestable", "low_power")
    return Verdict("inconclusive", "undecided")


def _centred(effects: np.ndarray) -> np.ndarray:
    """Return effects (n_behaviors, n) less each latent's mean; exactly 0 where they are the same for every behavior."""
    return np.where(np.ptp(effects, axis=0) == 0, 0.0, effects - effects.mean(axis=0))


def _checked(
    changes: ArrayLike,
    expected: ArrayLike,
    strata: ArrayLike | None,
    clusters: ArrayLike | None,
    confounds: ArrayLike | None,
) -> tuple[np.ndarray, ...]:
    changed, effects = as_finite("changes", changes, n_dims=2), as_finite("expected", expected, n_dims=2)
    if changed.shape != effects.shape or len(changed) < 2:
        raise InputError(
            f"changes has shape {changed.shape} and expected {effects.shape}",
            allowed="(n_behaviors, n) with the same n and at least two behaviors",
        )
    still = np.ptp(changed, axis=1) == 0
    if still.any():
        raise InputError(f"in behavior {int(np.argmax(still))} all latents changed alike", remedy="leave it out")
    n = changed.shape[1]
    normal = norm.ppf((rankdata(changed, axis=1) - 0.5) / n)
    stratum, cluster = as_groups("strata", strata, n), as_groups("clusters", clusters, n)
    smooth = smooth_confounds(confounds, stratum, cluster)
    if smooth is not None:
        normal = normal - smooth.fitted(normal)
    return normal, effects, stratum, cluster


def _compared(
    normal: np.ndarray, centred: np.ndarray, profile: np.ndarray, own: int, stratum: np.ndarray, cluster: np.ndarray
) -> _Comparison | None:
    """Compare a profile (n_behaviors,) on latent `own` with the rest of its stratum; None with too few of them."""
    others = np.flatnonzero((stratum == stratum[own]) & (cluster != cluster[own]))
    said = centred[:, others]
    flat = others[~said.any(axis=0)]
    # Latents that are said to do something else may well do it, which would pass for noise.
    others = flat if len(flat) >= MIN_ALIKE else others[profile @ said <= 0]
    if len(others) < MIN_ALIKE:
        return None
    raw = profile @ normal[:, others]
    if np.ptp(raw) < 1e-9:
        return None
    mean, unit = float(raw.mean()), float(raw.std(ddof=1) * np.sqrt(1 + 1 / len(raw)))
    excess = float(profile @ normal[:, own]) - mean
    return _Comparison(excess / unit, _left_out(raw), excess, unit)


def _left_out(raw: np.ndarray) -> np.ndarray:
    """Return each of `raw` (m,) less the mean of the rest, in units of the rest's spread."""
    rest = len(raw) - 1
    mean = (raw.sum() - raw) / rest
    variance = np.maximum(((raw**2).sum() - raw**2 - rest * mean**2) / (rest - 1), 1e-18)
    return (raw - mean) / np.sqrt(variance * (1 + 1 / rest))
