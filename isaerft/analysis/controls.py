"""Controls of a result: rows of agreement.csv in the same statistic.

A control is one function: it takes a result's `Comparison` and returns the one to test instead.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from isaerft import stats
from isaerft.analysis.matrix import BehaviorMatrix
from isaerft.analysis.readings import Reading
from isaerft.config import BASELINES, RETRAINED, Plan
from isaerft.errors import InputError

logger = logging.getLogger(__name__)

N_SHUFFLES = 20


@dataclass(frozen=True)
class Comparison:
    """The changes from training on one behavior and what a reading expects of it, by one statistic.

    Attributes
    ----------
    behavior : int
        Index of the behavior among those of the reading.
    changes : (n_seeds, n) float
    draws : (n_draws, n) float or None
        Changes on random dictionaries.
    retrained : mapping of str to (n_seeds, n) float
        Changes from training on the behavior's twins, by control.
    matrix : BehaviorMatrix
        Of the reading, by the measure and the statistic.
    """

    plan: Plan
    reading: Reading
    behavior: int
    changes: np.ndarray
    draws: np.ndarray | None
    retrained: Mapping[str, np.ndarray]
    matrix: BehaviorMatrix

    @property
    def statistic(self) -> str:
        """Name of the statistic."""
        return self.matrix.statistic

    @property
    def negative_controls(self) -> np.ndarray | None:
        """What trainings on behaviors of other families did to the latents, and were expected to do, (m, n)."""
        families = self.matrix.families
        others = np.flatnonzero(families != families[self.behavior])
        return stats.negative_controls(self.matrix.changes[others], self.matrix.labels[others])

    @property
    def kind(self) -> stats.Statistic:
        """The registered statistic."""
        return stats.STATISTICS[self.statistic]

    @cached_property
    def change(self) -> np.ndarray:
        """The change over all seeds, as the statistic combines them, (n,)."""
        return self.kind.combine(self.changes)

    @property
    def all_labels(self) -> np.ndarray:
        """What the statistic compares change with, for every behavior, (n_behaviors, n) bool or float."""
        return self.reading.expectation.effect if self.kind.facts.graded else self.reading.expectation.expected

    @property
    def labels(self) -> np.ndarray:
        """The same for this behavior, (n,)."""
        return self.all_labels[self.behavior]

    @property
    def n_expected(self) -> int:
        """Number of latents expected to change."""
        return int(self.reading.expectation.expected[self.behavior].sum())

    def is_testable(self) -> bool:
        """Tell whether the expectation distinguishes latents at all."""
        return bool(self.labels.min() != self.labels.max())

    def can_test(self, change: np.ndarray) -> bool:
        """Tell whether a change (n,) can be compared with the labels at all."""
        return self.is_testable() and bool(np.ptp(change))


@dataclass(frozen=True)
class Pool:
    """The mean agreement of changes (S, n) with labels (J, n): a control that is run many times, or on some latents.

    `over` names what the interval of the mean runs over.
    """

    changes: np.ndarray
    labels: np.ndarray
    over: str


Tested = np.ndarray | Pool | None
"""What is tested: a change (n,) against the comparison's labels, a pool, or nothing."""


def estimate_of(comparison: Comparison, tested: Tested) -> dict[str, object]:
    """Return the plain statistic of a control, of a pool with its interval; empty where agreement is undefined."""
    if isinstance(tested, Pool):
        values = stats.specificity_matrix(tested.changes, tested.labels, statistic=comparison.statistic)
        replicates = values.mean(axis=1) if len(values) > 1 else values[0]
        low, high = stats.mean_interval(replicates, comparison.plan.study.agreement.confidence_level)
        over = tested.over if np.isfinite(low) else None
        n_latents = tested.labels.shape[1]
        return {
            "estimate": float(values.mean()),
            "ci_low": low,
            "ci_high": high,
            "ci_over": over,
            "n_latents": n_latents,
        }
    if tested is None or not comparison.can_test(tested):
        return {}
    values = stats.specificity_matrix(
        tested[None],
        comparison.labels[None],
        statistic=comparison.statistic,
        strata=comparison.reading.confounds.strata,
    )
    return {"estimate": float(values[0, 0])}


def exchange_texts(comparisons: Sequence[Comparison], changes: Sequence[np.ndarray]) -> list[dict[str, object]]:
    """Return the columns that the exchange of labels between texts gives each change (n,); all share their exchanges.

    Parameters
    ----------
    comparisons : sequence of Comparison
        Of one reading and one statistic, so that they share latents, strata and texts.

    Returns
    -------
    list of dict
        Empty where too few latents share a text (`Confounds.shares_texts`), and where agreement is undefined: nothing
        or everything is expected, no latent changed (early stopping kept the untrained adapter), or the strata leave
        nothing to exchange.
    """
    columns: list[dict[str, object]] = [{} for _ in comparisons]
    defined = [i for i, (one, change) in enumerate(zip(comparisons, changes, strict=True)) if one.can_test(change)]
    if not defined or not comparisons[0].reading.confounds.shares_texts:
        return columns
    study, reading = comparisons[0].plan.study, comparisons[0].reading
    found = stats.agreement_tests(
        [(changes[i], comparisons[i].labels) for i in defined],
        controls=[comparisons[i].negative_controls for i in defined],
        statistic=replace(comparisons[0].kind, interval="none"),
        n_resamples=study.agreement.n_resamples,
        rng=study.seed,
        **reading.confounds.null_of_texts(),
    )
    for i, result in zip(defined, found, strict=True):
        if isinstance(result, InputError):
            comparison = comparisons[i]
            behavior = reading.behaviors[comparison.behavior]
            logger.warning("%s of behavior %r is undefined: %s", comparison.statistic, behavior, result)
            continue
        columns[i] = {
            "pvalue_texts": result.pvalue,
            "n_resamples": result.n_resamples,
            "p_floor": max(1 / result.n_distinct, 1 / (result.n_resamples + 1)),
        }
    return columns


