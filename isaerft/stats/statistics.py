"""Statistics of agreement between measured and expected changes.

Each is a plain function, vectorized over label sets, and a registered `Statistic` that `agreement_test` finds by
name:

>>> import numpy as np
>>> float(auroc(np.array([0.1, 0.4, 0.3, 0.9]), np.array([False, True, False, True])))
1.0
>>> auroc([0.1, 0.4, 0.3, 0.9], [[0, 1, 0, 1], [1, 0, 1, 0]]).tolist()
[1.0, 0.0]

The tests exchange labels thousands of times while the changes stay. So a `Statistic` is first bound to the changes:
this does all ranking once and leaves a `Scorer` from label sets (m, n) to values (m,). Most scorers are linear in the
labels, one matrix product. Their weights are integers (doubled, centered midranks), so that ties between the observed
value and the null are counted exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike

from isaerft.errors import InputError
from isaerft.registry import STATISTICS, StatisticFacts
from isaerft.stats.checks import as_binary, as_change, as_count, as_expected, as_finite, as_graded
from isaerft.stats.ranks import midranks, midranks_within
from isaerft.stats.seeds import mean_rank

_BLOCK_BYTES = 2**22


class Scorer(Protocol):
    """A statistic bound to the changes of n latents; `labels` (n,) are exchanged, and a call scores sets of labels."""

    @property
    def labels(self) -> np.ndarray:
        """The labels (n,) that it was bound with."""

    def __call__(self, labels: np.ndarray) -> np.ndarray:
        """Return the statistic (m,) of each label set in `labels` (m, n)."""


@dataclass(frozen=True)
class LinearScorer:
    """The scorer offset + scale * sum_i weights_i labels_i."""

    labels: np.ndarray
    weights: np.ndarray
    scale: float
    offset: float = 0.0

    def __call__(self, labels: np.ndarray) -> np.ndarray:
        """Return the statistic (m,) of each label set in `labels` (m, n)."""
        return self.offset + self.scale * dot(labels, self.weights)


def value_of(scorer: Scorer) -> float:
    """Return the statistic of the scorer's own labels."""
    return float(scorer(scorer.labels[None])[0])


@dataclass(frozen=True)
class LinearParts:
    """How a linear statistic is bound, in parts that many pairs of change and expectation can share.

    Parameters
    ----------
    weigh : callable
        `weigh(change, strata)`: the weights (n,), from the change alone.
    read : callable
        `read(expected, strata)`: the labels (n,), from the expectation alone.
    scale : callable
        `scale(weights, labels, strata)`: one number.
    offset : float
    """

    weigh: Callable[[np.ndarray, np.ndarray], np.ndarray]
    read: Callable[[ArrayLike, np.ndarray], np.ndarray]
    scale: Callable[[np.ndarray, np.ndarray, np.ndarray], float]
    offset: float = 0.0

    def bind(self, change: np.ndarray, expected: ArrayLike, strata: np.ndarray) -> LinearScorer:
        """Return the scorer of a change (n,) and an expectation (n,)."""
        return self.join(self.weigh(change, strata), self.read(expected, strata), strata)

    def join(self, weights: np.ndarray, labels: np.ndarray, strata: np.ndarray) -> LinearScorer:
        """Return the scorer of ready weights (n,) and labels (n,)."""
        return LinearScorer(labels, weights, self.scale(weights, labels, strata), self.offset)


@dataclass(frozen=True)
class Statistic:
    """A statistic as the tests use it.

    Parameters
    ----------
    bind : callable
        `bind(change, expected, strata) -> Scorer`; change (n,) float64 and strata (n,) int64 are already checked.
    interval : {"auroc", "spearman", "bootstrap", "none"}
        How its confidence interval is made (see `isaerft.stats.intervals`).
    combine : callable
        Changes (n_seeds, n) to the change (n,) that is bound.
    facts : StatisticFacts
        What others need to know of it: whether expected is graded, whether it reads the change's sign, its bounds, ...
    parts : LinearParts, optional
        Where `bind` is theirs: matrices of many changes and expectations then rank each only once.
    """

    bind: Callable[[np.ndarray, ArrayLike, np.ndarray], Scorer]
    interval: Literal["auroc", "stratified_auroc", "spearman", "bootstrap", "none"] = "bootstrap"
    combine: Callable[[np.ndarray], np.ndarray] = mean_rank
    facts: StatisticFacts = StatisticFacts()  # noqa: RUF009 - frozen
    parts: LinearParts | None = None


