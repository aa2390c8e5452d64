"""Agreement of changes from training on each behavior with expectations for each behavior.

The tables agreement, specificity, overall and source_comparison all read this matrix: its columns are the trainings
that a behavior's own training is compared with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
    measure, statistic : str
    changes_of : mapping of (behavior, measure) to (n_seeds, d_sae) float
    placebos : mapping of measure to (n_placebos, n_seeds, d_sae) float
        Changes of placebo trainings; empty where there are none.
    kept : (d,) int64 or None
        The latents of the columns of all changes, ascending; None: every latent of the subject.
    """

    plan: Plan
    expectation: Expectation
    confounds: Confounds
    measure: str
    statistic: str
    changes_of: Changes
    placebos: Mapping[str, np.ndarray] = field(default_factory=dict)
    kept: np.ndarray | None = None

    @property
    def kind(self) -> stats.Statistic:
        """The registered statistic."""
        return stats.STATISTICS[self.statistic]

    @cached_property
    def changes(self) -> np.ndarray:
        """Changes combined over seeds as the statistic combines them, (n_behaviors, n)."""
        return np.array([self.change_of(self.changes_of[name, self.measure]) for name in self.plan.tested_behaviors])

    def change_of(self, changes: np.ndarray) -> np.ndarray:
        """Return changes (n_seeds, d) of the universe, combined over seeds, (n,)."""
        latents = self.expectation.latents
        return self.kind.combine(changes[:, latents if self.kept is None else np.searchsorted(self.kept, latents)])

    @property
    def labels(self) -> np.ndarray:
        """What the statistic compares changes with, (n_behaviors, n)."""
        return self.expectation.effect if self.kind.facts.graded else self.expectation.expected

    @cached_property
    def values(self) -> np.ndarray:
        """The statistic, (n_behaviors trained on, n_behaviors judged for); NaN where it is undefined."""
        return self.values_of(self.changes, adjusted=False)

    @cached_property
    def adjusted(self) -> np.ndarray:
        """The same without what confounds explain of the expectations."""
        return self.values_of(self.changes)

    @cached_property
    def placebo_values(self) -> np.ndarray:
        """The adjusted statistic of the placebo trainings, (n_placebos, n_behaviors judged for)."""
        placebos = self.placebos.get(self.measure, ())
        if not len(placebos):
            return np.empty((0, len(self.labels)))
        return self.values_of(np.array([self.change_of(changes) for changes in placebos]))

    def values_of(
        self, changes: np.ndarray, places: Sequence[int] | None = None, *, adjusted: bool = True
    ) -> np.ndarray:
        """Return the statistic of changes (m, n) with the expectations for behaviors, (m, n_behaviors).

        `places` are the behaviors' positions; by default all.
        """
        labels = self.labels if places is None else self.labels[list(places)]
        judged = np.flatnonzero(labels.min(axis=1) != labels.max(axis=1))
        changed = np.flatnonzero(np.ptp(changes, axis=1))
        values = np.full((len(changes), len(labels)), np.nan)
        if len(judged) and len(changed):
            null = self.confounds.null() if adjusted else stats.NullOptions(strata=self.confounds.strata)
            values[np.ix_(changed, judged)] = stats.specificity_matrix(
                changes[changed], labels[judged], statistic=self.statistic, **null
            )
        return values

    @cached_property
    def families(self) -> np.ndarray:
        """Family of each behavior, (n_behaviors,) int64: variants of one behavior count as one."""
        names = [self.plan.study.behaviors[name].family or name for name in self.plan.tested_behaviors]
        declared = np.unique(names, return_inverse=True)[1]
        return stats.families_of(self.changes, self.labels, declared=declared)

    def on(self, latents: np.ndarray) -> BehaviorMatrix:
        """Return the same on `latents` alone, (m,) int64, all of which are in the universe."""
        if len(latents) == len(self.expectation.latents):
            return self
        kept = np.searchsorted(self.expectation.latents, latents)
        return replace(self, expectation=self.expectation.on(latents), confounds=self.confounds.at(kept))
