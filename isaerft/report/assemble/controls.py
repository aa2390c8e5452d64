"""The controls of a result, each a row of agreement.csv beside it, by the same tests."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from isaerft import config
from isaerft.errors import InputError
from isaerft.report.assemble.inputs import Confounds, Expectation
from isaerft.stats import AgreementResult, PooledResult, agreement_test, mean_rank, pooled_agreement

logger = logging.getLogger(__name__)
N_SHUFFLES = 20
MAX_RESAMPLES = 999


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
    """

    study: config.Study
    expectation: Expectation
    confounds: Confounds
    behavior: int
    changes: np.ndarray
    draws: np.ndarray | None
    statistic: str

    @property
    def all_labels(self) -> np.ndarray:
        """What the statistic compares change with, for every behavior, (n_behaviors, n) bool or float."""
        return self.expectation.effect if self.statistic == "spearman" else self.expectation.expected

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

    def is_testable(self) -> bool:
        """Tell whether the expectation distinguishes latents at all."""
        return bool(self.labels.min() != self.labels.max())

    def test(self, change: np.ndarray, n_resamples: int) -> AgreementResult | None:
        """Test a change (n,) against the labels; None where agreement is undefined.

        It is where nothing or everything is expected, where no latent changed (early stopping kept the untrained
        adapter), and where the strata leave nothing to exchange.
        """
        if not self.is_testable() or np.ptp(change) == 0:
            return None
        try:
            return agreement_test(
                change,
                self.labels,
                statistic=self.statistic,
                strata=self.confounds.strata,
                clusters=self.confounds.clusters,
                n_resamples=n_resamples,
                confidence_level=self.study.agreement.confidence_level,
                rng=self.study.seed,
            )
        except InputError as error:
            logger.warning("%s of behavior %d is undefined: %s", self.statistic, self.behavior, error)
            return None


def control_rows(study: config.Study, pair: Pair) -> Iterator[dict[str, Any]]:
    """Yield the row of each control that the study asks for."""
    for control in study.controls:
        if control == "random_dictionary" and pair.draws is None:
            continue
        row: dict[str, Any] = {"control": control, "n_seeds": len(pair.changes)} | pair.counts()
        yield row | (_CONTROLS[control](pair) if pair.is_testable() else {})


def _shuffled_explanations(pair: Pair) -> dict[str, Any]:
    """Give explanations to latents at random, many times."""
    rng = np.random.default_rng([pair.study.seed, pair.behavior])
    shuffles = np.array([rng.permutation(pair.labels) for _ in range(N_SHUFFLES)])
    return _pooled(pair, mean_rank(pair.changes)[None], shuffles)


def _mismatched_behavior(pair: Pair) -> dict[str, Any]:
    """Take what the same explanations lead one to expect of each other behavior."""
    others = np.delete(pair.all_labels, pair.behavior, axis=0)
    others = others[[labels.min() != labels.max() for labels in others]]
    return _pooled(pair, mean_rank(pair.changes)[None], others) if len(others) else {}


def _random_dictionary(pair: Pair) -> dict[str, Any]:
    """Train on SAEs whose decoder rows are permuted; every seed draws its own permutation."""
    return _pooled(pair, pair.draws, pair.labels[None])


def _firing_rate_only(pair: Pair) -> dict[str, Any]:
    """Put the latents' firing rates in the place of their changes."""
    result = pair.test(pair.confounds.firing_rate, _n_resamples(pair))
    return {} if result is None else result_columns(result)


def _pooled(pair: Pair, changes: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    varied = changes[np.ptp(changes, axis=1) > 0]
    if pair.statistic not in ("auroc", "spearman") or not len(varied):
        return {}
    result = pooled_agreement(
        varied,
        labels,
        statistic=pair.statistic,
        strata=pair.confounds.strata,
        clusters=pair.confounds.clusters,
        n_resamples=_n_resamples(pair),
        confidence_level=pair.study.agreement.confidence_level,
        rng=pair.study.seed,
    )
    return result_columns(result)


def result_columns(result: AgreementResult | PooledResult) -> dict[str, Any]:
    """Return the columns that a result fills."""
    return {
        "estimate": result.statistic,
        "ci_low": result.confidence_interval.low,
        "ci_high": result.confidence_interval.high,
        "pvalue": result.pvalue,
        "n_resamples": result.n_resamples,
    }


def _n_resamples(pair: Pair) -> int:
    return min(MAX_RESAMPLES, pair.study.agreement.n_resamples)


_CONTROLS = {
    "shuffled_explanations": _shuffled_explanations,
    "mismatched_behavior": _mismatched_behavior,
    "firing_rate_only": _firing_rate_only,
    "random_dictionary": _random_dictionary,
}
