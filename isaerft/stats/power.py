"""Plan a study: how many latents, seeds and behaviors does it take to find an effect of a given size?

The test is that of specificity: are a training's changes nearer to its own expectations than to those of other
behaviors?

>>> design = Design(n_latents=2000, expected_share=0.15, n_seeds=5, seed_reliability=0.32)
>>> round(power_of(auroc_of_odds_ratio(1.2), design), 2)
0.95
>>> latents_needed(auroc_of_odds_ratio(1.3), design, power=0.9)
764

Odds ratios are those of the proportional-odds model: the odds of a change above any threshold are that many times
higher for an expected latent than for another (McCullagh 1980, JRSS B 42:109). Noise of the seeds shrinks an effect as
in `observed_auroc`; averaging over seeds reduces the noise by Spearman and Brown's formula.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from scipy.optimize import brentq
from scipy.stats import nct, norm
from scipy.stats import t as student

from isaerft.errors import InputError
from isaerft.stats.checks import as_count, as_share

MIN_BEHAVIORS = 4
"""Fewest behaviors for which power is planned: three can be matched in 6 ways, so that no p-value is below 1/6."""


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
        Behaviors with a training of their own, at least `MIN_BEHAVIORS`; those of one family count as one.
    design_effect : float
        Variance of the agreement between changes and another behavior's expectations, over that of independent
        latents, (n + 1) / (12 n_expected n_unexpected): latents of one meaning move together and raise it.
    """

    n_latents: int
    expected_share: float
    n_seeds: int = 1
    seed_reliability: float = 1.0
    n_behaviors: int = 8
    design_effect: float = 1.0

    def __post_init__(self) -> None:
        as_count("n_latents", self.n_latents)
        as_count("n_seeds", self.n_seeds)
        as_count("n_behaviors", self.n_behaviors, least=MIN_BEHAVIORS)
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
    """Return the chance that the one-sided test of specificity finds p <= `alpha`.

    Parameters
    ----------
    auroc : float
        The agreement of every behavior's changes with its own expectations if changes were free of noise, in (0, 1);
        with those of other behaviors it is 0.5.
    design : Design

    Returns
    -------
    float
        NaN where fewer than one latent would be expected, or all.

    Notes
    -----
    The mean of the own values less that of the others has variance design_effect (s1^2 + s0^2 / (B - 1)) / B over B
    behaviors, with Hanley and McNeil's variances s1^2 at `auroc` and s0^2 at 0.5. Power is that of Student's t with
    B - 1 degrees of freedom (noncentral t). The test matches behaviors at random instead, which knows the spread
    better: in simulations (800 latents, 2 to 40 expected, 4 to 16 behaviors) it had power .80 to .93 where .80 was
    planned.
    """
    as_share("auroc", auroc), as_share("alpha", alpha)
    n_expected = round(design.n_latents * design.expected_share)
    n_unexpected = design.n_latents - n_expected
    if n_expected < 1 or n_unexpected < 1:
        return math.nan
    seen, n = observed_auroc(auroc, design.reliability), design.n_behaviors
    own = hanley_mcneil_sd(seen, n_expected, n_unexpected) ** 2
    others = (design.n_latents + 1) / (12 * n_expected * n_unexpected)
    error = math.sqrt(design.design_effect * (own + others / (n - 1)) / n)
    return float(nct.sf(student.isf(alpha, n - 1), n - 1, (seen - 0.5) / error))


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
