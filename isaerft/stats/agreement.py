"""The test of agreement: did the latents change that were expected to?

>>> import numpy as np
>>> rng = np.random.default_rng(0)
>>> expected = np.arange(200) < 30
>>> result = agreement_test(rng.normal(size=200) + expected, expected, rng=rng)
>>> result.pvalue, round(result.statistic, 2)
(0.0001, 0.74)

Many questions about the same latents, answered with one set of exchanges.

Every exchange of the latents is applied to all expectations at once, so that results that share latents keep their
dependence, and the exchanges are drawn once. A statistic that is linear in the labels, sum_i w_i l_i, then needs only
the places where a label differs from its commonest value: with c that value,

    sum_i w_i l_p(i) = c sum_i w_i + sum_j (l_j - c) w_p'(j)

where p' is the inverse of p, and as likely as p itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from isaerft.errors import InputError
from isaerft.stats.checks import Alternative, as_groups
from isaerft.stats.confounds import smooth_confounds
from isaerft.stats.exchange import BATCH_BYTES, Exchange, all_exchanges, exchange_within, is_enumerable
from isaerft.stats.question import AgreementResult, Question, TestOptions, ask
from isaerft.stats.statistics import LinearScorer, Statistic
from isaerft.stats.studentised import adjusted_nulls


def agreement_test(
    change: Any,
    expected: Any,
    *,
    statistic: str | Statistic = "auroc",
    strata: Any = None,
    clusters: Any = None,
    confounds: Any = None,
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
        What smooth functions of them explain is taken out before labels are exchanged (see `isaerft.stats.confounds`),
        which strata alone do in steps. Given n < 60 latents nothing is fitted.
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
    and Smyth 2010); valid at any size if labels are exchangeable within strata between clusters of one size, and with
    smooth confounds in large samples if what is left of the labels is.
    """
    options = TestOptions(alternative, n_resamples, confidence_level)
    rng = np.random.default_rng(rng)
    question = ask(change, expected, statistic=statistic, strata=strata, clusters=clusters)
    smooth = smooth_confounds(confounds, question.strata, question.clusters)
    if smooth is not None:
        question = replace(question, smooth=smooth)
        return question.answer(adjusted_nulls([question], n_resamples, rng)[0], options, exact=False, rng=rng)
    exchange = question.exchange
    scorer = question.ordered()
    exact = is_enumerable(exchange, scorer.labels, options.n_resamples)
    batches = (
        all_exchanges(exchange, scorer.labels) if exact else exchange.batches(scorer.labels, options.n_resamples, rng)
    )
    null = np.concatenate([scorer(batch) for batch in batches])
    return question.answer(null, options, exact=exact, rng=rng)


_GATHERED_BYTES = 2**23


def agreement_tests(
    pairs: Sequence[tuple[Any, Any]],
    *,
    statistic: str | Statistic = "auroc",
    strata: Any = None,
    clusters: Any = None,
    confounds: Any = None,
    alternative: Alternative = "greater",
    n_resamples: int = 9999,
    confidence_level: float = 0.95,
    rng: np.random.Generator | int | None = None,
) -> list[AgreementResult | InputError]:
    """Answer `agreement_test` for many pairs (change (n,), expected (n,)) about the same n latents.

    Parameters are those of `agreement_test`. Where a pair cannot be tested, the error stands in the place of its
    result.

    Returns
    -------
    list of AgreementResult or InputError
        One per pair. Results share their exchanges, but for those few enough to be enumerated.
    """
    options = TestOptions(alternative, n_resamples, confidence_level)
    generator = np.random.default_rng(rng)
    if not pairs:
        return []
    n = len(pairs[0][0])
    groups = as_groups("strata", strata, n), as_groups("clusters", clusters, n)
    exchange = exchange_within(n, *groups)
    asked = [_asked(pair, statistic, strata, clusters, exchange) for pair in pairs]
    smooth = smooth_confounds(confounds, *groups)
    if smooth is not None:
        questions = [replace(question, smooth=smooth) for question in asked if isinstance(question, Question)]
        drawn = iter(adjusted_nulls(questions, n_resamples, generator))
        ready = iter(questions)
        return [
            next(ready).answer(next(drawn), options, exact=False, rng=generator)
            if isinstance(question, Question)
            else question
            for question in asked
        ]
    nulls: dict[int, np.ndarray] = {}
    for place, question in enumerate(asked):
        if isinstance(question, Question) and is_enumerable(exchange, question.ordered().labels, n_resamples):
            scorer = question.ordered()
            nulls[place] = np.concatenate([scorer(batch) for batch in all_exchanges(exchange, scorer.labels)])
    exact = set(nulls)
    left = [place for place, question in enumerate(asked) if isinstance(question, Question) and place not in exact]
    linear = [place for place in left if isinstance(asked[place].scorer, LinearScorer)]
    drawn = joint_null(exchange, [asked[place].scorer for place in linear], n_resamples, generator)
    nulls |= dict(zip(linear, drawn, strict=True))
    for place in left:
        if place not in nulls:
            scorer = asked[place].ordered()
            batches = exchange.batches(scorer.labels, n_resamples, generator)
            nulls[place] = np.concatenate([scorer(batch) for batch in batches])
    return [
        question.answer(nulls[place], options, exact=place in exact, rng=generator)
        if isinstance(question, Question)
        else question
        for place, question in enumerate(asked)
    ]


