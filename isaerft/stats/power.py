"""What a design can show: noise ceilings, the smallest detectable effect, and the power of a planned study.

>>> round(minimum_detectable_effect(2000, 300), 3)
0.545

How many latents, seeds and behaviors detect an effect of a given size?

>>> design = Design(n_latents=2000, expected_share=0.15, n_seeds=5, seed_reliability=0.32)
>>> round(power_of(auroc_of_odds_ratio(1.3), design), 2)
0.65
>>> latents_needed(auroc_of_odds_ratio(1.3), design, power=0.9)
4237

Odds ratios are those of the proportional-odds model: the odds of a change above any threshold are that many times
higher for an expected latent than for another (McCullagh 1980, JRSS B 42:109). Noise of the seeds shrinks an effect as
in `observed_auroc`; averaging over seeds reduces the noise by Spearman and Brown's formula.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri
from scipy.stats import norm

from isaerft.errors import InputError
from isaerft.stats.checks import as_alternative, as_count, as_share
from isaerft.stats.seeds import reliability_of_all, scaled_ranks
from isaerft.stats.statistics import auroc

_QUANTILES = ndtri((np.arange(4096) + 0.5) / 4096)


def auroc_ceiling_of_seed(changes: ArrayLike, n_expected: int) -> float:
    """Return a noise ceiling for the AUROC of one seed's changes, from an oracle that knows the other seeds.

    For each seed the `n_expected` latents that changed most in the mean of the other seeds are called expected, and the
    AUROC of the seed's own change is taken; the mean over seeds is returned. The other seeds are noisy too, so with few
    seeds this is on the low side.

    Parameters
    ----------
    changes : (n_seeds, n) float
    n_expected : int
        How many latents the explanations call expected.

    Returns
    -------
    float
        NaN with one seed, or when none or all latents are expected.
    """
    ranks = scaled_ranks(changes)
    n_seeds, n = ranks.shape
    if n_seeds < 2 or not 0 < n_expected < n:
        return float("nan")
    values = []
    for seed in range(n_seeds):
        others = np.delete(ranks, seed, axis=0).mean(0)
        oracle = np.zeros(n, bool)
        oracle[np.argsort(-others, kind="stable")[:n_expected]] = True
        values.append(float(auroc(ranks[seed], oracle)))
    return float(np.mean(values))


def auroc_ceiling_of_mean(changes: ArrayLike, n_expected: int) -> float:
    """Return the noise ceiling for the AUROC of the mean over seeds: that of an oracle that knows the true changes.

    The oracle calls the `n_expected` latents expected that change most in the mean over infinitely many seeds. The
    ceiling is the AUROC of the mean over the given seeds against these labels.

    Parameters
    ----------
    changes : (n_seeds, n) float
    n_expected : int
        How many latents the explanations call expected.

    Returns
    -------
    float
        NaN where `auroc_ceiling_of_seed` is, and where it is at most 0.5: then seeds agree no better than by chance,
        and no ceiling can be estimated.

    Notes
    -----
    Let A(c) be the AUROC of a standard normal value against the top n_expected / n of another one that correlates with
    it at c. The leave-one-out AUROC of `auroc_ceiling_of_seed` is about A(c) with c the correlation between one seed
    and the mean of the k - 1 others. With r the reliability of one seed and R(m) = m r / (1 + (m - 1) r) that of the
    mean of m seeds (Spearman 1910, Brown 1910), c^2 = R(1) R(k - 1). Solving for r gives the ceiling A(sqrt(R(k))).
    Because c comes from the AUROC of the top latents and not from all ranks, changes need not be normal as a whole. The
    ceiling is too high where more latents are expected than truly change.
    """
    of_seed = auroc_ceiling_of_seed(changes, n_expected)
    if not of_seed > 0.5:
        return math.nan
    n_seeds, n = np.shape(changes)
    share = n_expected / n
    if of_seed >= _top_auroc(1.0, share):
        return 1.0
    correlation = float(brentq(lambda c: _top_auroc(c, share) - of_seed, 0.0, 1.0))
    return _top_auroc(math.sqrt(reliability_of_all(correlation, n_seeds - 1, 1)), share)


def _top_auroc(correlation: float, share: float) -> float:
    """Return the AUROC of a normal value against the top `share` of another that correlates with it."""
    cut = norm.isf(share)
    noise = math.sqrt(1 - correlation**2)
    if noise == 0:
        return 1.0
    # Chance of being in the top, at evenly spaced quantiles of the value from low to high.
    expected = ndtr((correlation * _QUANTILES - cut) / noise)
    others = 1 - expected
    below = np.cumsum(others) - others / 2
    return float(expected @ below / (expected.sum() * others.sum()))


def hanley_mcneil_sd(auroc: float, n_expected: float, n_unexpected: float) -> float:
    """Return the standard deviation of an estimated AUROC whose true value is `auroc`.

    From Hanley and McNeil (1982, Radiology 143:29), exact for exponential scores; for normal ones it is
    up to about 10 % too large.
    """
    both_expected, both_not = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    variance = (
        auroc * (1 - auroc) + (n_expected - 1) * (both_expected - auroc**2) + (n_unexpected - 1) * (both_not - auroc**2)
    ) / (n_expected * n_unexpected)
    return math.sqrt(max(variance, 0.0))


def minimum_detectable_effect(
    n_latents: int,
    n_expected: int,
    *,
    power: float = 0.8,
    alpha: float = 0.05,
    alternative: str = "greater",
    null_sd: float | None = None,
    null_mean: float = 0.5,
) -> float:
    """Return the AUROC that a test of this size would find significant with chance `power`.

    Parameters
    ----------
    n_latents, n_expected : int
        Latents in the test and how many of them are expected to change.
    power : float
        Chance of a p-value of at most `alpha` when the returned AUROC is true.
    alpha : float
        Level of the test.
    alternative : {"greater", "less", "two-sided"}
        "less" returns an AUROC below `null_mean`, the others one above.
    null_sd : float, optional
        Standard deviation of the permutation null (`AgreementResult.null_sd`), in AUROC units. With it the effect of
        strata and clusters is counted, also at the alternative, whose variance is scaled by the same factor. Default:
        that of independent latents without ties.
    null_mean : float
        The AUROC without agreement (`AgreementResult.null_mean`; with confounded strata it is not 0.5).

    Returns
    -------
    float
        An AUROC between 0 and 1; NaN if none or all are expected, or if even a perfect AUROC would not be found.

    Raises
    ------
    InputError
        `power` or `alpha` is not in (0, 1), a count or `null_sd` is negative, or `alternative` is unknown.

    Notes
    -----
    Solves effect = z(1 - alpha) sd_null + z(power) sd(effect) by the normal approximation; alpha / 2 when two-sided.
    "less" is the mirror image: the same design with all changes negated.
    """
    as_share("power", power), as_share("alpha", alpha), as_alternative(alternative)
    if n_latents < 0 or not 0 <= n_expected <= n_latents:
        raise InputError(f"{n_expected} expected of {n_latents} latents", allowed="0 <= n_expected <= n_latents")
    if null_sd is not None and not null_sd >= 0:
        raise InputError(f"null_sd is {null_sd!r}", allowed="a number of at least 0")
    n_unexpected = n_latents - n_expected
    if n_expected == 0 or n_unexpected == 0 or null_sd == 0:
        return math.nan
    independent = math.sqrt((n_latents + 1) / (12 * n_expected * n_unexpected))
    null = independent if null_sd is None else null_sd
    critical = norm.ppf(1 - (alpha / 2 if alternative == "two-sided" else alpha)) * null
    down = alternative == "less"
    start = 1 - null_mean if down else null_mean

    def shortfall(auroc: float) -> float:
        at_alternative = hanley_mcneil_sd(auroc, n_expected, n_unexpected) * null / independent
        return auroc - start - critical - norm.ppf(power) * at_alternative

    if not shortfall(start) < 0 < shortfall(1.0):
        return math.nan
    found = float(brentq(shortfall, start, 1.0))
    return 1 - found if down else found


def minimum_detectable_correlation(
    null_sd: float, *, power: float = 0.8, alpha: float = 0.05, null_mean: float = 0.0
) -> float:
    """Return the correlation that a one-sided test would find significant with chance `power`.

    Normal approximation with the null's standard deviation also at the alternative:
    null_mean + (z(1 - alpha) + z(power)) null_sd; NaN where that is above 1.

    Parameters
    ----------
    null_sd, null_mean : float
        Of the permutation null (`AgreementResult.null_sd`, `null_mean`).
    """
    as_share("power", power), as_share("alpha", alpha)
    effect = null_mean + (norm.ppf(1 - alpha) + norm.ppf(power)) * null_sd
    return float(effect) if effect <= 1 else math.nan


MAX_LATENTS = 2**24
_NEAR_ONE = 1e-4


@dataclass(frozen=True)
class Design:
    """The size of a study.

    Parameters
    ----------
    n_latents : int
        Latents with an explanation, alive on the corpus.
    expected_share : float
        Share of them that a behavior's explanations expect to change.
    n_seeds : int
        Trainings that each change is averaged over.
    seed_reliability : float
        Reliability of a single seed's ranking of the latents (`Reliability.icc_single`); 1 is no noise.
    n_behaviors : int
        Behaviors whose agreement is averaged; their estimates are taken as independent.
    design_effect : float
        Variance of the null with strata and clusters over that of independent latents: (`AgreementResult.null_sd` over
        that of `minimum_detectable_effect`) squared. Clusters raise it, strata may lower it.
    """

    n_latents: int
    expected_share: float
    n_seeds: int = 1
    seed_reliability: float = 1.0
    n_behaviors: int = 1
    design_effect: float = 1.0

    def __post_init__(self) -> None:
        as_count("n_latents", self.n_latents)
        as_count("n_seeds", self.n_seeds)
        as_count("n_behaviors", self.n_behaviors)
        as_share("expected_share", self.expected_share)
        if not 0 < self.seed_reliability <= 1:
            raise InputError(f"seed_reliability is {self.seed_reliability!r}", allowed="above 0, at most 1")
        if not self.design_effect > 0:
            raise InputError(f"design_effect is {self.design_effect!r}", allowed="above 0")

    @property
    def reliability(self) -> float:
        """Reliability of the mean over the seeds: k r / (1 + (k - 1) r), Spearman (1910) and Brown (1910)."""
        single, k = self.seed_reliability, self.n_seeds
        return k * single / (1 + (k - 1) * single)


def auroc_of_odds_ratio(odds_ratio: float) -> float:
    """Return the AUROC under proportional odds, a logistic shift by d = log(odds_ratio): w (w - 1 - d) / (w - 1)^2.

    With w the odds ratio; `InputError` unless it is positive.
    """
    if not (odds_ratio > 0 and math.isfinite(odds_ratio)):
        raise InputError(f"odds_ratio is {odds_ratio!r}", allowed="a positive number; 1 is no effect")
    shift = math.log(odds_ratio)
    if abs(shift) < _NEAR_ONE:
        # The formula is 0 / 0 at 1; its slope there is 1 / 6.
        return 0.5 + shift / 6
    return odds_ratio * (odds_ratio - 1 - shift) / (odds_ratio - 1) ** 2


def odds_ratio_of_auroc(auroc: float) -> float:
    """Return the odds ratio that has this AUROC under proportional odds."""
    as_share("auroc", auroc)
    return math.exp(float(brentq(lambda shift: auroc_of_odds_ratio(math.exp(shift)) - auroc, -30, 30)))


def observed_auroc(auroc: float, reliability: float) -> float:
    """Return what noise leaves of an AUROC: Phi(Phi^-1(auroc) sqrt(reliability)), the binormal model."""
    return float(norm.cdf(norm.ppf(auroc) * math.sqrt(reliability)))


def disattenuated_auroc(auroc: float, reliability: float) -> float:
    """Return the AUROC that noise-free changes would have shown, given the `reliability` (0 to 1) of those measured.

    Under the binormal model AUROC = Phi(d / sqrt 2) noise shrinks d by sqrt(reliability); so an AUROC has no ceiling
    below 1 as such, but is read against Phi(Phi^-1(auroc) / sqrt(reliability)). NaN without a positive reliability.
    """
    if not 0 < reliability <= 1:
        return math.nan
    return float(norm.cdf(norm.ppf(auroc) / math.sqrt(reliability)))


def power_of(auroc: float, design: Design, *, alpha: float = 0.05) -> float:
    """Return the chance that the one-sided test of the mean agreement over behaviors finds p <= `alpha`.

    Parameters
    ----------
    auroc : float
        The agreement that noise-free changes would show, in (0, 1).
    design : Design

    Returns
    -------
    float
        By the normal approximation, with Hanley and McNeil's variance at the alternative. NaN where fewer than one
        latent would be expected, or all.
    """
    as_share("auroc", auroc), as_share("alpha", alpha)
    n_expected = round(design.n_latents * design.expected_share)
    n_unexpected = design.n_latents - n_expected
    if n_expected < 1 or n_unexpected < 1:
        return math.nan
    shrink = math.sqrt(design.design_effect / design.n_behaviors)
    at_null = math.sqrt((design.n_latents + 1) / (12 * n_expected * n_unexpected)) * shrink
    seen = observed_auroc(auroc, design.reliability)
    at_alternative = hanley_mcneil_sd(seen, n_expected, n_unexpected) * shrink
    return float(norm.sf((0.5 + norm.ppf(1 - alpha) * at_null - seen) / at_alternative))


def latents_needed(auroc: float, design: Design, *, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Return the smallest number of latents with which `power` is reached, all else as in `design`.

    None where 2^24 latents are too few (an AUROC of 0.5 or less is never found).
    """
    as_share("power", power)
    low = max(2, math.ceil(1 / min(design.expected_share, 1 - design.expected_share)))
    high = MAX_LATENTS

    def reached(n: int) -> bool:
        return power_of(auroc, replace(design, n_latents=n), alpha=alpha) >= power

    if not reached(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle + 1, high)
    return low
