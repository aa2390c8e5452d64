"""The test of agreement: did the latents change that were expected to?

>>> import numpy as np
>>> rng = np.random.default_rng(0)
>>> expected = np.arange(200) < 30
>>> result = agreement_test(rng.normal(size=200) + expected, expected, rng=rng)
>>> result.pvalue, round(result.statistic, 2)
(0.0001, 0.74)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from isaerft.errors import InputError
from isaerft.registry import STATISTICS
from isaerft.stats.checks import Alternative, as_alternative, as_change, as_count, as_groups, as_share
from isaerft.stats.enumeration import all_exchanges, is_enumerable
from isaerft.stats.exchange import Exchange, exchange_within
from isaerft.stats.intervals import (
    UNDEFINED,
    ConfidenceInterval,
    auroc_interval,
    bootstrap_interval,
    spearman_interval,
)
from isaerft.stats.statistics import LinearScorer, Scorer, Statistic

# Values this close are ties. Distinct AUROCs differ by at least 1 / (2 n1 n0): 8e-12 at half a million latents.
_TIE = 1e-12


@dataclass(frozen=True)
class AgreementResult:
    """What `agreement_test` found.

    Parameters
    ----------
    statistic : float
        The statistic of the labels as given.
    pvalue : float
        Chance of a statistic at least as extreme when labels are exchangeable within strata; never 0.
    confidence_interval : ConfidenceInterval
        Interval of the statistic over latents (clusters) like these; NaN where undefined.
    null_distribution : (n_resamples,) float
        The statistic of each exchange; every distinct exchange once if `exact`.
    n_latents : int
        Latents in the test.
    n_expected : int or None
        How many were expected to change; None for graded expectations.
    n_movable : int
        Latents whose label an exchange can change; the others (strata of one kind, clusters like no other) add
        nothing.
    exact : bool
        Whether the null was enumerated instead of sampled.
    alternative : {"greater", "less", "two-sided"}
        The side tested.
    """

    statistic: float
    pvalue: float
    confidence_interval: ConfidenceInterval
    null_distribution: np.ndarray = field(repr=False)
    n_latents: int
    n_expected: int | None
    n_movable: int
    exact: bool
    alternative: Alternative

    @property
    def n_resamples(self) -> int:
        """Number of exchanges in the null distribution."""
        return len(self.null_distribution)

    @property
    def null_mean(self) -> float:
        """What the strata alone explain: 0.5 (AUROC) or 0 (Spearman) unless the confounds agree with the labels."""
        return float(self.null_distribution.mean())

    @property
    def null_sd(self) -> float:
        """Standard deviation of the null, for `minimum_detectable_effect`."""
        return float(self.null_distribution.std())


def agreement_test(
    change: Any,
    expected: Any,
    *,
    statistic: str | Statistic = "auroc",
    strata: Any = None,
    clusters: Any = None,
    alternative: Alternative = "greater",
    n_resamples: int = 9999,
    confidence_level: float = 0.95,
    rng: np.random.Generator | int | None = None,
) -> AgreementResult:
    """Test whether the latents that changed are those expected to, by exchanging the expectations.

    Parameters
    ----------
    change : (n,) float
        How much each latent changed; only its ranks count.
    expected : (n,) bool, or (n,) float for a graded statistic
        Which latents (how much each) should change by their explanations.
    statistic : str or Statistic
        A name in `STATISTICS` ("auroc", "stratified_auroc", "spearman", "precision_at_k", "enrichment") or a
        statistic, e.g. `precision_at(100)`.
    strata : (n,) int, optional
        Labels are exchanged only within a stratum (see `strata_of`). "auroc" stays the plain AUROC of all latents,
        but its null then holds what the strata explain; "stratified_auroc" compares only latents of one stratum.
    clusters : (n,) int, optional
        Latents that move together are exchanged together (see `clusters_of` and `isaerft.stats.exchange`), and
        resampled together in the interval.
    alternative : {"greater", "less", "two-sided"}
        Which values are extreme; two-sided doubles the smaller side.
    n_resamples : int
        Random exchanges. If no more distinct ones exist, all are enumerated and the p-value is exact.
    confidence_level : float
        Of the interval (see `isaerft.stats.intervals`).
    rng : numpy.random.Generator, int or None
        Source of randomness; with an int the result is the same each time.

    Returns
    -------
    AgreementResult

    Raises
    ------
    InputError
        NaN, mismatched shapes, fewer than two latents, constant change, all or none expected, an unknown statistic,
        or strata and clusters under which no exchange can change the statistic.

    Notes
    -----
    The p-value is (b + 1) / (n_resamples + 1), b the number of exchanges at least as extreme, ties counted (Phipson
    and Smyth 2010); valid at any size if labels are exchangeable within strata between clusters of one size.
    """
    alternative = as_alternative(alternative)
    n_resamples, confidence_level = as_count("n_resamples", n_resamples), as_share("confidence_level", confidence_level)
    rng = np.random.default_rng(rng)
    kind: Statistic = STATISTICS[statistic] if isinstance(statistic, str) else statistic
    change = as_change(change)
    n = change.size
    stratum, cluster = as_groups("strata", strata, n), as_groups("clusters", clusters, n)
    expected = np.asarray(expected)
    observed = kind.bind(change, expected, stratum)
    exchange = exchange_within(n, stratum, cluster)
    order = exchange.order
    scorer = kind.bind(change[order], expected[order], stratum[order])
    _refuse_fixed(exchange, scorer, change[order])
    value = float(scorer(scorer.labels[None])[0])
    exact = is_enumerable(exchange, scorer.labels, n_resamples)
    batches = all_exchanges(exchange, scorer.labels) if exact else exchange.batches(scorer.labels, n_resamples, rng)
    null = np.concatenate([scorer(batch) for batch in batches])
    interval = _interval(kind, value, change, observed.labels, stratum, cluster, confidence_level, rng)
    return AgreementResult(
        statistic=value,
        pvalue=exchange_pvalue(value, null, alternative, exact=exact),
        confidence_interval=interval,
        null_distribution=null,
        n_latents=n,
        n_expected=None if kind.graded else int(np.count_nonzero(observed.labels)),
        n_movable=exchange.n_movable(scorer.labels),
        exact=exact,
        alternative=alternative,
    )


def exchange_pvalue(value: float, null: np.ndarray, alternative: Alternative, *, exact: bool) -> float:
    """Return the p-value of `value` among the exchanges `null` (n_resamples,), ties counted; never 0.

    `exact` says that the null holds every distinct exchange, the observed one included; otherwise that one is added.
    """
    tie = _TIE * max(1.0, abs(value))
    added = 0 if exact else 1
    total = len(null) + added
    greater = (int(np.count_nonzero(null >= value - tie)) + added) / total
    less = (int(np.count_nonzero(null <= value + tie)) + added) / total
    return {"greater": greater, "less": less, "two-sided": min(1.0, 2 * min(greater, less))}[alternative]


def _refuse_fixed(exchange: Exchange, scorer: Scorer, change: np.ndarray) -> None:
    """Refuse a design in which every exchange gives the same statistic: its p-value would be 1 whatever the truth."""
    read = scorer.weights if isinstance(scorer, LinearScorer) else change
    movable = exchange.movable(scorer.labels)
    if not movable:
        raise InputError(
            f"no exchange can change the labels: each of {len(exchange.cells)} cells of latents holds one kind",
            allowed="strata (and clusters of one size in them) with both expected and unexpected latents",
            remedy="use fewer, larger strata (n_bins, min_size)",
        )
    if not any((cell.blocks(read) != cell.blocks(read)[0]).any() for cell in movable):
        raise InputError(
            "no exchange can change the statistic: wherever labels can move, all latents changed alike",
            allowed="strata in which the change varies",
            remedy="use fewer, larger strata (n_bins, min_size)",
        )


def _interval(
    kind: Statistic,
    value: float,
    change: np.ndarray,
    labels: np.ndarray,
    stratum: np.ndarray,
    cluster: np.ndarray,
    confidence_level: float,
    rng: np.random.Generator,
) -> ConfidenceInterval:
    """Return the interval of the statistic's kind; all arrays in the order of the caller's latents."""
    if kind.interval == "auroc":
        return auroc_interval(value, change, labels, cluster, confidence_level)
    if kind.interval == "stratified_auroc":
        return auroc_interval(value, change, labels, cluster, confidence_level, stratum)
    if kind.interval == "spearman":
        return spearman_interval(value, change, labels, cluster, confidence_level)
    if kind.interval == "none":
        return UNDEFINED

    def value_of(indices: np.ndarray) -> float:
        codes = np.unique(stratum[indices], return_inverse=True)[1]
        scorer = kind.bind(change[indices], labels[indices], codes)
        return float(scorer(scorer.labels[None])[0])

    return bootstrap_interval(value_of, cluster, confidence_level, rng)
