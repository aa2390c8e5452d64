"""Does training on a behavior change the latents expected for it, rather than for any other?

The strongest control: explanations judged for behavior A, against changes from training on B. Whatever makes
latents both easy to change and likely to be expected for any behavior is the same on and off the diagonal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from isaerft.errors import InputError
from isaerft.registry import STATISTICS
from isaerft.stats.checks import as_change, as_count, as_finite, as_groups
from isaerft.stats.confounds import SmoothConfounds, smooth_confounds
from isaerft.stats.families import family_means
from isaerft.stats.nulls import exchange_pvalue
from isaerft.stats.statistics import LinearParts, LinearScorer, Scorer, Statistic, value_of

MAX_EXACT_BEHAVIORS = 8


@dataclass(frozen=True)
class SpecificityResult:
    """What `specificity_test` found.

    Parameters
    ----------
    matrix : (n_families, n_families) float
        The statistic of the changes trained on (row) against the expectations judged for (column); with families,
        its mean over their behaviors.
    statistic : float
        Mean of the diagonal minus mean of the rest.
    pvalue : float
        Chance of a statistic at least as high when behaviors are matched at random; at least 1 / n_families!.
    null_distribution : (n_resamples,) float
        The statistic of each matching; every one if `exact`.
    own_rank : (n_families,) int64
        Place of a row's own column among the row's values: 1 is highest, ties count against it.
    own_minus_others : (n_families,) float
        A row's own value minus the mean of its others.
    exact : bool
        Whether all matchings were enumerated.
    """

    matrix: np.ndarray
    statistic: float
    pvalue: float
    null_distribution: np.ndarray = field(repr=False)
    own_rank: np.ndarray
    own_minus_others: np.ndarray
    exact: bool


def specificity_matrix(
    changes: ArrayLike,
    expected: ArrayLike,
    *,
    statistic: str | Statistic = "auroc",
    strata: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    confounds: ArrayLike | None = None,
) -> np.ndarray:
    """Return the statistic of every row of changes against every row of expectations.

    Parameters
    ----------
    changes : (n_trained, n) float
        Change of each latent when training on each behavior.
    expected : (n_judged, n) bool, or float for a graded statistic
        Expectations for each behavior.
    statistic, strata, clusters
        As in `agreement_test`.
    confounds : (k, n) float, optional
        With these the matrix is adjusted: what strata and smooth functions of confounds explain of the expectations
        is taken out of every value. A statistic that is not linear in them cannot be adjusted, and keeps its values.

    Returns
    -------
    (n_trained, n_judged) float

    Raises
    ------
    InputError
        As `agreement_test`, naming the behavior's row.

    Notes
    -----
    A behavior about frequent words moves frequent latents and names frequent latents, one about rare words rare ones:
    a confound whose load differs by behavior does not cancel between the diagonal and the rest. With w the weights of
    the changes, l the labels and s their residuals, sum_i w_i l_i becomes sum_i w_i (s_i + mean l), because residuals
    of labels are orthogonal to what the confounds explain of w.
    """
    changes = as_finite("changes", changes, n_dims=2)
    labels = np.asarray(expected)
    if labels.ndim != 2 or labels.shape[1] != changes.shape[1]:
        raise InputError(
            f"changes has shape {changes.shape} and expected {labels.shape}", allowed="(n_behaviors, n) with the same n"
        )
    kind: Statistic = STATISTICS[statistic] if isinstance(statistic, str) else statistic
    codes = as_groups("strata", strata, changes.shape[1])
    smooth = smooth_confounds(confounds, codes, as_groups("clusters", clusters, changes.shape[1]))
    parts = kind.parts
    columns = [] if parts is None else [_Column(parts, label, codes, smooth) for label in labels]
    matrix = np.empty((len(changes), len(labels)))
    for trained, change in enumerate(changes):
        weights = None
        for judged, label in enumerate(labels):
            try:
                if parts is None:
                    matrix[trained, judged] = _value(kind.bind(as_change(change), label, codes), smooth)
                    continue
                weights = parts.weigh(as_change(change), codes) if weights is None else weights
                matrix[trained, judged] = columns[judged].value(weights)
            except InputError as error:
                raise InputError(
                    f"changes row {trained} against expected row {judged}: {error.problem}",
                    allowed=error.allowed,
                    remedy=error.remedy,
                ) from None
    return matrix


@dataclass(frozen=True)
class _Column:
    """Expectations (n,) that many changes are compared with; what is made of them alone is made once."""

    parts: LinearParts
    expected: np.ndarray
    strata: np.ndarray
    smooth: SmoothConfounds | None

    @cached_property
    def labels(self) -> np.ndarray:
        """The labels, (n,)."""
        return self.parts.read(self.expected, self.strata)

    @cached_property
    def residuals(self) -> np.ndarray:
        """The same without what confounds explain of them."""
        return _without(self.smooth, self.labels)

    def value(self, weights: np.ndarray) -> float:
        """Return the statistic of a change with these weights, (n,)."""
        scorer = self.parts.join(weights, self.labels, self.strata)
        return value_of(scorer) if self.smooth is None else _adjusted(scorer, self.residuals)


def _value(scorer: Scorer, smooth: SmoothConfounds | None) -> float:
    """Return the statistic without what confounds explain of the labels."""
    if smooth is None or not isinstance(scorer, LinearScorer):
        return value_of(scorer)
    return _adjusted(scorer, _without(smooth, scorer.labels))


def _adjusted(scorer: LinearScorer, residuals: np.ndarray) -> float:
    """Return the statistic with these residuals (n,) in the place of the labels."""
    return scorer.offset + scorer.scale * float(scorer.weights @ residuals)


def _without(smooth: SmoothConfounds | None, labels: np.ndarray) -> np.ndarray:
    """Return labels (n,) without what confounds explain of them, but with their mean."""
    labels = labels.astype(np.float64)
    return labels if smooth is None else labels - smooth.fitted(labels) + labels.mean()


def specificity_test(
    changes: ArrayLike,
    expected: ArrayLike,
    *,
    statistic: str | Statistic = "auroc",
    strata: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    confounds: ArrayLike | None = None,
    families: ArrayLike | None = None,
    n_resamples: int = 9999,
    rng: np.random.Generator | int | None = None,
) -> SpecificityResult:
    """Test whether each behavior's changes agree better with its own expectations than with others'.

    Parameters
    ----------
    changes : (n_behaviors, n) float
        Change of each latent when training on each behavior.
    expected : (n_behaviors, n) bool, or float for a graded statistic
        Expectations for the same behaviors in the same order.
    statistic, strata, clusters, confounds
        As in `specificity_matrix`.
    families : (n_behaviors,) int, optional
        Behaviors that are variants of one (see `families_of`): matched together, and one replicate.
    n_resamples : int
        Random matchings from 9 families on; up to 8 all are enumerated (40,320).
    rng : numpy.random.Generator, int or None
        Source of randomness.

    Returns
    -------
    SpecificityResult

    Raises
    ------
    InputError
        Fewer than two behaviors, different numbers of them, or as `specificity_matrix`.

    Notes
    -----
    The null: which expectations belong to which training is arbitrary. Every matching takes one value from each row
    and each column, so behaviors that change much, or explanations that fit any training, cancel. With few families
    p cannot be small: 1/6 with 3.
    """
    matrix = specificity_matrix(
        changes, expected, statistic=statistic, strata=strata, clusters=clusters, confounds=confounds
    )
    return specificity_of(matrix, families=families, n_resamples=n_resamples, rng=rng)


def specificity_of(
    matrix: ArrayLike,
    *,
    families: ArrayLike | None = None,
    n_resamples: int = 9999,
    rng: np.random.Generator | int | None = None,
) -> SpecificityResult:
    """Run `specificity_test` on a ready `matrix` (n_behaviors, n_behaviors), such as a mean over seeds."""
    matrix = as_finite("matrix", matrix, n_dims=2)
    if matrix.shape != (len(matrix), len(matrix)):
        raise InputError(f"the specificity matrix is {matrix.shape}", allowed="square, of at least two behaviors")
    if families is not None:
        matrix = family_means(matrix, families)
    n, n_resamples = len(matrix), as_count("n_resamples", n_resamples)
    if n < 2:
        raise InputError(f"specificity of {n} independent behaviors", allowed="at least two behaviors of two families")
    exact = n <= MAX_EXACT_BEHAVIORS
    diagonals = _all_traces(matrix) if exact else _random_traces(matrix, n_resamples, np.random.default_rng(rng))
    own = np.diagonal(matrix)
    statistic, null = contrast(matrix), contrast(matrix, diagonals)
    off = (matrix.sum(axis=1) - own) / (n - 1)
    return SpecificityResult(
        matrix=matrix,
        statistic=statistic,
        pvalue=exchange_pvalue(statistic, null, "greater", exact=exact),
        null_distribution=null,
        own_rank=np.count_nonzero(matrix >= own[:, None], axis=1).astype(np.int64),
        own_minus_others=own - off,
        exact=exact,
    )


def contrast(matrix: np.ndarray, traces: Any = None) -> Any:
    """Return the mean of the diagonal of `matrix` (n, n) minus the mean of the rest.

    With `traces`, the same for other matchings of rows with columns, given the sums of their matched values.
    """
    n, traces = len(matrix), float(np.trace(matrix)) if traces is None else traces
    return traces / n - (float(matrix.sum()) - traces) / (n * (n - 1))


def contrast_parts(matrix: np.ndarray) -> np.ndarray:
    """Return each behavior's contribution to the contrast of `matrix` (n, n), (n,); their mean is the contrast.

    A behavior's own value less the mean of the others in its row and in its column.
    """
    own = np.diagonal(matrix)
    return own - (matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * own) / (2 * (len(matrix) - 1))


def _all_traces(matrix: np.ndarray) -> np.ndarray:
    """Return (n!,) the sum of matched values for every matching of rows with columns."""
    traces: np.ndarray = matrix[np.arange(len(matrix)), _matchings(len(matrix))].sum(axis=1)
    return traces


@cache
def _matchings(n: int) -> np.ndarray:
    """Return every matching of n rows with n columns, (n!, n) int8: the column of each row."""
    return np.array(list(permutations(range(n))), dtype=np.int8)


def _random_traces(matrix: np.ndarray, n_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return (n_resamples,) the sum of matched values for random matchings."""
    n = len(matrix)
    columns = rng.permuted(np.tile(np.arange(n), (n_resamples, 1)), axis=1)
    return matrix[np.arange(n), columns].sum(axis=1)