def joint_null(
    exchange: Exchange,
    scorers: Sequence[LinearScorer],
    n_resamples: int,
    rng: np.random.Generator,
    *,
    max_bytes: int = BATCH_BYTES,
) -> np.ndarray:
    """Return the null distributions (len(scorers), n_resamples) of linear statistics under the same exchanges.

    Parameters
    ----------
    exchange : Exchange
        Of n latents.
    scorers : sequence of LinearScorer
        Labels and weights (n,) in the order of the latents. Those with equal labels share their work.
    max_bytes : int
        Memory of the exchanges that are held at once.
    """
    result = np.empty((len(scorers), n_resamples))
    groups: dict[bytes, list[int]] = {}
    for place, scorer in enumerate(scorers):
        groups.setdefault(scorer.labels.astype(np.float64).tobytes(), []).append(place)
    parts = [(places, _SameLabels([scorers[place] for place in places], exchange.order)) for places in groups.values()]
    size = max(1, max_bytes // (8 * max(1, len(exchange.order))))
    for start in range(0, n_resamples, size):
        drawn = exchange.permutations(min(size, n_resamples - start), rng)
        for places, part in parts:
            result[places, start : start + len(drawn)] = part.values(drawn)
    scale = np.array([scorer.scale for scorer in scorers])
    offset = np.array([scorer.offset for scorer in scorers])
    return offset[:, None] + scale[:, None] * result if len(scorers) else result


class _SameLabels:
    """Linear statistics with the same labels (n,) and different weights (a, n), in the exchange's order."""

    def __init__(self, scorers: Sequence[LinearScorer], order: np.ndarray) -> None:
        self.labels = scorers[0].labels.astype(np.float64)[order]
        self.weights = np.array([scorer.weights[order] for scorer in scorers], dtype=np.float64)
        kinds, counts = np.unique(self.labels, return_counts=True)
        self.commonest = kinds[np.argmax(counts)]
        self.places = np.flatnonzero(self.labels != self.commonest)

    def values(self, drawn: np.ndarray) -> np.ndarray:
        """Return (a, m) of m exchanges `drawn` (m, n)."""
        n_statistics, n = self.weights.shape
        is_sparse = n_statistics * len(self.places) < n
        moved = drawn[:, self.places] if is_sparse else drawn
        size = max(1, _GATHERED_BYTES // (8 * max(1, moved.shape[1])))
        parts = [
            self._sparse(part) if is_sparse else self.weights @ self.labels[part].T for part in _split(moved, size)
        ]
        return np.concatenate(parts, axis=1)

    def _sparse(self, moved: np.ndarray) -> np.ndarray:
        excess = self.labels[self.places] - self.commonest
        gathered = np.stack([weights[moved] @ excess for weights in self.weights])
        return gathered + self.commonest * self.weights.sum(axis=1, keepdims=True)


def _split(rows: np.ndarray, size: int) -> list[np.ndarray]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _asked(pair: tuple[Any, Any], statistic: str | Statistic, strata: Any, clusters: Any, exchange: Exchange) -> Any:
    try:
        return ask(*pair, statistic=statistic, strata=strata, clusters=clusters, exchange=exchange)
    except InputError as error:
        return error
