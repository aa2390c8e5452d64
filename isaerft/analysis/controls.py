"""Controls of a result: rows of agreement.csv that the same test makes.

A control is one function: it takes a result's `Comparison` and returns the one to test instead.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from isaerft import stats
from isaerft.analysis.readings import Reading
from isaerft.config import Plan
from isaerft.errors import InputError
from isaerft.stats.checks import NullOptions

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
    exchanged : (n_seeds, n) float or None
        Changes from training on the behavior's prompts with its completions exchanged between them.
    negative_controls : (m, n) float or None
        What trainings on behaviors of other families did to the latents, and were expected to do.
    """

    plan: Plan
    reading: Reading
    behavior: int
    changes: np.ndarray
    draws: np.ndarray | None
    exchanged: np.ndarray | None
    statistic: str
    negative_controls: np.ndarray | None

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
    """A control that is run many times: the mean agreement of changes (S, n) with labels (J, n).

    `over` names what the interval of the mean runs over.
    """

    changes: np.ndarray
    labels: np.ndarray
    over: str


@dataclass(frozen=True)
class Confound:
    """A control that puts a confound (n,) itself in the place of the change.

    Confounds are not adjusted for when it is tested: nothing would be left of it.
    """

    change: np.ndarray


Tested = np.ndarray | Confound | Pool | None
"""What is tested: a change (n,) against the comparison's labels, a confound, a pool, or nothing."""


def run_tests(comparisons: Sequence[Comparison], tested: Sequence[Tested]) -> list[dict[str, object]]:
    """Return the columns that the exchange of labels between texts gives each test; all share their exchanges.

    Parameters
    ----------
    comparisons : sequence of Comparison
        Of one reading and one statistic, so that they share latents, strata and texts.
    tested : sequence
        What is tested of each comparison.

    Returns
    -------
    list of dict
        Empty where agreement is undefined: nothing or everything is expected, no latent changed (early stopping kept
        the untrained adapter), or the strata leave nothing to exchange.
    """
    if not comparisons:
        return []
    study, reading = comparisons[0].plan.study, comparisons[0].reading
    null = reading.confounds.null_of_texts()
    options: dict[str, Any] = {"n_resamples": study.agreement.n_resamples, "rng": study.seed}
    without_interval = {"statistic": replace(comparisons[0].kind, interval="none")} | options
    options |= {"statistic": comparisons[0].statistic, "confidence_level": study.agreement.confidence_level}
    single: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    alone: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    pooled: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for i, (comparison, what) in enumerate(zip(comparisons, tested, strict=True)):
        if isinstance(what, np.ndarray) and comparison.can_test(what):
            single[i] = (what, comparison.labels)
        elif isinstance(what, Confound) and comparison.can_test(what.change):
            alone[i] = (what.change, comparison.labels)
        elif isinstance(what, Pool):
            pooled[i] = (what.changes, what.labels)
    found: dict[int, stats.AgreementResult | stats.PooledResult | InputError] = {}
    controls = [comparisons[i].negative_controls for i in single]
    results = stats.agreement_tests(list(single.values()), controls=controls, **null, **without_interval)
    found |= zip(single, results, strict=True)
    groups = NullOptions(strata=null["strata"], clusters=null["clusters"])
    found |= zip(alone, stats.agreement_tests(list(alone.values()), **groups, **without_interval), strict=True)
    if pooled:
        found |= zip(pooled, stats.pooled_agreements(list(pooled.values()), **null, **options), strict=True)
    columns: list[dict[str, object]] = [{} for _ in tested]
    for i, result in found.items():
        if isinstance(result, InputError):
            comparison = comparisons[i]
            logger.warning(
                "%s of behavior %r is undefined: %s",
                comparison.statistic,
                comparison.reading.behaviors[comparison.behavior],
                result,
            )
        else:
            columns[i] = _columns_of(result, tested[i])
    return columns


def _columns_of(result: stats.AgreementResult | stats.PooledResult, tested: Tested) -> dict[str, object]:
    """Return the columns that a result fills: of a pool with its interval over what it is run over."""
    columns: dict[str, object] = {
        "estimate": result.statistic,
        "pvalue_texts": result.pvalue,
        "n_resamples": result.n_resamples,
    }
    if isinstance(result, stats.AgreementResult):
        return columns | {"p_floor": max(1 / result.n_distinct, 1 / (result.n_resamples + 1))}
    interval = result.confidence_interval
    over = tested.over if isinstance(tested, Pool) and np.isfinite(interval.low) else None
    return columns | {"ci_low": interval.low, "ci_high": interval.high, "ci_over": over}


def control(name: str, comparison: Comparison) -> Tested:
    """Return what a control tests in the place of a result; None where it is undefined."""
    return _CONTROLS[name](comparison) if comparison.is_testable() else None


def controls_of(comparison: Comparison) -> list[str]:
    """Return the controls of a result; a source with known wrong explanations is a control itself and has none."""
    study = comparison.plan.study
    if study.sources[comparison.reading.source].wrong_share:
        return []
    trained = {"random_dictionary": comparison.draws, "shuffled_completions": comparison.exchanged}
    return [name for name in study.controls if name not in trained or trained[name] is not None]


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


def _shuffled_completions(comparison: Comparison) -> np.ndarray | None:
    """Train on answers that belong to other prompts; its changes are tested as the result's are."""
    return None if comparison.exchanged is None else comparison.kind.combine(comparison.exchanged)


def _firing_rate_only(comparison: Comparison) -> Confound | None:
    """Put the latents' firing rates in the place of their changes."""
    return None if comparison.kind.facts.directed else Confound(comparison.reading.confounds.firing_rate)


def _decoder_norm_only(comparison: Comparison) -> Confound | None:
    """Put the lengths of the latents' decoder rows in the place of their changes."""
    return None if comparison.kind.facts.directed else Confound(comparison.reading.confounds.decoder_norm)


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
    "shuffled_completions": _shuffled_completions,
}
