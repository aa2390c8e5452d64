"""Running-sum enrichment of the expected latents among the most changed, as in gene set enrichment analysis.

Walk down the latents from the most to the least changed. Each expected latent lifts the sum by its share of the
expected latents' weight, each other one lowers it by 1 / n_unexpected; the enrichment is the sum's largest deviation
from zero, with its sign (Subramanian et al. 2005, PNAS 102:15545). A latent weighs its midrank, not its raw change
(as in Barbie et al. 2009), so the score does not depend on the measure's scale; the sum is read only after whole
groups of tied changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from isaerft.registry import STATISTICS
from isaerft.stats.checks import as_binary, as_change, as_expected
from isaerft.stats.statistics import Statistic


@dataclass(frozen=True)
class EnrichmentScorer:
    """The running-sum score bound to changes: latents in descending order, weights, the last of each tie group."""

    labels: np.ndarray
    order: np.ndarray
    weights: np.ndarray
    ends: np.ndarray

    def __call__(self, labels: np.ndarray) -> np.ndarray:
        """Return the enrichment (m,) of each label set in `labels` (m, n)."""
        hits = labels[:, self.order]
        lifted = np.cumsum(hits * self.weights, axis=1)[:, self.ends]
        lowered = np.cumsum(~hits, axis=1)[:, self.ends]
        running = lifted / lifted[:, -1:] - lowered / lowered[:, -1:]
        highest, lowest = running.max(axis=1), running.min(axis=1)
        return np.where(highest >= -lowest, highest, lowest)


def _bind(change: np.ndarray, labels: np.ndarray) -> EnrichmentScorer:
    order = np.argsort(-change, kind="stable")
    ends = np.flatnonzero(np.diff(change[order], append=-np.inf))
    return EnrichmentScorer(labels, order, rankdata(change)[order], ends)


def enrichment(change: Any, expected: Any) -> np.ndarray:
    """Return the running-sum enrichment score, -1 to 1, of each label set.

    `change` (n,) float, `expected` (..., n) bool, result (...); NaN for a label set with all or none expected. Its
    mean without agreement is not 0 (a largest deviation never is): read it beside the null mean.
    """
    change = as_change(change)
    labels = as_binary(expected, change.size)
    with np.errstate(invalid="ignore", divide="ignore"):
        return _bind(change, labels)(labels.reshape(-1, change.size)).reshape(labels.shape[:-1])


# No interval: the bootstrap of a maximum's absolute deviation is inconsistent near zero, where it is asked for.
STATISTICS("enrichment")(
    Statistic(lambda change, expected, strata: _bind(change, as_expected(expected, change.size)), interval="none")
)
