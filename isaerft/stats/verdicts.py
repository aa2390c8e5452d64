"""Verdicts: do the effects that an explanation predicts over behaviors match its latent's changes?

Model: z_ib = a_i + m_sb + d_i e_ib + noise. z_ib is the normal score of latent i's change when behavior b is trained,
e_ib the effect that its explanation predicts and m_sb the mean of its stratum s. d_i is the slope of z over e within
the latent: it compares the behaviors that the latent is said to belong to with those that it is not, so a latent that
moves under every training, or more than others under any, gains nothing. Normal scores (van der Waerden) are used
instead of ranks because ranks flatten the few latents that moved far, and instead of changes because one far outlier
among few behaviors would pass for an effect.

>>> import numpy as np
>>> rng = np.random.default_rng(0)
>>> expected = np.zeros((8, 400))
>>> expected[np.arange(80) % 8, np.arange(80)] = 1
>>> changes = rng.normal(size=(8, 400)) + 4 * expected
>>> match = match_profiles(changes, expected)
>>> int((match.qvalue < 0.05).sum()) > 60
True
>>> decide(match, 100, expected[:, 100])
Verdict(name='untestable', reason='predicts_nothing')
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import nct, norm
from scipy.stats import t as student

from isaerft.errors import InputError
from isaerft.stats.checks import as_finite, as_groups
from isaerft.stats.confounds import smooth_confounds
from isaerft.stats.moderated import VariancePrior, variance_prior
from isaerft.stats.multiple_testing import qvalues
from isaerft.stats.ranks import midranks

MIN_FAMILIES = 3
"""Fewest families of behaviors: a slope and its noise need three."""
SMALL_EFFECT = 0.5
"""Share of the mean effect below which an explanation's effect contradicts it, where effects hardly vary."""
N_SPREADS = 2.0
"""Spreads below the median effect that right explanations are taken to reach."""
LEVEL = 0.05
"""Level of the tests and of their power."""
MIN_POWER = 0.5
"""Least power, of either test, with which a lack of evidence counts as inconclusive; with less: untestable."""
MAX_PROFILES = 200
"""Most different predictions that are exchanged; of more, as many spread over them."""
_QUARTILE = float(norm.ppf(0.75))
_LARGEST_DF = 1e6


