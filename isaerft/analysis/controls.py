"""The controls of a result, each a row of agreement.csv beside it, by the same tests."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from isaerft import config
from isaerft.analysis.inputs import Confounds, Expectation
from isaerft.errors import InputError
from isaerft.stats import STATISTICS, AgreementResult, PooledResult, Statistic, agreement_tests, pooled_agreements

logger = logging.getLogger(__name__)


N_SHUFFLES = 20


@dataclass(frozen=True)
class Pair:
    """The changes from training on one behavior and what is expected of it.

    Attributes
    ----------
    behavior : int
        Row of `expectation` that belongs to the behavior.
    changes : (n_seeds, n) float
    draws : (n_draws, n) float or None
        Changes on random dictionaries.
    exchanged : (n_seeds, n) float or None
        Changes from training on the behavior's prompts with its completions exchanged between them.
    explanation_length : (n,) int64
        Characters of each explanation.
    """

    plan: config.Plan
    expectation: Expectation
    confounds: Confounds
    behavior: int
    changes: np.ndarray
    draws: np.ndarray | None
    exchanged: np.ndarray | None
    statistic: str
    explanation_length: np.ndarray

    @property
    def kind(self) -> Statistic:
        """The registered statistic."""
        return STATISTICS[self.statistic]

    @cached_property
    def change(self) -> np.ndarray:
        """The change over all seeds, as the statistic reads it, (n,)."""
        return self.kind.combine(self.changes)

    @property
    def all_labels(self) -> np.ndarray:
        """What the statistic compares change with, for every behavior, (n_behaviors, n) bool or float."""
        return self.expectation.effect if self.kind.facts.graded else self.expectation.expected

    @property
    def labels(self) -> np.ndarray:
        """The same for this behavior, (n,)."""
        return self.all_labels[self.behavior]

    @property
    def n_expected(self) -> int:
        """Number of latents expected to change."""
        return int(self.expectation.expected[self.behavior].sum())

    def counts(self) -> dict[str, int]:
        """Return the columns that count latents."""
        return {"n_latents": len(self.labels), "n_expected": self.n_expected}

    def can_test(self, change: np.ndarray) -> bool:
        """Tell whether a change (n,) can be compared with the labels at all."""
        return self.is_testable() and bool(np.ptp(change))

    def is_testable(self) -> bool:
        """Tell whether the expectation distinguishes latents at all."""
        return bool(self.labels.min() != self.labels.max())


@dataclass(frozen=True)
class Pool:
    """A control that is run many times: the mean agreement of changes (S, n) with labels (J, n)."""

    changes: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Confound:
    """A control that puts a confound (n,) itself in the place of the change.

    Confounds are not taken out before it is tested: nothing would be left of it.
    """

    change: np.ndarray


def answers(pairs: Sequence[Pair], asked: Sequence[np.ndarray | Confound | Pool | None]) -> list[dict[str, Any]]:
    """Return the columns of each question's answer, all under the same exchanges.

    Parameters
    ----------
    pairs : sequence of Pair
        Of one reading and one statistic, so that they share latents, strata and clusters.
    asked : sequence
        For each pair a change (n,) against the pair's labels, a confound, a pool, or None where nothing is asked.

    Returns
    -------
    list of dict
        Empty where agreement is undefined: nothing or everything is expected, no latent changed (early stopping kept
        the untrained adapter), or the strata leave nothing to exchange.
    """
    if not pairs:
        return []
    plan = pairs[0].plan
    options = pairs[0].confounds.null() | {
        "statistic": pairs[0].statistic,
        "n_resamples": plan.study.agreement.n_resamples,
        "confidence_level": plan.study.agreement.confidence_level,
        "rng": plan.study.seed,
    }
    single = [i for i, what in enumerate(asked) if isinstance(what, np.ndarray) and pairs[i].can_test(what)]
    alone = [i for i, what in enumerate(asked) if isinstance(what, Confound) and pairs[i].can_test(what.change)]
    pooled = [i for i, what in enumerate(asked) if isinstance(what, Pool)]
    found: dict[int, AgreementResult | PooledResult | InputError] = {}
    found |= zip(single, agreement_tests([(asked[i], pairs[i].labels) for i in single], **options), strict=True)
    of_confounds = [(asked[i].change, pairs[i].labels) for i in alone]
    found |= zip(alone, agreement_tests(of_confounds, **options | {"confounds": None}), strict=True)
    if pooled:
        pools = [(asked[i].changes, asked[i].labels) for i in pooled]
        found |= zip(pooled, pooled_agreements(pools, **options), strict=True)
    columns: list[dict[str, Any]] = [{} for _ in asked]
    for i, result in found.items():
        if isinstance(result, InputError):
            logger.warning("%s of behavior %d is undefined: %s", pairs[i].statistic, pairs[i].behavior, result)
        else:
            columns[i] = result_columns(result) | {"null_mean": result.null_mean, "null_sd": result.null_sd}
    return columns


def control_of(control: str, pair: Pair) -> np.ndarray | Confound | Pool | None:
    """Return what a control asks of a pair; None where it is undefined."""
    return _CONTROLS[control](pair) if pair.is_testable() else None


def _shuffled_explanations(pair: Pair) -> Pool | None:
    """Give explanations to latents at random, many times."""
    rng = np.random.default_rng([pair.plan.study.seed, pair.behavior])
    shuffles = np.array([rng.permutation(pair.labels) for _ in range(N_SHUFFLES)])
    return _pool(pair, pair.change[None], shuffles)


def _mismatched_behavior(pair: Pair) -> Pool | None:
    """Take what the same explanations lead one to expect of each other behavior."""
    others = np.delete(pair.all_labels, pair.behavior, axis=0)
    others = others[[labels.min() != labels.max() for labels in others]]
    return _pool(pair, pair.change[None], others) if len(others) else None


def _random_dictionary(pair: Pair) -> Pool | None:
    """Train on SAEs whose decoder rows are permuted; every seed draws its own permutation."""
    return None if pair.draws is None else _pool(pair, pair.draws, pair.labels[None])


def _shuffled_completions(pair: Pair) -> np.ndarray | None:
    """Train on answers that belong to other prompts; its changes are tested as the result's are."""
    return None if pair.exchanged is None else pair.kind.combine(pair.exchanged)


