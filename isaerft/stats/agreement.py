"""The test of agreement: did the latents change that were expected to?

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

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from isaerft.errors import InputError
from isaerft.registry import STATISTICS
from isaerft.stats.checks import Alternative, as_alternative, as_change, as_count, as_groups, as_share
from isaerft.stats.confounds import SmoothConfounds, smooth_confounds
from isaerft.stats.exchange import Exchange, all_exchanges, exchange_within, is_enumerable
from isaerft.stats.intervals import (
    UNDEFINED,
    ConfidenceInterval,
    auroc_interval,
    bootstrap_interval,
    spearman_interval,
)
from isaerft.stats.nulls import exchange_pvalue, freedman_lane_null, linear_null
from isaerft.stats.statistics import LinearScorer, Scorer, Statistic, value_of


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
    change: ArrayLike,
    expected: ArrayLike,
    *,
    statistic: str | Statistic = "auroc",
    strata: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    confounds: ArrayLike | None = None,
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
        Latents that move together are exchanged together (see `clusters_of` and `isaerft.stats.exchange`), and
        resampled together in the interval.
    confounds : (k, n) float, optional
        What could make latents change, and be expected to change, without explanations being right; only ranks count.
        What smooth functions of them explain is taken out before labels are exchanged (see `isaerft.stats.confounds`);
        strata alone do this in steps. With n < 60 latents nothing is fitted.
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
    and Smyth 2010). It is valid at any size if labels are exchangeable within strata between clusters of one size, and
    with smooth confounds in large samples if the residuals of the labels are.
    """
    (result,) = agreement_tests(
        [(change, expected)],
        statistic=statistic,
        strata=strata,
        clusters=clusters,
        confounds=confounds,
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
    alternative: Alternative = "greater",
    n_resamples: int = 9999,
    confidence_level: float = 0.95,
    rng: np.random.Generator | int | None = None,
) -> list[AgreementResult | InputError]:
    """Run `agreement_test` on many pairs (change (n,), expected (n,)) about the same n latents.

    Parameters are those of `agreement_test`.

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
    exchange = exchange_within(n, *groups)
    tests: list[PreparedTest | InputError] = []
    for change, expected in pairs:
        try:
            tests.append(
                prepare_test(change, expected, statistic=statistic, strata=strata, clusters=clusters, exchange=exchange)
            )
        except InputError as error:
            tests.append(error)
    smooth = smooth_confounds(confounds, *groups)
    prepared = [test for test in tests if isinstance(test, PreparedTest)]
    nulls = iter(_nulls(prepared, exchange, smooth, n_resamples, generator))
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
    exchange : Exchange
        Made of strata and clusters.
    scorer : Scorer
        The statistic bound to `change`.
    """

    kind: Statistic
    change: np.ndarray
    labels: np.ndarray
    strata: np.ndarray
    clusters: np.ndarray
    exchange: Exchange
    scorer: Scorer

    @property
    def value(self) -> float:
        """The statistic of the observed labels."""
        return value_of(self.scorer)

    def ordered(self) -> Scorer:
        """Return the statistic bound to the latents in the exchange's order."""
        return self._bound(self.change[self.exchange.order])

    def value_of_changes(self, change: np.ndarray) -> float:
        """Return the statistic of the observed labels with other changes (n,), given in the exchange's order."""
        return value_of(self._bound(change))

    def _bound(self, change: np.ndarray) -> Scorer:
        order = self.exchange.order
        return self.kind.bind(change, self.labels[order], self.strata[order])

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
        return AgreementResult(
            statistic=self.value,
            pvalue=exchange_pvalue(self.value, null, alternative, exact=exact),
            confidence_interval=self.interval(confidence_level, rng),
            null_distribution=null,
            n_latents=self.change.size,
            n_expected=None if self.kind.facts.graded else int(np.count_nonzero(labels)),
            n_movable=self.exchange.n_movable(labels[self.exchange.order]),
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
    exchange: Exchange | None = None,
) -> PreparedTest:
    """Check a change (n,) and an expectation (n,) and bind the statistic to them; errors as in `agreement_test`.

    `exchange` is that of the same strata and clusters, if it was made before.
    """
    kind: Statistic = STATISTICS[statistic] if isinstance(statistic, str) else statistic
    change = as_change(change)
    stratum = as_groups("strata", strata, change.size)
    cluster = as_groups("clusters", clusters, change.size)
    labels = np.asarray(expected)
    scorer = kind.bind(change, labels, stratum)
    exchange = exchange_within(change.size, stratum, cluster) if exchange is None else exchange
    _refuse_fixed(exchange, scorer, change)
    return PreparedTest(kind, change, labels, stratum, cluster, exchange, scorer)


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


def _nulls(
    tests: Sequence[PreparedTest],
    exchange: Exchange,
    smooth: SmoothConfounds | None,
    n_resamples: int,
    rng: np.random.Generator,
) -> list[tuple[np.ndarray, bool]]:
    """Return the null distribution (n_resamples,) of each test, and whether it is exact."""
    nulls: dict[int, np.ndarray] = {}
    if smooth is None:
        for index, test in enumerate(tests):
            scorer = test.ordered()
            if is_enumerable(exchange, scorer.labels, n_resamples):
                nulls[index] = np.concatenate([scorer(batch) for batch in all_exchanges(exchange, scorer.labels)])
    exact = set(nulls)
    linear = {
        index: test.scorer
        for index, test in enumerate(tests)
        if index not in exact and isinstance(test.scorer, LinearScorer)
    }
    # Without confounds exchanges are drawn even if no test uses them, which keeps the random stream of later ones.
    if linear or smooth is None:
        drawn = linear_null(exchange, smooth, list(linear.values()), n_resamples, rng)
        nulls |= dict(zip(linear, drawn, strict=True))
    for index, test in enumerate(tests):
        if index in nulls:
            continue
        if smooth is not None:
            nulls[index] = freedman_lane_null(exchange, smooth, test.change, test.value_of_changes, n_resamples, rng)
        else:
            scorer = test.ordered()
            batches = exchange.batches(scorer.labels, n_resamples, rng)
            nulls[index] = np.concatenate([scorer(batch) for batch in batches])
    return [(nulls[index], index in exact) for index in range(len(tests))]