def dot(labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return `labels` (..., n) @ `weights` (n,) in float64, converting a bounded block of rows at a time."""
    if labels.dtype == np.float64 or labels.ndim == 1:
        return labels @ weights.astype(np.float64)
    rows = labels.reshape(-1, labels.shape[-1])
    size = max(1, _BLOCK_BYTES // (8 * rows.shape[1]))
    buffer = np.empty((min(size, len(rows)), rows.shape[1]))
    result = np.empty(len(rows))
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        np.copyto(buffer[: len(part)], part)
        result[start : start + size] = buffer[: len(part)] @ weights
    return result.reshape(labels.shape[:-1])


def centered_ranks(values: np.ndarray, strata: np.ndarray | None = None) -> np.ndarray:
    """Return twice the midranks of `values` (n,) minus (n + 1): integer-valued float64 with sum 0.

    With `strata` (n,) ranks are taken within each stratum, with its own n.
    """
    if strata is None:
        return 2 * midranks(values) - (len(values) + 1)
    return 2 * midranks_within(values, strata) - (np.bincount(strata)[strata] + 1)


def auroc(change: ArrayLike, expected: ArrayLike) -> np.ndarray:
    """Return the area under the ROC curve: the chance that an expected latent changed more than another.

    Parameters
    ----------
    change : (n,) float
        How much each latent changed.
    expected : (..., n) bool
        One or more label sets.

    Returns
    -------
    (...) float
        P(change of an expected latent > change of one not expected) + P(equal) / 2; NaN for a label set with all or
        none expected.

    Notes
    -----
    The Mann-Whitney U divided by the number of pairs, by midranks (Hanley and McNeil 1982).
    """
    change = as_change(change)
    labels = as_binary(expected, change.size)
    n_expected = np.count_nonzero(labels, axis=-1)
    n_pairs = n_expected * (change.size - n_expected)
    with np.errstate(invalid="ignore", divide="ignore"):
        return 0.5 + dot(labels, centered_ranks(change)) / np.where(n_pairs > 0, 2.0 * n_pairs, np.nan)


def stratified_auroc(change: ArrayLike, expected: ArrayLike, strata: np.ndarray) -> np.ndarray:
    """Return the AUROC over pairs of latents from the same stratum: sum_s U_s / sum_s n1_s n0_s.

    `change` (n,), `expected` (..., n) bool, `strata` (n,) int. NaN where no stratum holds both kinds. A stratum
    counts by its number of pairs (van Elteren 1960 weighs it by 1 / (n_s + 1) besides, for power rather than for
    reading).
    """
    change = as_change(change)
    labels = as_binary(expected, change.size)
    codes = np.unique(strata, return_inverse=True)[1]
    one_hot = codes == np.arange(codes.max() + 1)[:, None]
    n_expected = np.stack([np.count_nonzero(labels & row, axis=-1) for row in one_hot], axis=-1)
    n_pairs = (n_expected * (np.count_nonzero(one_hot, axis=1) - n_expected)).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return 0.5 + dot(labels, centered_ranks(change, codes)) / np.where(n_pairs > 0, 2.0 * n_pairs, np.nan)


def spearman(change: ArrayLike, expected: ArrayLike) -> np.ndarray:
    """Return Spearman's rank correlation, ties by midranks.

    `change` (n,) float, `expected` (..., n) float; the result is (...), NaN for a constant label set.
    """
    change = as_change(change)
    graded = np.asarray(expected)
    if graded.ndim == 0 or graded.shape[-1] != change.size:
        raise InputError(f"expected has shape {graded.shape}", allowed=f"(..., {change.size})")
    as_finite("expected", graded.ravel(), n_dims=1)
    weights = centered_ranks(change)
    ranks = 2 * midranks(graded) - (change.size + 1)
    norm = np.sqrt((weights @ weights) * (ranks**2).sum(axis=-1))
    return (ranks @ weights) / np.where(norm > 0, norm, np.nan)


def precision_at_k(change: ArrayLike, expected: ArrayLike, k: int | None = None) -> np.ndarray:
    """Return the share of the k most changed latents that were expected.

    `change` (n,) float, `expected` (..., n) bool, result (...). Latents tied at the k-th place share the places left,
    so the value is the mean over all ways to break the tie. `k` defaults to the number expected (then precision
    equals recall).
    """
    change = as_change(change)
    labels = as_binary(expected, change.size)
    if k is None:
        counts = np.unique(np.count_nonzero(labels, axis=-1))
        if counts.size != 1 or counts[0] == 0:
            raise InputError("k is not given and the label sets expect none, or different numbers", remedy="give k")
        k = int(counts[0])
    return dot(labels, top_weights(change, k)) / k


def top_weights(change: np.ndarray, k: int) -> np.ndarray:
    """Return (n,) the chance that each latent is among the `k` most changed when ties are broken at random."""
    k = as_count("k", k)
    if k > change.size:
        raise InputError(f"k is {k}", allowed=f"1 to {change.size}, the number of latents")
    threshold = np.partition(change, change.size - k)[change.size - k]
    above, tied = change > threshold, change == threshold
    return above + tied * ((k - np.count_nonzero(above)) / np.count_nonzero(tied))


def _auroc_scale(weights: np.ndarray, labels: np.ndarray, strata: np.ndarray) -> float:
    n_expected = int(np.count_nonzero(labels))
    return 0.5 / (n_expected * (labels.size - n_expected))


def _stratified_auroc_scale(weights: np.ndarray, labels: np.ndarray, strata: np.ndarray) -> float:
    n_expected = np.bincount(strata, weights=labels)
    n_pairs = float((n_expected * (np.bincount(strata) - n_expected)).sum())
    if n_pairs == 0:
        raise InputError(
            "no stratum holds both expected and unexpected latents", remedy="use fewer strata (n_bins, min_size)"
        )
    return 0.5 / n_pairs


def _spearman_scale(weights: np.ndarray, labels: np.ndarray, strata: np.ndarray) -> float:
    return 1 / float(np.sqrt((weights @ weights) * (labels @ labels)))


def _as_yes_no(expected: ArrayLike, strata: np.ndarray) -> np.ndarray:
    return as_expected(expected, strata.size)


_AUROC = LinearParts(lambda change, strata: centered_ranks(change), _as_yes_no, _auroc_scale, 0.5)
_STRATIFIED_AUROC = LinearParts(centered_ranks, _as_yes_no, _stratified_auroc_scale, 0.5)
_SPEARMAN = LinearParts(
    lambda change, strata: centered_ranks(change),
    lambda expected, strata: centered_ranks(as_graded(expected, strata.size)),
    _spearman_scale,
)


def precision_at(k: int | None) -> Statistic:
    """Return `precision_at_k` with a fixed `k` as a statistic for `agreement_test` (None: the number expected)."""

    def bind(change: np.ndarray, expected: ArrayLike, strata: np.ndarray) -> LinearScorer:
        labels = as_expected(expected, change.size)
        size = int(np.count_nonzero(labels)) if k is None else k
        return LinearScorer(labels, top_weights(change, size), 1 / size)

    # No interval: the value moves in steps of 1 / k, and bootstrap intervals of it hold the truth too often (98 %).
    return Statistic(bind, interval="none", facts=STATISTICS.facts("precision_at_k"))


AUROC = Statistic(_AUROC.bind, "auroc", facts=STATISTICS.facts("auroc"), parts=_AUROC)
STRATIFIED_AUROC = Statistic(
    _STRATIFIED_AUROC.bind, "stratified_auroc", facts=STATISTICS.facts("stratified_auroc"), parts=_STRATIFIED_AUROC
)
SPEARMAN = Statistic(_SPEARMAN.bind, "spearman", facts=STATISTICS.facts("spearman"), parts=_SPEARMAN)
PRECISION_AT_K = precision_at(None)


@dataclass(frozen=True)
class EnrichmentScorer:
    """The running-sum score bound to changes: latents in descending order, weights, the last of each tie group."""

    labels: np.ndarray
    order: np.ndarray
    weights: np.ndarray
    ends: np.ndarray

    def __call__(self, labels: np.ndarray) -> np.ndarray:
        """Return the enrichment (m,) of each label set in `labels` (m, n)."""
        hits = labels[:, self.order]
        lifted = np.cumsum(hits * self.weights, axis=1)[:, self.ends]
        lowered = np.cumsum(~hits, axis=1)[:, self.ends]
        running = lifted / lifted[:, -1:] - lowered / lowered[:, -1:]
        highest, lowest = running.max(axis=1), running.min(axis=1)
        return np.where(highest >= -lowest, highest, lowest)


def _bind(change: np.ndarray, labels: np.ndarray) -> EnrichmentScorer:
    order = np.argsort(-change, kind="stable")
    ends = np.flatnonzero(np.diff(change[order], append=-np.inf))
    return EnrichmentScorer(labels, order, midranks(change)[order], ends)


def enrichment(change: ArrayLike, expected: ArrayLike) -> np.ndarray:
    """Return the running-sum enrichment score, -1 to 1, of each label set.

    `change` (n,) float, `expected` (..., n) bool, result (...); NaN for a label set with all or none expected. Its
    mean without agreement is not 0 (a largest deviation never is): compare it with the null mean.
    """
    change = as_change(change)
    labels = as_binary(expected, change.size)
    with np.errstate(invalid="ignore", divide="ignore"):
        return _bind(change, labels)(labels.reshape(-1, change.size)).reshape(labels.shape[:-1])


# No interval: the bootstrap of a maximum's absolute deviation is inconsistent near zero, where it is asked for.
ENRICHMENT = Statistic(
    lambda change, expected, strata: _bind(change, as_expected(expected, change.size)),
    interval="none",
    facts=STATISTICS.facts("enrichment"),
)


def mean_change(changes: np.ndarray) -> np.ndarray:
    """Return (n,) the mean signed change over the seeds of `changes` (n_seeds, n), in the measure's unit."""
    return np.asarray(changes, dtype=np.float64).mean(axis=0)


def sign_agreement(change: ArrayLike, expected: ArrayLike) -> np.ndarray:
    """Return how much more often latents moved the way they were expected to than the other way.

    Parameters
    ----------
    change : (n,) float
        Signed change of each latent; only its sign counts.
    expected : (..., n) float
        Expected effect, positive where a latent should rise; 0 expects no direction and leaves the latent out.

    Returns
    -------
    (...) float
        Share of latents with an expected direction that moved that way, less the share that moved against it, -1 to
        1; a latent that did not move is neither. NaN where no direction is expected.

    Notes
    -----
    Its value without agreement is not 0 but the product of how often latents rise and how often they are expected
    to: where training lifts every latent, so does the guess "all rise". Compare it with its null mean.
    """
    signs = np.sign(np.asarray(expected, dtype=np.float64))
    directed = np.abs(signs).sum(axis=-1)
    return signs @ np.sign(as_change(change)) / np.where(directed > 0, directed, np.nan)


_SIGNS = LinearParts(
    lambda change, strata: np.sign(change),
    lambda expected, strata: np.sign(as_graded(expected, strata.size)),
    lambda weights, labels, strata: 1 / float(np.abs(labels).sum()),
)
SIGN_AGREEMENT = Statistic(_SIGNS.bind, combine=mean_change, facts=STATISTICS.facts("sign_agreement"), parts=_SIGNS)