def _firing_rate_only(pair: Pair) -> Confound | None:
    """Put the latents' firing rates in the place of their changes."""
    return None if pair.kind.facts.directed else Confound(pair.confounds.firing_rate)


def _decoder_norm_only(pair: Pair) -> Confound | None:
    """Put the lengths of the latents' decoder rows in the place of their changes."""
    return None if pair.kind.facts.directed else Confound(pair.confounds.decoder_norm)


def _explanation_length(pair: Pair) -> np.ndarray | None:
    """Put the lengths of the explanations, in characters, in the place of the changes."""
    return _instead(pair, pair.explanation_length)


def _genericity(pair: Pair) -> np.ndarray | None:
    """Put the number of other behaviors that a latent is expected to change for in the place of its change.

    Its own behavior is left out: that number would hold the label which it is compared with.
    """
    return _instead(pair, np.delete(pair.expectation.expected, pair.behavior, axis=0).sum(axis=0))


def _instead(pair: Pair, values: np.ndarray) -> np.ndarray | None:
    """Return what stands in the place of changes, (n,) float; None where it would need a direction."""
    return None if pair.kind.facts.directed else values.astype(float)


def _pool(pair: Pair, changes: np.ndarray, labels: np.ndarray) -> Pool | None:
    varied = changes[np.ptp(changes, axis=1) > 0]
    if not pair.kind.facts.pooled or not len(varied):
        return None
    return Pool(varied, labels)


def result_columns(result: AgreementResult | PooledResult) -> dict[str, Any]:
    """Return the columns that a result fills."""
    return {
        "estimate": result.statistic,
        "ci_low": result.confidence_interval.low,
        "ci_high": result.confidence_interval.high,
        "pvalue": result.pvalue,
        "n_resamples": result.n_resamples,
    }


_CONTROLS = {
    "shuffled_explanations": _shuffled_explanations,
    "mismatched_behavior": _mismatched_behavior,
    "firing_rate_only": _firing_rate_only,
    "decoder_norm_only": _decoder_norm_only,
    "explanation_length": _explanation_length,
    "genericity": _genericity,
    "random_dictionary": _random_dictionary,
    "shuffled_completions": _shuffled_completions,
}
