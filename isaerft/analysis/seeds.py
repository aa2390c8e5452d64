"""The rows of seeds.csv: whether the seeds of an adapter agree, and what agreement comes to seed by seed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from isaerft import config
from isaerft.analysis.inputs import Expectation, alive_latents, read_changes, read_expectation, sources_of
from isaerft.layout import SubjectFolder
from isaerft.report.selection import BOUNDS, CHANCE
from isaerft.stats import auroc, auroc_ceiling_of_seed, mean_interval, reliability, spearman
from isaerft.table import TABLES

LEAST_RELIABILITY = 0.5
"""Below this, less than half of the variance of the mean ranks is what seeds have in common: they disagree."""


def seeds_table(plan: config.Plan, results: Path) -> pd.DataFrame:
    """Return one row for each adapter, behavior and measure, at the primary source, judge and statistic."""
    rows: list[dict[str, Any]] = []
    for subject in plan.study.subjects:
        if plan.study.primary.source not in sources_of(plan, subject):
            continue
        alive = alive_latents(plan, SubjectFolder(results / "subjects" / subject).read_latents())
        path = results / "judgements" / subject / plan.study.primary.source / f"{plan.study.primary.judge}.parquet"
        expectation = read_expectation(plan, path, alive)
        for adapter in plan.analysed_adapters(subject):
            same = {"subject": subject, "adapter": adapter, "statistic": plan.study.primary.statistic}
            rows += [same | row for row in _rows(plan, results, subject, adapter, expectation)]
    return pd.DataFrame(rows, columns=[column.name for column in TABLES["seeds"]])


def _rows(
    plan: config.Plan, results: Path, subject: str, adapter: str, expectation: Expectation
) -> Iterator[dict[str, Any]]:
    changes = read_changes(plan, results / "changes", subject, adapter)
    for index, behavior in enumerate(plan.tested_behaviors):
        for measure in plan.study.measures:
            own = changes[behavior, measure][:, expectation.latents]
            same = {"behavior": behavior, "measure": measure, "n_seeds": len(own)}
            yield same | _stability(own) | _agreement(plan, own, expectation, index)


def _stability(changes: np.ndarray) -> dict[str, Any]:
    """Return how reliably the seeds of `changes` (n_seeds, n) rank latents, and a word for it."""
    if len(changes) < 2:
        return {}
    if (np.ptp(changes, axis=1) == 0).any():
        return {"seeds": "unchanged"}
    found = reliability(changes)
    return {
        "reliability_single": found.icc_single,
        "reliability": found.icc_mean,
        "split_half": found.split_half,
        "seeds": "agree" if found.icc_mean >= LEAST_RELIABILITY else "disagree",
    }


def _agreement(plan: config.Plan, changes: np.ndarray, expectation: Expectation, behavior: int) -> dict[str, Any]:
    """Return the mean over seeds of the agreement, its interval over seeds, and its share of what seeds allow."""
    statistic = plan.study.primary.statistic
    labels = (expectation.expected if statistic == "auroc" else expectation.effect)[behavior]
    if labels.min() == labels.max() or (np.ptp(changes, axis=1) == 0).any():
        return {}
    value_of = auroc if statistic == "auroc" else spearman
    values = np.array([float(value_of(change, labels)) for change in changes])
    interval = mean_interval(values, plan.study.agreement.confidence_level, BOUNDS[statistic])
    estimate, ceiling = float(values.mean()), _ceiling(changes, labels, statistic)
    chance = CHANCE[statistic]
    share = (estimate - chance) / (ceiling - chance) if ceiling > chance else math.nan
    return {"estimate": estimate, "ci_low": interval.low, "ci_high": interval.high, "share_of_ceiling": share}


def _ceiling(changes: np.ndarray, labels: np.ndarray, statistic: str) -> float:
    """Return the highest agreement to hope for with a single seed; NaN with one seed."""
    if len(changes) < 2:
        return math.nan
    if statistic == "auroc":
        return auroc_ceiling_of_seed(changes, int(labels.sum()))
    single = reliability(changes).icc_single
    return math.sqrt(single) if single > 0 else math.nan
