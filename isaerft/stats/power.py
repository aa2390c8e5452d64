"""How large an agreement a design could have seen: without it, "no agreement" is not a finding.

>>> round(minimum_detectable_effect(2000, 300), 3)
0.545
"""

from __future__ import annotations

import math

from scipy.optimize import brentq
from scipy.stats import norm

from isaerft.errors import InputError
from isaerft.stats.checks import as_alternative, as_share


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
