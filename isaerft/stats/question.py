"""A question to a test of agreement, one change against one expectation, and its answer.

Checking and binding stand apart from the null, so that one question can be asked alone (`agreement_test`) or many with
the same exchanges (`agreement_tests`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from isaerft.errors import InputError
from isaerft.registry import STATISTICS
from isaerft.stats.checks import Alternative, as_alternative, as_change, as_count, as_groups, as_share
from isaerft.stats.confounds import SmoothConfounds
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


@dataclass(frozen=True)
class TestOptions:
    """How questions are answered; see `agreement_test` for the fields."""

    __test__ = False

    alternative: Alternative
    n_resamples: int
    confidence_level: float

    def __post_init__(self) -> None:
        as_alternative(self.alternative)
        as_count("n_resamples", self.n_resamples)
        as_share("confidence_level", self.confidence_level)


@dataclass(frozen=True)
class Question:
    """One change against one expectation, checked: what is left is the null. All arrays in the caller's order.

    Parameters
    ----------
    kind : Statistic
    change : (n,) float
    labels : (n,) bool or float
        The expectation.
    strata, clusters : (n,) int64
    exchange : Exchange
        Made of strata and clusters.
    scorer : Scorer
        The statistic bound to `change`.
    smooth : SmoothConfounds or None
        What is taken out of changes and labels before they are exchanged.
    """

    kind: Statistic
    change: np.ndarray
    labels: np.ndarray
    strata: np.ndarray
    clusters: np.ndarray
    exchange: Exchange
    scorer: Scorer
    smooth: SmoothConfounds | None = None

    @property
    def value(self) -> float:
        """The statistic of the labels as given."""
        return float(self.scorer(self.scorer.labels[None])[0])

    def ordered(self) -> Scorer:
        """Return the statistic bound to the latents in the exchange's order."""
        order = self.exchange.order
        return self.kind.bind(self.change[order], self.labels[order], self.strata[order])

    def answer(
        self, null: np.ndarray, options: TestOptions, *, exact: bool, rng: np.random.Generator
    ) -> AgreementResult:
        """Return the result, given the statistic of each exchange, `null` (n_resamples,)."""
        value = self.value
        interval = _interval(
            self.kind,
            value,
            self.change,
            self.scorer.labels,
            self.strata,
            self.clusters,
            options.confidence_level,
            rng,
        )
        return AgreementResult(
            statistic=value,
            pvalue=exchange_pvalue(value, null, options.alternative, exact=exact),
            confidence_interval=interval,
            null_distribution=null,
            n_latents=self.change.size,
            n_expected=None if self.kind.facts.graded else int(np.count_nonzero(self.scorer.labels)),
            n_movable=self.exchange.n_movable(self.scorer.labels[self.exchange.order]),
            exact=exact,
            alternative=options.alternative,
        )


def ask(
    change: Any,
    expected: Any,
    *,
    statistic: str | Statistic = "auroc",
    strata: Any = None,
    clusters: Any = None,
    exchange: Exchange | None = None,
) -> Question:
    """Check a change (n,) and an expectation (n,) and bind the statistic to them; errors as in `agreement_test`.

    `exchange`, if given, is that of the same strata and clusters, made before.
    """
    kind: Statistic = STATISTICS[statistic] if isinstance(statistic, str) else statistic
    change = as_change(change)
    stratum, cluster = (
        as_groups(name, part, change.size) for name, part in (("strata", strata), ("clusters", clusters))
    )
    labels = np.asarray(expected)
    scorer = kind.bind(change, labels, stratum)
    exchange = exchange_within(change.size, stratum, cluster) if exchange is None else exchange
    _refuse_fixed(exchange, scorer, change)
    return Question(kind, change, labels, stratum, cluster, exchange, scorer)


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
    read = (scorer.weights if isinstance(scorer, LinearScorer) else change)[exchange.order]
    movable = exchange.movable(scorer.labels[exchange.order])
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