@dataclass(frozen=True)
class ProfileMatch:
    """Match of each explanation over all behaviors; all (n,) float, NaN where it cannot be tested.

    Attributes
    ----------
    score : moderated t of the latent's slope over predicted effects.
    pvalue : chance of so high a score without an effect.
    qvalue : `pvalue` after Benjamini and Hochberg.
    expected_score : the score if the explanation had the effect that explanations have here on average.
    power : chance of p < 0.05 at the average effect.
    contradiction_pvalue : chance of so low a score with an effect of at least `small_effect`.
    contradiction_qvalue : the same after Benjamini and Hochberg.
    contradiction_power : chance of a contradiction p < 0.05 without an effect.
    effect : float
        The average effect: normal scores per unit of predicted effect. Not above 0: nothing can be contradicted.
    small_effect : float
        The effect below which an explanation is contradicted.
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
    contradiction_power: np.ndarray
    effect: float
    small_effect: float
    critical: float

    def of(self, place: int) -> dict[str, float]:
        """Return the numbers of the explanation at `place`, by name."""
        return {name: float(getattr(self, name)[place]) for name in _NUMBERS}


_NUMBERS = tuple(part.name for part in fields(ProfileMatch) if part.type == "np.ndarray")


@dataclass(frozen=True)
class PooledNull:
    """Scores of profiles on latents that are said to do something else, every explanation with the same weight.

    Attributes
    ----------
    values : (m,) float
        Ascending.
    cumulative : (m + 1,) float
        Share of the null below each value, and 1.
    n_distinct : int
        How many values the null resolves: profiles repeat the same latents.
    """

    values: np.ndarray
    cumulative: np.ndarray
    n_distinct: int

    @classmethod
    def of(cls, scores: np.ndarray, unlike: np.ndarray, weights: np.ndarray, n_distinct: int) -> PooledNull:
        """Pool scores (k, m) where `unlike` (k, m) bool, by rows of these weights (k,)."""
        share = (weights / np.maximum(unlike.sum(axis=1), 1))[:, None] * unlike
        values, shares = scores[unlike], share[unlike]
        order = np.argsort(values, kind="stable")
        return cls(values[order], np.r_[0.0, np.cumsum(shares[order]) / shares.sum()], n_distinct)

    def at_least(self, scores: np.ndarray) -> np.ndarray:
        """Return the share of the null at or above each score, the score itself added to it."""
        # The (b + 1) / (m + 1) of a permutation test, so that no p-value is below what the null can resolve.
        share = 1 - self.cumulative[np.searchsorted(self.values, scores, side="left")]
        return np.clip((self.n_distinct * share + 1) / (self.n_distinct + 1), 0.0, 1.0)

    def critical(self, level: float) -> float:
        """Return a score above which `at_least` is at most `level`; infinite where the null cannot resolve it."""
        share = (level * (self.n_distinct + 1) - 1) / self.n_distinct
        if share < 0:
            return math.inf
        return float(self.values[min(int(np.searchsorted(self.cumulative[1:], 1 - share)), len(self.values) - 1)])


@dataclass(frozen=True)
class _Slopes:
    """Least-squares slopes of normal scores over predicted effects, within latents.

    Attributes
    ----------
    slope, variance : (..., m) float
        The slope and the residual variance.
    energy : (m,) or (k, 1) float
        Sum of squares of the centered effects.
    degrees_of_freedom : int
        Of each residual variance.
    """

    slope: np.ndarray
    variance: np.ndarray
    energy: np.ndarray
    degrees_of_freedom: int

    @classmethod
    def of(cls, scores: np.ndarray, effects: np.ndarray) -> _Slopes:
        """Fit scores (F, m) over effects (F, m), column by column; the effects vary in each."""
        z, e = scores - scores.mean(axis=0), effects - effects.mean(axis=0)
        return cls._fit((e * z).sum(axis=0), z, (e**2).sum(axis=0))

    @classmethod
    def crossed(cls, scores: np.ndarray, effects: np.ndarray) -> _Slopes:
        """Fit each of scores (F, m) over each of effects (F, k): arrays are (k, m)."""
        z, e = scores - scores.mean(axis=0), effects - effects.mean(axis=0)
        return cls._fit(e.T @ z, z, (e**2).sum(axis=0)[:, None])

    @classmethod
    def _fit(cls, product: np.ndarray, z: np.ndarray, energy: np.ndarray) -> _Slopes:
        slope, df = product / energy, len(z) - 2
        return cls(slope, np.maximum((z**2).sum(axis=0) - slope**2 * energy, 0) / df, energy, df)

    def error(self, prior: VariancePrior) -> np.ndarray:
        """Return the moderated standard errors of the slopes."""
        # A latent that is still but for the named behaviors would have no error.
        variance = np.maximum(prior.moderate(self.variance, self.degrees_of_freedom), 1e-12)
        return np.sqrt(variance / self.energy)


def match_profiles(
    changes: ArrayLike,
    expected: ArrayLike,
    *,
    strata: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    confounds: ArrayLike | None = None,
    families: ArrayLike | None = None,
) -> ProfileMatch:
    """Test each explanation within its latent: named behaviors against those it does not name, or by graded effects.

    Parameters
    ----------
    changes : (n_behaviors, n) float
        Change of each latent when training on each behavior; only ranks within a behavior count.
    expected : (n_behaviors, n) float
        Predicted effects.
    strata : (n,) int, optional
        The mean of a latent's stratum is taken out of each behavior.
    clusters, confounds : (n,) int and (k, n) float, optional
        What smooth functions of the confounds explain of the changes is taken out, too (`isaerft.stats.confounds`).
    families : (n_behaviors,) int, optional
        Behaviors of one family are one replicate: scores and effects are averaged over it. By default each is its own.

    Returns
    -------
    ProfileMatch

    Notes
    -----
    With yes-no effects the score is the two-group t, its variance moderated by that of the other explanations' latents
    (`isaerft.stats.moderated`). Its null is the same score where explanations are exchanged: each profile on latents
    that are said to do something else, pooled over explanations. Only latents whose explanations predict something are
    in it: those that are said to do nothing may be quieter, and a null of them alone gives false discovery rates up to
    one. It resolves no more values than there are latents (near-duplicates count once) times contrasts of behaviors,
    so support takes several explanations that held. P-values hold on average over explanations; besides, none is below
    `LEVEL` where Student's t is not, so that a latent of pure noise is not supported more often than that. Student's t
    alone also holds the false discovery rate, but finds fewer (with 8 behaviors, one of them named, and a fifth of the
    explanations wrong: 53 % of the right ones instead of 73 %); a prior without the largest variances does not hold it.

    Contradiction: by Student's t, the effect is below `small_effect` = min(c m, median - k s), at least 0, with m the
    mean effect, c = `SMALL_EFFECT`, k = `N_SPREADS` and s the spread of effects beyond their errors, from median and
    lower quartile, which few wrong explanations hardly move. If right explanations vary much it is 0, and only effects
    of the wrong sign contradict. At best it has a power of one half, at p < 0.05, where the mean effect is 3.4 standard
    errors: with k of B behaviors named, 3.4 sqrt(1 / k + 1 / (B - k)) standard deviations of a latent's noise.

    Both verdicts have Benjamini and Hochberg's q-values of their own, so each has its false discovery rate. It then
    holds for both together: an explanation has at most one true null of the two, and every rejected p-value is below
    level x all rejections / explanations (self-consistent; Blanchard and Roquain 2008, Electron. J. Stat. 2:963).
    *Assumes* that wrong explanations are exchangeable with the others and, for contradiction, that within a latent the
    noise of families has one variance and is independent.

    Raises
    ------
    InputError
        Shapes differ, fewer than two behaviors, NaN, a behavior in which nothing changed.
    """
    scores, effects = _checked(changes, expected, strata, clusters, confounds, families)
    speaks = np.flatnonzero(np.ptp(effects, axis=0) > 0)
    columns = {name: np.full(scores.shape[1], np.nan) for name in _NUMBERS}
    if len(scores) < MIN_FAMILIES or not len(speaks):
        return ProfileMatch(**columns, effect=0.0, small_effect=0.0, critical=math.nan)
    tested, profiles = scores[:, speaks], effects[:, speaks]
    fit = _Slopes.of(tested, profiles)
    prior = variance_prior(fit.variance, fit.degrees_of_freedom)
    error, df = fit.error(prior), min(prior.degrees_of_freedom + fit.degrees_of_freedom, _LARGEST_DF)
    score, effect = fit.slope / error, float(np.average(fit.slope, weights=fit.energy))
    small = _small_effect(fit.slope, error, effect)
    pvalue, least = student.sf(score, df), float(student.isf(LEVEL, df))
    cluster = as_groups("clusters", clusters, scores.shape[1])[speaks]
    null, critical = _exchanged(tested, profiles, prior, cluster), least
    if null is not None:
        exchanged, critical = null.at_least(score), max(least, null.critical(LEVEL))
        pvalue = np.where(pvalue <= LEVEL, exchanged, np.maximum(pvalue, exchanged))
    found = {
        "score": score,
        "pvalue": pvalue,
        "expected_score": max(effect, 0.0) / error,
        "power": nct.sf(critical, df, max(effect, 0.0) / error),
        "contradiction_pvalue": student.cdf((fit.slope - small) / error, df) if effect > 0 else 1.0,
        "contradiction_power": nct.sf(least, df, small / error) if effect > 0 else 0.0,
    }
    for name, values in found.items():
        columns[name][speaks] = values
    columns["qvalue"] = qvalues(columns["pvalue"])
    columns["contradiction_qvalue"] = qvalues(columns["contradiction_pvalue"])
    return ProfileMatch(**columns, effect=effect, small_effect=small, critical=critical)


def score_elsewhere(
    changes: ArrayLike,
    expected: ArrayLike,
    explanation: int,
    latent: int,
    *,
    strata: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    confounds: ArrayLike | None = None,
    families: ArrayLike | None = None,
) -> float:
    """Return the score of one latent's explanation on another latent.

    Parameters
    ----------
    changes, expected, strata, clusters, confounds, families
        As in `match_profiles`.
    explanation, latent : int
        Places of the latent whose explanation it is, and of the latent that it is tried on.

    Returns
    -------
    float
        NaN where the explanation cannot be tested.
    """
    scores, effects = _checked(changes, expected, strata, clusters, confounds, families)
    if len(scores) < MIN_FAMILIES or np.ptp(effects[:, explanation]) == 0:
        return math.nan
    speaks = np.ptp(effects, axis=0) > 0
    fit = _Slopes.of(scores[:, speaks], effects[:, speaks])
    there = _Slopes.of(scores[:, [latent]], effects[:, [explanation]])
    return float((there.slope / there.error(variance_prior(fit.variance, fit.degrees_of_freedom)))[0])


VerdictName = Literal["supported", "contradicted", "absorbed", "untestable", "inconclusive"]
Reason = Literal[
    "predicts_nothing",
    "predicts_the_same",
    "too_few_behaviors",
    "changed_as_predicted",
    "no_average_effect",
    "absorber_changed",
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
        "too_few_behaviors" (fewer than three families, or families for which it predicts the same), "low_power" (it
        could have been neither supported nor contradicted);
        supported: "changed_as_predicted"; absorbed: "absorber_changed"; contradicted: "changed_otherwise";
        inconclusive: "no_average_effect" (the explanations together predict no change, so none can be contradicted),
        "undecided" (neither significantly right nor significantly wrong).
    """

    name: VerdictName
    reason: Reason


