"""What all behaviors together say of one reading and one measure: the specificity matrix and the overall results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from isaerft import config
from isaerft.analysis.inputs import Confounds, Expectation
from isaerft.errors import InputError
from isaerft.stats import (
    STATISTICS,
    OverallResult,
    Statistic,
    overall_agreement,
    overall_specificity,
    specificity_matrix,
)


@dataclass(frozen=True)
class Across:
    """Changes from training on every behavior, against what is expected of every behavior.

    Attributes
    ----------
    own : mapping of (behavior, measure) to (n_seeds, d_sae) float
    """

    plan: config.Plan
    expectation: Expectation
    confounds: Confounds
    measure: str
    own: Mapping[tuple[str, str], np.ndarray]

    @property
    def kind(self) -> Statistic:
        """The primary statistic."""
        return STATISTICS[self.plan.study.primary.statistic]

    @cached_property
    def changes(self) -> np.ndarray:
        """Changes combined over seeds as the statistic wants them, (n_behaviors, n)."""
        own = (self.own[name, self.measure][:, self.expectation.latents] for name in self.plan.tested_behaviors)
        return np.array([self.kind.combine(changes) for changes in own])

    @property
    def labels(self) -> np.ndarray:
        """What the primary statistic compares changes with, (n_behaviors, n)."""
        return self.expectation.effect if self.kind.facts.graded else self.expectation.expected

    @cached_property
    def matrix(self) -> np.ndarray:
        """The primary statistic, trained on (row) and judged for (column); NaN where it is undefined."""
        judged = np.flatnonzero(self.labels.min(axis=1) != self.labels.max(axis=1))
        changed = np.flatnonzero(np.ptp(self.changes, axis=1))
        matrix = np.full((len(self.changes), len(self.labels)), np.nan)
        if len(judged) and len(changed):
            matrix[np.ix_(changed, judged)] = specificity_matrix(
                self.changes[changed], self.labels[judged], statistic=self.plan.study.primary.statistic
            )
        return matrix

    def cells(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of specificity.csv."""
        for row, trained_on in enumerate(self.plan.tested_behaviors):
            for column, judged_for in enumerate(self.plan.tested_behaviors):
                yield {"trained_on": trained_on, "judged_for": judged_for, "estimate": self.matrix[row, column]}

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of overall.csv."""
        tested = np.flatnonzero(np.isfinite(np.diagonal(self.matrix)))
        options = {
            "n_resamples": self.plan.study.agreement.n_resamples,
            "confidence_level": self.plan.study.agreement.confidence_level,
            "rng": self.plan.study.seed,
        }
        same = {"statistic": self.plan.study.primary.statistic, "n_behaviors": len(tested)}
        yield same | {"quantity": "agreement"} | self._agreement(tested, options)
        if len(self.plan.tested_behaviors) > 1:
            matrix = self.matrix[np.ix_(tested, tested)]
            found = _columns(overall_specificity(matrix, **options)) if len(tested) > 1 else {}
            yield same | {"quantity": "specificity"} | found

    def _agreement(self, tested: np.ndarray, options: dict[str, Any]) -> dict[str, Any]:
        pairs = [(self.changes[i], self.labels[i]) for i in tested]
        try:
            return _columns(
                overall_agreement(
                    pairs, statistic=self.plan.study.primary.statistic, **self.confounds.null(), **options
                )
            )
        except InputError:  # nothing can be exchanged within the strata, or no behavior can be tested
            return {}


def _columns(result: OverallResult) -> dict[str, Any]:
    return {
        "estimate": result.statistic,
        "ci_low": result.confidence_interval.low,
        "ci_high": result.confidence_interval.high,
        "pvalue": result.pvalue,
        "leave_one_out_low": result.leave_one_out.low,
        "leave_one_out_high": result.leave_one_out.high,
    }
