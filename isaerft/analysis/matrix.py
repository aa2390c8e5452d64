"""Agreement of changes from training on each behavior with expectations for each behavior.

The tables specificity, overall and source_comparison all read this matrix.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from isaerft import stats
from isaerft.analysis.readings import Changes, Confounds, Expectation
from isaerft.config import Plan


@dataclass(frozen=True)
class BehaviorMatrix:
    """Agreement of changes from training on each behavior with expectations for each behavior.

    Attributes
    ----------
    changes_of : mapping of (behavior, measure) to (n_seeds, d_sae) float
    """

    plan: Plan
    expectation: Expectation
    confounds: Confounds
    measure: str
    changes_of: Changes

    @property
    def statistic(self) -> stats.Statistic:
        """The primary statistic."""
        return stats.STATISTICS[self.plan.study.primary.statistic]

    @cached_property
    def changes(self) -> np.ndarray:
        """Changes combined over seeds as the statistic combines them, (n_behaviors, n)."""
        own = (self.changes_of[name, self.measure][:, self.expectation.latents] for name in self.plan.tested_behaviors)
        return np.array([self.statistic.combine(changes) for changes in own])

    @property
    def labels(self) -> np.ndarray:
        """What the statistic compares changes with, (n_behaviors, n)."""
        return self.expectation.effect if self.statistic.facts.graded else self.expectation.expected

    @cached_property
    def values(self) -> np.ndarray:
        """The statistic, (n_behaviors trained on, n_behaviors judged for); NaN where it is undefined."""
        judged = np.flatnonzero(self.labels.min(axis=1) != self.labels.max(axis=1))
        changed = np.flatnonzero(np.ptp(self.changes, axis=1))
        values = np.full((len(self.changes), len(self.labels)), np.nan)
        if len(judged) and len(changed):
            values[np.ix_(changed, judged)] = stats.specificity_matrix(
                self.changes[changed], self.labels[judged], statistic=self.plan.study.primary.statistic
            )
        return values

    def on(self, latents: np.ndarray) -> BehaviorMatrix:
        """Return the same on `latents` alone, (m,) int64, all of which are in the universe."""
        if len(latents) == len(self.expectation.latents):
            return self
        return replace(self, expectation=self.expectation.on(latents))