def _no_absorber() -> float:
    return math.nan


def decide(
    match: ProfileMatch,
    index: int,
    effects: np.ndarray,
    *,
    absorber_score: Callable[[], float] = _no_absorber,
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
    absorber_score : callable
        Returns the explanation's score on the latent that can have absorbed its own (`score_elsewhere`), NaN where
        none can. Only called for explanations that would otherwise be contradicted.
    level : float
        Largest q-value that supports or contradicts (exclusive).
    min_power : float
        Least power, to support or to contradict, with which a lack of evidence is "inconclusive" instead of
        "untestable".

    Returns
    -------
    Verdict

    Notes
    -----
    The checks run in this order: is there a score; is the explanation supported; do explanations have an effect on
    average; is this one contradicted, and if so, was its latent absorbed (the absorber's score reaches
    `match.critical`); was there power.
    """
    if np.isnan(match.score[index]):
        if np.ptp(effects) == 0:
            return Verdict("untestable", "predicts_the_same" if effects.any() else "predicts_nothing")
        return Verdict("untestable", "too_few_behaviors")
    if match.qvalue[index] < level:
        return Verdict("supported", "changed_as_predicted")
    if match.effect <= 0:
        return Verdict("inconclusive", "no_average_effect")
    if match.contradiction_qvalue[index] < level:
        if absorber_score() >= match.critical:
            return Verdict("absorbed", "absorber_changed")
        return Verdict("contradicted", "changed_otherwise")
    if max(match.power[index], match.contradiction_power[index]) < min_power:
        return Verdict("untestable", "low_power")
    return Verdict("inconclusive", "undecided")


def _exchanged(
    scores: np.ndarray, effects: np.ndarray, prior: VariancePrior, clusters: np.ndarray
) -> PooledNull | None:
    """Pool the scores of profiles (F, m) on latents that are said to do something else; None where there are none."""
    profiles, weights = np.unique(effects.round(9), axis=1, return_counts=True)
    if profiles.shape[1] > MAX_PROFILES:
        kept = np.linspace(0, profiles.shape[1] - 1, MAX_PROFILES).astype(int)
        profiles, weights = profiles[:, kept], weights[kept]
    unlike = (profiles - profiles.mean(axis=0)).T @ (effects - effects.mean(axis=0)) <= 1e-9
    if not unlike.any():
        return None
    fit = _Slopes.crossed(scores, profiles)
    n_each = min(len(scores) - 1.0, float(unlike.sum(axis=0).mean()))
    n_distinct = max(1, int(len(np.unique(clusters)) * n_each))
    return PooledNull.of(fit.slope / fit.error(prior), unlike, weights, n_distinct)


def _small_effect(slope: np.ndarray, error: np.ndarray, effect: float) -> float:
    """Return the effect below which explanations are contradicted, from slopes and errors (m,) and the mean effect."""
    median, lower = np.quantile(slope, [0.5, 0.25])
    spread = math.sqrt(max(0.0, ((median - lower) / _QUARTILE) ** 2 - float(np.median(error)) ** 2))
    return max(0.0, min(SMALL_EFFECT * effect, float(median) - N_SPREADS * spread))


def _checked(
    changes: ArrayLike,
    expected: ArrayLike,
    strata: ArrayLike | None,
    clusters: ArrayLike | None,
    confounds: ArrayLike | None,
    families: ArrayLike | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return normal scores without confounds, and effects, both averaged over families (n_families, n)."""
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
    normal = norm.ppf((midranks(changed) - 0.5) / n)
    stratum, cluster = as_groups("strata", strata, n), as_groups("clusters", clusters, n)
    smooth = smooth_confounds(confounds, stratum, cluster)
    normal = normal - (_means(normal.T, stratum)[stratum].T if smooth is None else smooth.fitted(normal))
    if families is None:
        return normal, effects
    family = as_groups("families", families, len(normal))
    return _means(normal, family), _means(effects, family)


def _means(rows: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the means of `rows` (n, ...) in each of `groups` (n,), codes from 0."""
    return np.array([rows[groups == group].mean(axis=0) for group in range(groups.max() + 1)])