def control(name: str, comparison: Comparison) -> Tested:
    """Return what a control tests in the place of a result; None where it is undefined."""
    return _CONTROLS[name](comparison) if comparison.is_testable() else None


def controls_of(comparison: Comparison) -> list[str]:
    """Return the controls of a result; wrong explanations and random baselines are controls themselves, without any.

    Random baselines are tested as subjects are, each with its own dictionary, and not here.
    """
    study, reading = comparison.plan.study, comparison.reading
    if study.sources[reading.source].wrong_share or reading.explained.subject not in study.subjects:
        return []
    missing = {name for name in RETRAINED if name not in comparison.retrained}
    missing |= {"random_dictionary"} if comparison.draws is None else set()
    return [name for name in study.controls if name not in BASELINES and name not in missing]


def _shuffled_explanations(comparison: Comparison) -> Pool | None:
    """Give explanations to latents at random, many times."""
    rng = np.random.default_rng([comparison.plan.study.seed, comparison.behavior])
    shuffles = np.array([rng.permutation(comparison.labels) for _ in range(N_SHUFFLES)])
    return _pool(comparison, comparison.change[None], shuffles, "shuffles")


def _mismatched_behavior(comparison: Comparison) -> Pool | None:
    """Take what the same explanations predict for each other behavior."""
    others = np.delete(comparison.all_labels, comparison.behavior, axis=0)
    others = others[[labels.min() != labels.max() for labels in others]]
    return _pool(comparison, comparison.change[None], others, "other behaviors") if len(others) else None


def _random_dictionary(comparison: Comparison) -> Pool | None:
    """Train on SAEs whose decoder rows are permuted; every seed draws its own permutation."""
    if comparison.draws is None:
        return None
    return _pool(comparison, comparison.draws, comparison.labels[None], "random dictionaries")


def _retrained(control: str, comparison: Comparison) -> np.ndarray:
    """Train on answers that belong to other prompts, or without a direction; tested as the result's changes are."""
    return comparison.kind.combine(comparison.retrained[control])


def _firing_rate_only(comparison: Comparison) -> np.ndarray | None:
    """Put the latents' firing rates in the place of their changes."""
    return _unsigned(comparison, comparison.reading.confounds.firing_rate)


def _decoder_norm_only(comparison: Comparison) -> np.ndarray | None:
    """Put the lengths of the latents' decoder rows in the place of their changes."""
    return _unsigned(comparison, comparison.reading.confounds.decoder_norm)


def _explanation_length(comparison: Comparison) -> np.ndarray | None:
    """Put the lengths of the explanations, in characters, in the place of the changes."""
    return _unsigned(comparison, comparison.reading.explanation_length)


def _genericity(comparison: Comparison) -> np.ndarray | None:
    """Put the number of other behaviors that a latent is expected to change for in the place of its change.

    Its own behavior is left out: otherwise the number would contain the label that it is compared with.
    """
    return _unsigned(
        comparison, np.delete(comparison.reading.expectation.expected, comparison.behavior, axis=0).sum(axis=0)
    )


def _among_expected(comparison: Comparison) -> Pool | None:
    """Leave out the latents that no behavior is expected to change: own expected latents against other behaviors'."""
    among = comparison.reading.expectation.expected.any(axis=0)
    change, labels = comparison.change[None, among], comparison.labels[None, among]
    return _pool(comparison, change, labels, "") if labels.size and labels.min() != labels.max() else None


def _unsigned(comparison: Comparison, values: np.ndarray) -> np.ndarray | None:
    """Return values in the place of changes, (n,) float; None where the statistic reads a sign that they lack."""
    return None if comparison.kind.facts.directed else values.astype(float)


def _pool(comparison: Comparison, changes: np.ndarray, labels: np.ndarray, over: str) -> Pool | None:
    varied = changes[np.ptp(changes, axis=1) > 0]
    if not comparison.kind.facts.pooled or not len(varied):
        return None
    return Pool(varied, labels, over)


_CONTROLS: dict[str, Callable[[Comparison], Tested]] = {
    "shuffled_explanations": _shuffled_explanations,
    "mismatched_behavior": _mismatched_behavior,
    "firing_rate_only": _firing_rate_only,
    "decoder_norm_only": _decoder_norm_only,
    "explanation_length": _explanation_length,
    "genericity": _genericity,
    "random_dictionary": _random_dictionary,
    **{control: partial(_retrained, control) for control in RETRAINED},
    "among_expected": _among_expected,
}
