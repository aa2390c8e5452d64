"""The test of agreement: did the latents change that were expected to?

>>> import numpy as np
>>> rng = np.random.default_rng(0)
>>> expected = np.arange(200) < 30
>>> result = agreement_test(rng.normal(size=200) + expected, expected, rng=rng)
>>> result.pvalue, round(result.statistic, 2)
(0.0001, 0.74)
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from isaerft.stats.adjusted import adjusted_nulls
from isaerft.stats.adjustment import smooth_confounds
from isaerft.stats.checks import Alternative
from isaerft.stats.enumeration import all_exchanges, is_enumerable
from isaerft.stats.question import AgreementResult, TestOptions, ask
from isaerft.stats.statistics import Statistic


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
        What smooth functions of them explain is taken out before labels are exchanged (see `isaerft.stats.adjustment`),
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
