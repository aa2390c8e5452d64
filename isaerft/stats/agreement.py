"""The exchange test of agreement: did the latents change that were expected to, rather than others?

Units of latents that are said alike exchange their labels (see `isaerft.stats.nulls`). The test is valid if latents of
different units change independently of each other, given the confounds. Pass `clusters` of latents with one
explanation text, for these move together. `isaerft.stats.trainings` needs no such assumption, but other trainings.

>>> import numpy as np
>>> rng = np.random.default_rng(0)
>>> expected = np.arange(200) < 30
>>> result = agreement_test(rng.normal(size=200) + expected, expected, rng=rng)
>>> result.pvalue, round(result.statistic, 2)
(0.0001, 0.74)

`agreement_tests` answers many pairs of change and expectation about the same latents with the same exchanges (see
`isaerft.stats.nulls`); `agreement_test` is the same for one pair.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from isaerft.errors import InputError
from isaerft.registry import STATISTICS
from isaerft.stats.checks import Alternative, as_alternative, as_change, as_count, as_groups, as_share
from isaerft.stats.confounds import SmoothConfounds
from isaerft.stats.exchange import Exchange, Units, all_exchanges, exchange_within, is_enumerable, units_within
from isaerft.stats.intervals import (
    UNDEFINED,
    ConfidenceInterval,
    auroc_interval,
    bootstrap_interval,
    spearman_interval,
)
from isaerft.stats.nulls import exchange_pvalue, linear_nulls, n_distinguished, smooth_for
from isaerft.stats.statistics import LinearScorer, Scorer, Statistic, value_of

_MANY = 1_000_000


@dataclass(frozen=True)
class AgreementResult:
    """Result of `agreement_test`.

    Parameters
    ----------
    statistic : float
        The statistic of the observed labels.
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
    n_units, n_expected_units : int
        Units that exchange labels, and those whose label differs from the commonest (the expected ones).
    n_distinct : float
        Distinct exchanges; 1 / n_distinct is the smallest p-value that they allow. Infinite above a million.
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
    n_units: int
    n_expected_units: int
    n_distinct: float
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
    change: ArrayLike,
    expected: ArrayLike,
    *,
    statistic: str | Statistic = "auroc",
    strata: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    confounds: ArrayLike | None = None,
    controls: ArrayLike | None = None,
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
        Which latents should change by their explanations, or how much.
    statistic : str or Statistic
        A name in `STATISTICS` ("auroc", "stratified_auroc", "spearman", "precision_at_k", "enrichment",
        "sign_agreement") or a statistic, e.g. `precision_at(100)`.
    strata : (n,) int, optional
        Labels are exchanged only within a stratum (see `strata_of`). "auroc" stays the plain AUROC of all latents,
        but its null then holds what the strata explain; "stratified_auroc" compares only latents of one stratum.
    clusters : (n,) int, optional
        Units: latents with one explanation text, or near-duplicates (see `clusters_of`, `joined`). They exchange labels
        as a whole with units of about their size, and are resampled together in the interval.
    confounds : (k, n) float, optional
        What could make latents change, and be expected to change, without explanations being right; only ranks count.
        What smooth functions of them explain is taken out before labels are exchanged (see `isaerft.stats.confounds`);
        strata alone do this in steps. With fewer than 60 units nothing is fitted. Only for linear statistics: of
        the others ("enrichment") strata alone are held fixed.
    controls : (m, n) float, optional
        Further functions to take out together with confounds, such as `negative_controls`.
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
    and Smyth 2010). It is valid at any size if labels are exchangeable within strata between single latents, and in
    large samples between units of about one size and with smooth confounds.
    """
    (result,) = agreement_tests(
        [(change, expected)],
        statistic=statistic,
        strata=strata,
        clusters=clusters,
        confounds=confounds,
        controls=None if controls is None else [controls],
        alternative=alternative,
        n_resamples=n_resamples,
        confidence_level=confidence_level,
        rng=rng,
    )
    if isinstance(result, InputError):
        raise result
    return result


def agreement_tests(
    pairs: Sequence[tuple[ArrayLike, ArrayLike]],
    *,
    statistic: str | Statistic = "auroc",
    strata: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    confounds: ArrayLike | None = None,
    controls: Sequence[ArrayLike | None] | None = None,
    alternative: Alternative = "greater",
    n_resamples: int = 9999,
    confidence_level: float = 0.95,
    rng: np.random.Generator | int | None = None,
) -> list[AgreementResult | InputError]:
    """Run `agreement_test` on many pairs (change (n,), expected (n,)) about the same n latents.

    Parameters are those of `agreement_test`; `controls` holds one array or None per pair.

    Returns
    -------
    list of AgreementResult or InputError
        One per pair; the error where a pair cannot be tested. Results share their exchanges, except those that are
        enumerated.
    """
    as_alternative(alternative)
    n_resamples = as_count("n_resamples", n_resamples)
    as_share("confidence_level", confidence_level)
    generator = np.random.default_rng(rng)
    if not pairs:
        return []
    n = len(np.atleast_1d(pairs[0][0]))
    groups = as_groups("strata", strata, n), as_groups("clusters", clusters, n)
    units = units_within(n, *groups)
    tests: list[PreparedTest | InputError] = []
    for change, expected in pairs:
        try:
            tests.append(
                prepare_test(change, expected, statistic=statistic, strata=strata, clusters=clusters, units=units)
            )
        except InputError as error:
            tests.append(error)
    smooth = smooth_for(units, groups[0], confounds)
    taken_out = [smooth] * len(tests) if controls is None else [_with_controls(smooth, part) for part in controls]
    prepared = [(test, part) for test, part in zip(tests, taken_out, strict=True) if isinstance(test, PreparedTest)]
    nulls = iter(_nulls(prepared, units, n_resamples, generator))
    return [
        test.result(*next(nulls), alternative, confidence_level, generator) if isinstance(test, PreparedTest) else test
        for test in tests
    ]


@dataclass(frozen=True)
class PreparedTest:
    """A change and an expectation, checked and bound to a statistic; arrays in the order of the latents.

    Parameters
    ----------
    kind : Statistic
    change : (n,) float
    labels : (n,) bool or float
        The expectation.
    strata, clusters : (n,) int64
    units : Units
        Made of strata and clusters.
    scorer : Scorer
        The statistic bound to `change`.
    """

    kind: Statistic
    change: np.ndarray
    labels: np.ndarray
    strata: np.ndarray
    clusters: np.ndarray
    units: Units
    scorer: Scorer

    @property
    def value(self) -> float:
        """The statistic of the observed labels."""
        return value_of(self.scorer)

    def null_by_latent(self, n_resamples: int, rng: np.random.Generator) -> tuple[np.ndarray, bool]:
        """Return the null (n_resamples,) of a statistic that is not linear, and whether it is exact.

        Clusters exchange the labels of their latents one by one, with clusters of the same size and strata.
        """
        exchange = exchange_within(self.change.size, self.strata, self.clusters)
        order = exchange.order
        scorer = self.kind.bind(self.change[order], self.labels[order], self.strata[order])
        exact = is_enumerable(exchange, scorer.labels, n_resamples)
        batches = all_exchanges(exchange, scorer.labels) if exact else exchange.batches(scorer.labels, n_resamples, rng)
        return np.concatenate([scorer(batch) for batch in batches]), exact

    def interval(self, confidence_level: float, rng: np.random.Generator) -> ConfidenceInterval:
        """Return the confidence interval of the statistic, of the kind that the statistic names."""
        labels, level = self.scorer.labels, confidence_level
        if self.kind.interval == "auroc":
            return auroc_interval(self.value, self.change, labels, self.clusters, level)
        if self.kind.interval == "stratified_auroc":
            return auroc_interval(self.value, self.change, labels, self.clusters, level, self.strata)
        if self.kind.interval == "spearman":
            return spearman_interval(self.value, self.change, labels, self.clusters, level)
        if self.kind.interval == "none":
            return UNDEFINED

        def resampled(indices: np.ndarray) -> float:
            codes = np.unique(self.strata[indices], return_inverse=True)[1]
            return value_of(self.kind.bind(self.change[indices], labels[indices], codes))

        return bootstrap_interval(resampled, self.clusters, level, rng)

    def result(
        self,
        null: np.ndarray,
        exact: bool,
        alternative: Alternative,
        confidence_level: float,
        rng: np.random.Generator,
    ) -> AgreementResult:
        """Return the result, given the statistic of each exchange, `null` (n_resamples,)."""
        labels = self.scorer.labels
        by_unit = self.units.means(labels)
        n_distinct = self.units.exchange.n_distinct(by_unit[self.units.exchange.order], _MANY)
        return AgreementResult(
            statistic=self.value,
            pvalue=exchange_pvalue(self.value, null, alternative, exact=exact),
            confidence_interval=self.interval(confidence_level, rng),
            null_distribution=null,
            n_latents=self.change.size,
            n_expected=None if self.kind.facts.graded else int(np.count_nonzero(labels)),
            n_units=len(by_unit),
            n_expected_units=n_distinguished(by_unit),
            n_distinct=float(n_distinct) if n_distinct <= _MANY else math.inf,
            exact=exact,
            alternative=alternative,
        )


def prepare_test(
    change: ArrayLike,
    expected: ArrayLike,
    *,
    statistic: str | Statistic = "auroc",
    strata: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    units: Units | None = None,
) -> PreparedTest:
    """Check a change (n,) and an expectation (n,) and bind the statistic to them; errors as in `agreement_test`.

    `units` are those of the same strata and clusters, if they were made before.
    """
    kind: Statistic = STATISTICS[statistic] if isinstance(statistic, str) else statistic
    change = as_change(change)
    stratum = as_groups("strata", strata, change.size)
    cluster = as_groups("clusters", clusters, change.size)
    labels = np.asarray(expected)
    scorer = kind.bind(change, labels, stratum)
    units = units_within(change.size, stratum, cluster) if units is None else units
    if isinstance(scorer, LinearScorer):
        sums = units.sums(scorer.weights)[units.exchange.order]
        _refuse_fixed(units.exchange, units.means(scorer.labels)[units.exchange.order], sums)
    else:
        exchange = exchange_within(change.size, stratum, cluster)
        _refuse_fixed(exchange, labels[exchange.order], change[exchange.order])
    return PreparedTest(kind, change, labels, stratum, cluster, units, scorer)


def _refuse_fixed(exchange: Exchange, labels: np.ndarray, read: np.ndarray) -> None:
    """Refuse a design in which every exchange gives the same statistic: its p-value would be 1 whatever the truth.

    `labels` and `read`, what the statistic reads of the change, are in the exchange's order.
    """
    movable = exchange.movable(labels)
    if not movable:
        raise InputError(
            f"no exchange can change the labels: each of {len(exchange.cells)} cells of units holds one kind",
            allowed="strata with both expected and unexpected latents, and clusters of about one size",
            remedy="use fewer, larger strata (n_bins, min_size)",
        )
    if not any((cell.blocks(read) != cell.blocks(read)[0]).any() for cell in movable):
        raise InputError(
            "no exchange can change the statistic: wherever labels can move, all latents changed alike",
            allowed="strata in which the change varies",
            remedy="use fewer, larger strata (n_bins, min_size)",
        )


def _nulls(
    tests: Sequence[tuple[PreparedTest, SmoothConfounds | None]],
    units: Units,
    n_resamples: int,
    rng: np.random.Generator,
) -> list[tuple[np.ndarray, bool]]:
    """Return the null distribution (n_resamples,) of each test, and whether it is exact."""
    linear = [(test.scorer, smooth) for test, smooth in tests if isinstance(test.scorer, LinearScorer)]
    found = iter(linear_nulls(units, linear, n_resamples, rng))
    return [
        next(found) if isinstance(test.scorer, LinearScorer) else test.null_by_latent(n_resamples, rng)
        for test, _ in tests
    ]


def _with_controls(smooth: SmoothConfounds | None, columns: ArrayLike | None) -> SmoothConfounds | None:
    """Return what is taken out of a test: controls only where confounds are fitted at all."""
    return smooth if smooth is None or columns is None else smooth.with_controls(columns)
