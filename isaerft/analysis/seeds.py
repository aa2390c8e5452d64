"""seeds.csv: whether the seeds of an adapter agree, and agreement seed by seed."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from isaerft import stats
from isaerft.analysis.base import Analysis, ResultTable
from isaerft.analysis.columns import ADAPTER, BEHAVIOR, MEASURE, STATISTIC, SUBJECT, ci_columns
from isaerft.analysis.readings import Reading
from isaerft.config import Plan
from isaerft.registry import STATISTICS
from isaerft.table import Column

LEAST_RELIABILITY = 0.5
"""Below this, seeds share less than half of the variance of the mean ranks: they disagree."""


def seeds(analysis: Analysis) -> pd.DataFrame:
    """Return one row for each adapter, behavior and measure, at the primary source, judge and statistic."""
    rows: list[dict[str, object]] = []
    for subject in analysis.plan.study.subjects:
        reading = analysis.primary_reading(subject)
        if reading is None:
            continue
        for adapter in analysis.plan.analyzed_adapters(subject):
            same = {"subject": subject, "adapter": adapter, "statistic": analysis.plan.study.primary.statistic}
            rows += [same | row for row in _rows(analysis, reading, subject, adapter)]
    return pd.DataFrame(rows, columns=TABLE.column_names)


def _rows(analysis: Analysis, reading: Reading, subject: str, adapter: str) -> Iterator[dict[str, object]]:
    changes = analysis.changes(subject, adapter)
    for index, behavior in enumerate(reading.behaviors):
        for measure in analysis.plan.study.measures:
            own = changes[behavior, measure][:, reading.latents]
            same = {"behavior": behavior, "measure": measure, "n_seeds": len(own)}
            yield same | _stability(own) | _agreement(analysis.plan, own, reading, index)


def _stability(changes: np.ndarray) -> dict[str, object]:
    """Return how reliably the seeds of `changes` (n_seeds, n) rank latents, and a word for it."""
    if len(changes) < 2:
        return {}
    if (np.ptp(changes, axis=1) == 0).any():
        return {"seeds": "unchanged"}
    found = stats.reliability(changes)
    return {
        "reliability_single": found.icc_single,
        "reliability": found.icc_mean,
        "split_half": found.split_half,
        "seeds": "agree" if found.icc_mean >= LEAST_RELIABILITY else "disagree",
    }


def _agreement(plan: Plan, changes: np.ndarray, reading: Reading, behavior: int) -> dict[str, float]:
    """Return the mean agreement over seeds, its interval over seeds, and its share of the noise ceiling."""
    statistic = plan.study.primary.statistic
    facts, expectation = STATISTICS.facts(statistic), reading.expectation
    labels = (expectation.effect if facts.graded else expectation.expected)[behavior]
    if labels.min() == labels.max() or (np.ptp(changes, axis=1) == 0).any():
        return {}
    values = stats.specificity_matrix(changes, labels[None], statistic=statistic)[:, 0]
    interval = stats.mean_interval(values, plan.study.agreement.confidence_level, facts.bounds)
    columns = {"estimate": float(values.mean()), "ci_low": interval.low, "ci_high": interval.high}
    ceiling = _noise_ceiling_of_seed(changes, labels, statistic)
    columns["noise_ceiling_of_seed"] = ceiling
    if facts.chance is None or not ceiling > facts.chance:
        return columns
    return columns | {"share_of_ceiling": (columns["estimate"] - facts.chance) / (ceiling - facts.chance)}


def _noise_ceiling_of_seed(changes: np.ndarray, labels: np.ndarray, statistic: str) -> float:
    """Return the highest agreement to expect of a single seed; NaN with one seed or where none is known."""
    if statistic == "auroc":
        return stats.auroc_ceiling_of_seed(changes, int(labels.sum()))
    if statistic == "spearman":
        return stats.spearman_ceiling_of_seed(changes, labels)
    return math.nan


TABLE = ResultTable(
    name="seeds",
    order=230,
    caption=(
        "Whether the seeds of each adapter agree on which latents changed, and how well each single seed agrees with "
        "the primary expectations. An adapter whose seeds disagree has no ranking of latents to test."
    ),
    columns=(
        SUBJECT,
        BEHAVIOR,
        ADAPTER,
        MEASURE,
        Column("n_seeds", "int", "Seeds compared."),
        Column(
            "reliability_single",
            "float",
            "Share of one seed's ranking of the latents that all seeds have in common (ICC(C,1) of ranks).",
            optional=True,
        ),
        Column(
            "reliability",
            "float",
            "The same for the mean over all seeds (ICC(C,k)); 1: seeds agree fully, 0 or less: not at all.",
            optional=True,
        ),
        Column(
            "split_half",
            "float",
            "The same from the correlation between halves of the seeds, by the Spearman-Brown formula.",
            optional=True,
        ),
        Column(
            "seeds",
            "text",
            "agree; disagree: reliability below 0.5, so the ranking of latents is mostly noise and the adapter should "
            "not be ranked among others; unchanged: a seed kept its untrained adapter.",
            optional=True,
        ),
        STATISTIC,
        Column(
            "estimate",
            "float",
            "Agreement of a single seed's changes with the primary expectations, mean over seeds.",
            optional=True,
        ),
        *ci_columns("the interval over seeds (Student's t), for another training on the same data"),
        Column(
            "noise_ceiling_of_seed",
            "float",
            "Highest estimate to expect of a single seed: that of an expectation of the same form (as many latents "
            "with each expected effect) in the order of what the other seeds changed.",
            optional=True,
        ),
        Column(
            "share_of_ceiling",
            "float",
            "How far the estimate is from chance (0) to noise_ceiling_of_seed (1); above 1 if explanations predict a "
            "seed better than the other seeds do.",
            optional=True,
        ),
    ),
    make=seeds,
)
