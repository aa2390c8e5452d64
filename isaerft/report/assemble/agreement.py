"""The rows of agreement.csv and specificity.csv for one (subject, adapter)."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from isaerft import config
from isaerft.files import replacing
from isaerft.report.assemble.controls import Pair, answers, control_of
from isaerft.report.assemble.inputs import (
    Confounds,
    Expectation,
    alive_latents,
    confounds_of,
    judges_of,
    read_changes,
    read_expectation,
    sources_of,
)
from isaerft.stats import (
    auroc_ceiling,
    mean_rank,
    minimum_detectable_correlation,
    minimum_detectable_effect,
    reliability,
    specificity_matrix,
)
from isaerft.subjects.paths import SubjectFolder
from isaerft.tables import TABLES

logger = logging.getLogger(__name__)
AGREEMENT, SPECIFICITY = "agreement.parquet", "specificity.parquet"


@dataclass(frozen=True)
class Reading:
    """One way to read the explanations of a subject: a source and a judge, with what they expect."""

    source: str
    judge: str
    expectation: Expectation
    confounds: Confounds


def write_agreement(
    study: config.Study,
    subject: str,
    adapter: str,
    subject_dir: str | Path,
    changes: str | Path,
    relevance: str | Path,
    out: str | Path,
) -> None:
    """Test every (behavior, measure, source, judge) of one adapter with its controls; write the parts under `out`."""
    facts = SubjectFolder(Path(subject_dir)).read_latents()
    own = read_changes(study, changes, subject, adapter)
    twin = next((name for name, base in study.permuted_subjects.items() if base == subject), None)
    random = read_changes(study, changes, twin, adapter) if twin and adapter in study.analysed_adapters(twin) else {}
    agreement, specificity = [], []
    readings = list(_readings(study, subject, relevance, facts))
    for reading in tqdm(readings, desc="agreement", disable=None):
        same = {"subject": subject, "adapter": adapter, "source": reading.source, "judge": reading.judge}
        for statistic in study.agreement.statistics:
            agreement += [same | row for row in _rows(study, reading, statistic, own, random)]
        for measure in study.measures:
            specificity += [same | {"measure": measure} | row for row in _specificity(study, reading, measure, own)]
    with replacing(out) as temporary:
        temporary.mkdir()
        _frame(agreement, "agreement").to_parquet(temporary / AGREEMENT, index=False)
        _frame(specificity, "specificity").to_parquet(temporary / SPECIFICITY, index=False)


def _frame(rows: list[dict[str, Any]], table: str) -> pd.DataFrame:
    """Return rows as the table's columns, empty where no row has a value."""
    columns = [column.name for column in TABLES[table] if column.name not in ("qvalue", "primary")]
    return pd.DataFrame(rows, columns=columns)


def _readings(study: config.Study, subject: str, relevance: str | Path, facts: pd.DataFrame) -> Iterator[Reading]:
    alive = alive_latents(study, facts)
    for source in sources_of(study, subject):
        for judge in judges_of(study, source, tested=True):
            expectation = read_expectation(study, Path(relevance) / source / f"{judge}.parquet", alive)
            dropped = len(facts) - len(alive), len(alive) - len(expectation.latents)
            logger.info(
                "%s, %s: %d latents; left out: %d dead, %d unexplained or unjudged",
                source,
                judge,
                len(expectation.latents),
                *dropped,
            )
            yield Reading(source, judge, expectation, confounds_of(study, facts, expectation.latents))


def _rows(study: config.Study, reading: Reading, statistic: str, own: Any, random: Any) -> Iterator[dict[str, Any]]:
    """Yield every row of one statistic: measure by measure, behavior by behavior, the result before its controls."""
    latents = reading.expectation.latents
    rows, pairs, asked = [], [], []
    for measure in study.measures:
        for index, behavior in enumerate(study.behaviors):
            changes = own[behavior, measure][:, latents]
            draws = random[behavior, measure][:, latents] if random else None
            pair = Pair(study, reading.expectation, reading.confounds, index, changes, draws, statistic)
            same = {"measure": measure, "behavior": behavior, "statistic": statistic, "n_seeds": len(changes)}
            same |= pair.counts()
            for control in _controls(study, reading, pair):
                rows.append(same | {"control": control})
                pairs.append(pair)
                asked.append(mean_rank(changes) if control == "none" else control_of(control, pair))
    for row, pair, answer in zip(rows, pairs, answers(pairs, asked), strict=True):
        null = {name: answer.pop(name) for name in ("null_mean", "null_sd") if name in answer}
        yield row | answer | (_limits(pair, null) if null and row["control"] == "none" else {})


def _controls(study: config.Study, reading: Reading, pair: Pair) -> list[str]:
    """Return the result itself and the controls beside it; an arm with known wrong explanations is a control itself."""
    if study.sources[reading.source].wrong_share:
        return ["none"]
    return ["none", *(name for name in study.controls if name != "random_dictionary" or pair.draws is not None)]


def _limits(pair: Pair, null: dict[str, float]) -> dict[str, float]:
    """Return how high the result could have been, and from where on it would have been seen."""
    return {"noise_ceiling": _ceiling(pair), "minimum_detectable_effect": _minimum_detectable(pair, null)}


def _ceiling(pair: Pair) -> float:
    # A seed that kept its untrained adapter changed nothing, and seeds cannot be compared.
    if len(pair.changes) < 2 or (np.ptp(pair.changes, axis=1) == 0).any():
        return math.nan
    if pair.statistic == "spearman":
        return reliability(pair.changes).noise_ceiling
    return auroc_ceiling(pair.changes, pair.n_expected) if pair.statistic == "auroc" else math.nan


def _minimum_detectable(pair: Pair, null: dict[str, float]) -> float:
    if pair.statistic == "auroc":
        return minimum_detectable_effect(len(pair.labels), pair.n_expected, **null)
    return minimum_detectable_correlation(**null) if pair.statistic == "spearman" else math.nan


def _specificity(study: config.Study, reading: Reading, measure: str, own: Any) -> Iterator[dict[str, Any]]:
    expectation = reading.expectation
    statistic = study.primary.statistic
    labels = expectation.effect if statistic == "spearman" else expectation.expected
    behaviors = list(study.behaviors)
    changes = np.array([mean_rank(own[name, measure][:, expectation.latents]) for name in behaviors])
    judged = np.flatnonzero(labels.min(axis=1) != labels.max(axis=1))
    changed = np.flatnonzero(np.ptp(changes, axis=1))
    matrix = np.full((len(behaviors), len(behaviors)), np.nan)
    if len(judged) and len(changed):
        matrix[np.ix_(changed, judged)] = specificity_matrix(changes[changed], labels[judged], statistic=statistic)
    for row, trained_on in enumerate(behaviors):
        for column, judged_for in enumerate(behaviors):
            yield {"trained_on": trained_on, "judged_for": judged_for, "estimate": matrix[row, column]}
