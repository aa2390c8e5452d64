"""Tails: how the largest changes are distributed, and how few latents carry half of an effect.

Only the tail is described: the largest quarter of the sizes, given the value above which they lie. Four families are
fitted to it by maximum likelihood and compared by likelihood ratios, as Clauset, Shalizi and Newman (2009, SIAM Review
51:661) do. Here the tail is not chosen so that a power law fits it best, since that favors power laws.

>>> rng = np.random.default_rng(0)
>>> tail_of(rng.pareto(1.5, 4000) + 1).fitting
('lognormal', 'power_law')
>>> n_carrying([1, 5, -1, 2, 1])
1
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import log_ndtr
from scipy.stats import chi2, norm

from isaerft.stats.checks import as_finite

FAMILIES = ("normal", "exponential", "lognormal", "power_law")
"""From the shortest tail to the longest."""
SHARE = 0.25
"""Share of the sizes above 0 that make up the tail."""
FEWEST = 50
"""Fewest sizes in a tail that is described."""
LEVEL = 0.05
"""A family is refuted if another fits better with a smaller p-value."""
# Where the truncated normal distribution is, to rounding, exponential.
_FARTHEST = 50.0


@dataclass(frozen=True)
class Tail:
    """The tail of a distribution of sizes.

    Attributes
    ----------
    n : int
        Sizes in it.
    threshold : float
        Largest size below it.
    exponent : float
        Of the power law: the density falls as size to the power of minus this.
    pvalues : mapping of str to float
        For each family the p-value of the comparison with the family that beats it by most; 1 for one that none beats.
    """

    n: int
    threshold: float
    exponent: float
    pvalues: Mapping[str, float]

    @property
    def fitting(self) -> tuple[str, ...]:
        """The families that no other refutes."""
        return tuple(name for name, pvalue in self.pvalues.items() if pvalue >= LEVEL)


def tail_of(sizes: ArrayLike) -> Tail | None:
    """Describe the tail of sizes, (n,) float of any sign, of which the absolute values count; zeros are left out.

    Returns
    -------
    Tail or None
        None where it would hold fewer than `FEWEST` sizes, or where they are all alike.

    Notes
    -----
    Families are compared in pairs by Vuong's test (1989, Econometrica 57:307), two-sided. The power law is the limit of
    the lognormal for a wide one, so it is tested against it by the likelihood ratio with a parameter at its bound: half
    a chi-squared (del Castillo and Puig 1999, JASA 94:529), and can never beat it. The test *assumes* that sizes are
    independent: near-duplicates make p-values too small.
    """
    values = np.sort(np.abs(as_finite("sizes", sizes, n_dims=1)))
    values = values[values > 0]
    n = int(SHARE * len(values))
    if n < FEWEST or values[-1] == values[-n - 1]:
        return None
    threshold, tail = float(values[-n - 1]), values[-n:]
    densities = _log_densities(tail / threshold)
    pvalues = {name: min(_beaten(name, other, densities) for other in FAMILIES if other != name) for name in FAMILIES}
    return Tail(n, threshold, 1 + 1 / float(np.log(tail / threshold).mean()), pvalues)


def n_carrying(values: ArrayLike, share: float = 0.5) -> int | None:
    """Return the smallest number of values, (n,) float, whose sum reaches a share of the sum of all.

    None where the sum of all is not above 0.
    """
    array = np.sort(as_finite("values", values, n_dims=1))[::-1]
    if not array.sum() > 0:
        return None
    return 1 + int(np.argmax(np.cumsum(array) >= share * array.sum()))


def _beaten(name: str, other: str, densities: Mapping[str, np.ndarray]) -> float:
    """Return the p-value of the comparison of two families where `other` fits better than `name`, else 1."""
    ratios = densities[other] - densities[name]
    total = float(ratios.sum())
    if total <= 0:
        return 1.0
    if (name, other) == ("power_law", "lognormal"):
        return float(chi2.sf(2 * total, 1)) / 2
    return 2 * float(norm.sf(total / (math.sqrt(len(ratios)) * ratios.std())))


def _log_densities(x: np.ndarray) -> dict[str, np.ndarray]:
    """Return the log density of sizes x > 1, (n,), under each family, fitted to sizes above 1."""
    y = np.log(x)
    power_law = -math.log(y.mean()) - y / y.mean()
    return {
        "normal": _half_normal(x),
        "exponential": -math.log((x - 1).mean()) - (x - 1) / (x - 1).mean(),
        "lognormal": _truncated_normal(y, power_law) - y,
        "power_law": power_law - y,
    }


def _half_normal(x: np.ndarray) -> np.ndarray:
    """Return the log density of the absolute value of a normal one with mean 0, given that it is above 1."""
    square = float((x**2).mean())

    # With a = 1 / sd, E[x^2] = (1 + a hazard(a)) / a^2, which falls with a.
    def excess(log_a: float) -> float:
        a = math.exp(log_a)
        return math.log1p(a * _hazard(a)) - 2 * log_a - math.log(square)

    a = math.exp(brentq(excess, -30.0, 10.0))
    result: np.ndarray = norm.logpdf(x * a) + math.log(a) - log_ndtr(-a)
    return result


def _truncated_normal(y: np.ndarray, exponential: np.ndarray) -> np.ndarray:
    """Return the log density of a normal one, given that it is above 0; the `exponential` one where that is its limit.

    With a = - mean / sd, E[y] = sd (hazard(a) - a) and E[y^2] = sd^2 (1 + a^2 - a hazard(a)): their ratio rises with a,
    to 2 in the limit.
    """
    ratio = float((y**2).mean() / y.mean() ** 2)

    def excess(a: float) -> float:
        return (1 + a * a - a * _hazard(a)) / (_hazard(a) - a) ** 2 - ratio

    if excess(_FARTHEST) <= 0:
        return exponential
    a = float(brentq(excess, -_FARTHEST, _FARTHEST))
    sd = float(y.mean()) / (_hazard(a) - a)
    result: np.ndarray = norm.logpdf(y / sd + a) - math.log(sd) - log_ndtr(-a)
    return result


def _hazard(a: float) -> float:
    """Return the standard normal density at `a` over the probability of more."""
    return math.exp(float(norm.logpdf(a)) - float(log_ndtr(-a)))
