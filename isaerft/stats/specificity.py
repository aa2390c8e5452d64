"""Does training on a behavior change the latents expected for it, rather than for any other?

The strongest control: explanations judged for behavior A, against changes from training on B. Whatever makes
latents both easy to change and likely to be expected for any behavior is the same on and off the diagonal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice, permutations
from math import factorial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from isaerft.errors import InputError
from isaerft.registry import STATISTICS
from isaerft.stats.checks import as_change, as_count, as_finite, as_groups
from isaerft.stats.nulls import exchange_pvalue
from isaerft.stats.statistics import Statistic

MAX_EXACT_BEHAVIORS = 8
_BATCH = 65_536


@dataclass(frozen=True)
class SpecificityResult:
    """What `specificity_test` found.

    Parameters
    ----------
    matrix : (n_behaviors, n_behaviors) float
        The statistic of the changes trained on (row) against the expectations judged for (column).
    statistic : float
        Mean of the diagonal minus mean of the rest.
    pvalue : float
        Chance of a statistic at least as high when behaviors are matched at random; at least 1 / n_behaviors!.
    null_distribution : (n_resamples,) float
        The statistic of each matching; every one if `exact`.
    own_rank : (n_behaviors,) int64
        Place of a row's own column among the row's values: 1 is highest, ties count against it.
    own_minus_others : (n_behaviors,) float
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
    changes: ArrayLike, expected: ArrayLike, *, statistic: str | Statistic = "auroc", strata: ArrayLike | None = None
) -> np.ndarray:
    """Return the statistic of every row of changes against every row of expectations.

    Parameters
    ----------
    changes : (n_trained, n) float
        Change of each latent when training on each behavior.
    expected : (n_judged, n) bool, or float for a graded statistic
        Expectations for each behavior.
    statistic, strata
        As in `agreement_test`.

    Returns
    -------
    (n_trained, n_judged) float

    Raises
    ------
    InputError
        As `agreement_test`, naming the behavior's row.
    """
    changes = as_finite("changes", changes, n_dims=2)
    labels = np.asarray(expected)
    if labels.ndim != 2 or labels.shape[1] != changes.shape[1]:
        raise InputError(
            f"changes has shape {changes.shape} and expected {labels.shape}", allowed="(n_behaviors, n) with the same n"
        )
    kind: Statistic = STATISTICS[statistic] if isinstance(statistic, str) else statistic
    codes = as_groups("strata", strata, changes.shape[1])
    matrix = np.empty((len(changes), len(labels)))
    for trained, change in enumerate(changes):
        for judged, label in enumerate(labels):
            try:
                scorer = kind.bind(as_change(change), label, codes)
            except InputError as error:
                raise InputError(
                    f"changes row {trained} against expected row {judged}: {error.problem}",
                    allowed=error.allowed,
                    remedy=error.remedy,
                ) from None
            matrix[trained, judged] = scorer(scorer.labels[None])[0]
    return matrix


def specificity_test(
    changes: ArrayLike,
    expected: ArrayLike,
    *,
    statistic: str | Statistic = "auroc",
    strata: ArrayLike | None = None,
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
    statistic, strata
        As in `agreement_test`.
    n_resamples : int
        Random matchings from 9 behaviors on; up to 8 all are enumerated (40,320).
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
    and each column, so behaviors that change much, or explanations that fit any training, cancel. With few behaviors
    p cannot be small: 1/6 with 3.
    """
    return specificity_of(
        specificity_matrix(changes, expected, statistic=statistic, strata=strata), n_resamples=n_resamples, rng=rng
    )


def specificity_of(
    matrix: ArrayLike, *, n_resamples: int = 9999, rng: np.random.Generator | int | None = None
) -> SpecificityResult:
    """Run `specificity_test` on a ready `matrix` (n_behaviors, n_behaviors), such as a mean over seeds."""
    matrix = as_finite("matrix", matrix, n_dims=2)
    n = len(matrix)
    n_resamples = as_count("n_resamples", n_resamples)
    if n < 2 or matrix.shape != (n, n):
        raise InputError(f"the specificity matrix is {matrix.shape}", allowed="square, of at least two behaviors")
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
    n = len(matrix)
    order = permutations(range(n))
    parts = []
    for _ in range(0, factorial(n), _BATCH):
        columns = np.array(list(islice(order, _BATCH)))
        parts.append(matrix[np.arange(n), columns].sum(axis=1))
    return np.concatenate(parts)


def _random_traces(matrix: np.ndarray, n_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return (n_resamples,) the sum of matched values for random matchings."""
    n = len(matrix)
    columns = rng.permuted(np.tile(np.arange(n), (n_resamples, 1)), axis=1)
    return matrix[np.arange(n), columns].sum(axis=1)
