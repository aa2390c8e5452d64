"""Null distributions: the statistic when expectations are exchanged between units.

A unit is a set of latents that are said alike or are near-duplicates: latents with one explanation text, and clusters.
They move together and get their labels together, so the unit, not the latent, is exchanged. With y_u the sum of the
weights of unit u and l_u its mean label, a statistic that is linear in the labels is

    offset + scale * sum_u y_u l_u

and l is permuted between units of about one size, within strata (`isaerft.stats.exchange.Units`), as
`isaerft.stats.shifts` draws permutations.

With confounds, y is made of the residuals of the weights (see `isaerft.stats.confounds`), and the residuals of the
labels are exchanged. Residuals are less exchangeable than labels: those of labels are small where few latents are
expected, those of changes are small where changes are crowded, and the two can coincide. So each exchange is
studentized by its own spread (DiCiccio and Romano 2017, JASA 112:1211):

    t = sum_u z_u / sqrt(sum_u z_u^2),    z_u = y_u l_u, each centered within its cell

The null is given in the unit of the statistic: what confounds explain, plus t times the standard error at the observed
labels. With fewer than `FEW` expected units, t has no spread left (with one it is 1 or -1), so the labels themselves
are exchanged against the residuals of the weights, without studentizing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from isaerft.stats.checks import Alternative
from isaerft.stats.confounds import SmoothConfounds, smooth_confounds
from isaerft.stats.exchange import Units, all_exchanges, is_enumerable
from isaerft.stats.shifts import Shifts
from isaerft.stats.statistics import LinearScorer, value_of

# Values this close are ties. Distinct AUROCs differ by at least 1 / (2 n1 n0): 8e-12 at half a million latents.
_TIE = 1e-12
_ROUNDING = 1e-14
FEW = 8
"""Fewest expected units at which residuals are exchanged and studentized."""


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


class _Exchanged:
    """A linear statistic by unit, whose labels are permuted: y and l (n_units,), in the exchange's order."""

    def __init__(self, value: float, sums: np.ndarray, labels: np.ndarray) -> None:
        self.value, self.sums, self.labels = value, sums, labels
        self.own = float(labels @ sums)

    def null(self, exchanges: Shifts) -> np.ndarray:
        """Return the statistic of each exchange, (n_resamples,)."""
        return self.value + exchanges.sums(self.sums, self.labels) - self.own


class _Studentized(_Exchanged):
    """The same with the residuals of both, centered within cells, in units of its own spread at each exchange."""

    def __init__(self, value: float, sums: np.ndarray, labels: np.ndarray, inflation: float) -> None:
        super().__init__(value, sums, labels)
        self.squares = sums**2
        self.unit = inflation * float(np.sqrt(self.squares @ labels**2))

    def null(self, exchanges: Shifts) -> np.ndarray:
        total = exchanges.sums(self.sums, self.labels)
        spread = exchanges.sums(self.squares, self.labels**2)
        # What is left where every product is 0 are rounding errors of the largest possible sum.
        least = _ROUNDING * np.linalg.norm(self.squares) * np.linalg.norm(self.labels**2)
        return self.value - self.own + self.unit * total / np.sqrt(np.where(spread > least, spread, np.inf))


def smooth_for(units: Units, strata: np.ndarray, confounds: ArrayLike | None) -> SmoothConfounds | None:
    """Return what is taken out before the labels of `units` are exchanged, given strata (n,) and confounds (k, n).

    Confounds vary from latent to latent within a unit, so what can be fitted depends on the number of latents. Without
    confounds the strata's levels are taken out where units exchange across strata, and nothing elsewhere.
    """
    smooth = smooth_confounds(confounds, strata, np.arange(len(strata)))
    return SmoothConfounds.of_strata(strata) if smooth is None and units.crosses_strata else smooth


def linear_nulls(
    units: Units,
    tests: Sequence[tuple[LinearScorer, SmoothConfounds | None]],
    n_resamples: int,
    rng: np.random.Generator,
) -> list[tuple[np.ndarray, bool]]:
    """Return for each test the statistic of every exchange, (n_resamples,), and whether it is exact (enumerated).

    Parameters
    ----------
    units : Units
        Of n latents. All tests share their random exchanges.
    tests : sequence of (LinearScorer, SmoothConfounds or None)
        Labels and weights (n,) in the order of the latents, and what is taken out before labels are exchanged.
    """
    exchange = units.exchange
    prepared = [_prepared(units, scorer, smooth) for scorer, smooth in tests]
    nulls: list[tuple[np.ndarray, bool]] = [(np.empty(0), False)] * len(tests)
    drawn = []
    for index, test in enumerate(prepared):
        if not isinstance(test, _Studentized) and is_enumerable(exchange, test.labels, n_resamples):
            found = np.concatenate(list(all_exchanges(exchange, test.labels))) @ test.sums
            nulls[index] = test.value + found - test.own, True
        else:
            drawn.append(index)
    if drawn:
        exchanges = Shifts.draw(exchange, n_resamples, rng)
        for index in drawn:
            nulls[index] = prepared[index].null(exchanges), False
    return nulls


def _prepared(units: Units, scorer: LinearScorer, smooth: SmoothConfounds | None) -> _Exchanged:
    """Return a statistic by unit, with residuals where there are confounds and enough expected units."""
    order, value = units.exchange.order, value_of(scorer)
    labels = units.means(scorer.labels)[order]
    if smooth is None:
        return _Exchanged(value, scorer.scale * units.sums(scorer.weights)[order], labels)
    sums = scorer.scale * units.sums(scorer.weights - smooth.fitted(scorer.weights))[order]
    if n_distinguished(labels) < FEW:
        return _Exchanged(value, sums, labels)
    rest = scorer.labels - smooth.fitted(scorer.labels.astype(np.float64))
    residuals = _centered(units, units.means(rest)[order])
    return _Studentized(value, _centered(units, sums), residuals, smooth.inflation)


def _centered(units: Units, values: np.ndarray) -> np.ndarray:
    """Return `values` (n_units,), in the exchange's order, less the mean of each cell."""
    starts = [cell.start for cell in units.exchange.cells]
    sizes = np.diff([*starts, len(values)])
    return values - np.repeat(np.add.reduceat(values, starts) / sizes, sizes)


def n_distinguished(labels: np.ndarray) -> int:
    """Return how many of `labels` (n,) differ from the commonest: the expected ones, where labels are yes or no."""
    return len(labels) - int(np.unique(labels, return_counts=True)[1].max())
