"""The rows of agreement.csv, specificity.csv, overall.csv and source_comparison.csv for one (subject, adapter)."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from isaerft import config
from isaerft.analysis.across import Across
from isaerft.analysis.controls import Confound, Pair, Pool, answers, control_of
from isaerft.analysis.inputs import (
    Confounds,
    Expectation,
    alive_latents,
    confounds_of,
    judges_of,
    read_changes,
    read_expectation,
    sources_of,
)
from isaerft.analysis.sources import compared_sources
from isaerft.explanations import read_explanations, read_sample
from isaerft.io import replacing
from isaerft.layout import SubjectFolder
from isaerft.registry import MEASURES
from isaerft.stats import auroc_ceiling, minimum_detectable_correlation, minimum_detectable_effect, reliability
from isaerft.table import TABLES

logger = logging.getLogger(__name__)


AGREEMENT, SPECIFICITY, OVERALL = "agreement.parquet", "specificity.parquet", "overall.parquet"
COMPARISON = "source_comparison.parquet"


@dataclass(frozen=True)
class Reading:
    """One way to read the explanations of a subject: a source and a judge, with what they expect.

    Attributes
    ----------
    explanation_length : (n,) int64
        Characters of each explanation.
    """

    source: str
    judge: str
    expectation: Expectation
    confounds: Confounds
    explanation_length: np.ndarray


def write_agreement(
    plan: config.Plan,
    subject: str,
    adapter: str,
    subject_dir: str | Path,
    changes: str | Path,
    explanations: str | Path,
    judgements: str | Path,
    out: str | Path,
    sample: str | Path | None = None,
) -> None:
    """Test every (behavior, measure, source, judge) of one adapter with its controls; write the parts under `out`.

    `sample` is the subject's sample of latents, which sources of the case_control design speak of.
    """
    facts = SubjectFolder(Path(subject_dir)).read_latents()
    own = read_changes(plan, changes, subject, adapter)
    twin = next((name for name, base in plan.permuted_subjects.items() if base == subject), None)
    random = read_changes(plan, changes, twin, adapter) if twin and adapter in plan.analysed_adapters(twin) else {}
    exchanged = _exchanged(plan, changes, subject) if adapter == plan.study.primary.adapter else {}
    agreement, specificity, overall = [], [], []
    whole: dict[tuple[str, str, str], Across] = {}
    drawn = None if sample is None else read_sample(sample)
    sources = [
        name for name in sources_of(plan, subject) if adapter in (plan.study.sources[name].adapters or [adapter])
    ]
    readings = list(_readings(plan, sources, Path(explanations), Path(judgements), facts, drawn))
    for reading in tqdm(readings, desc="agreement", disable=None):
        same = {"subject": subject, "adapter": adapter, "source": reading.source, "judge": reading.judge}
        for statistic in plan.study.agreement.statistics:
            agreement += [same | row for row in _rows(plan, reading, statistic, own, random, exchanged)]
        for measure in plan.study.measures:
            across = Across(plan, reading.expectation, reading.confounds, measure, own)
            whole[reading.judge, measure, reading.source] = across
            specificity += [same | {"measure": measure} | row for row in across.cells()]
            overall += [same | {"measure": measure} | row for row in across.rows()]
    comparison = [{"subject": subject, "adapter": adapter} | row for row in _comparison(plan, whole)]
    with replacing(out) as temporary:
        temporary.mkdir()
        _frame(agreement, "agreement").to_parquet(temporary / AGREEMENT, index=False)
        _frame(specificity, "specificity").to_parquet(temporary / SPECIFICITY, index=False)
        _frame(overall, "overall").to_parquet(temporary / OVERALL, index=False)
        _frame(comparison, "source_comparison").to_parquet(temporary / COMPARISON, index=False)


def _frame(rows: list[dict[str, Any]], table: str) -> pd.DataFrame:
    """Return rows as the table's columns, empty where no row has a value."""
    columns = [column.name for column in TABLES[table] if column.name not in ("qvalue", "primary")]
    return pd.DataFrame(rows, columns=columns)


def _comparison(plan: config.Plan, whole: Mapping[tuple[str, str, str], Across]) -> Iterator[dict[str, Any]]:
    """Yield the rows of source_comparison.csv from (judge, measure, source) -> what all behaviors say."""
    for judge, sources in plan.compared_sources.items():
        for measure in plan.study.measures:
            read = {name: whole[judge, measure, name] for name in sources if (judge, measure, name) in whole}
            for row in compared_sources(plan, read):
                yield {"judge": judge, "measure": measure} | row


def _readings(
    plan: config.Plan,
    sources: list[str],
    explanations: Path,
    judgements: Path,
    facts: pd.DataFrame,
    drawn: pd.DataFrame | None,
) -> Iterator[Reading]:
    for source in sources:
        sample = drawn if plan.design_of(source) == "case_control" else None
        alive = alive_latents(plan, facts)
        dropped: dict[str, int] = {"dead": len(facts) - len(alive)}
        if sample is not None:
            dropped["not sampled"] = len(alive) - len(sample)
            alive = sample.latent_index.to_numpy()
        said = read_explanations(explanations / f"{source}.parquet").set_index("latent_index")["explanation"].str.len()
        for judge in judges_of(plan, source, tested=True):
            expectation = read_expectation(plan, judgements / source / f"{judge}.parquet", alive)
            left_out = dropped | {"unexplained or unjudged": len(alive) - len(expectation.latents)}
            logger.info("%s, %s: %d latents; left out: %s", source, judge, len(expectation.latents), left_out)
            confounds = confounds_of(plan, facts, expectation.latents, sample)
            length = said.loc[expectation.latents].to_numpy(np.int64)
            yield Reading(source, judge, expectation, confounds, length)


def _exchanged(plan: config.Plan, changes: str | Path, subject: str) -> dict[tuple[str, str], np.ndarray]:
    """Return (behavior, measure) -> changes of the primary adapter from shuffled completions; none if not asked for."""
    twins = plan.shuffled_behaviors
    found = read_changes(plan, changes, subject, plan.study.primary.adapter, list(twins))
    return {(twins[twin], measure): change for (twin, measure), change in found.items()}


def _rows(
    plan: config.Plan, reading: Reading, statistic: str, own: Any, random: Any, exchanged: Any
) -> Iterator[dict[str, Any]]:
    """Yield every row of one statistic: measure by measure, behavior by behavior, the result before its controls."""
    latents = reading.expectation.latents
    rows, pairs, asked = [], [], []
    for measure in plan.study.measures:
        for index, behavior in enumerate(plan.tested_behaviors):
            changes = own[behavior, measure][:, latents]
            draws = random[behavior, measure][:, latents] if random else None
            shuffled = exchanged[behavior, measure][:, latents] if exchanged else None
            pair = Pair(
                plan,
                reading.expectation,
                reading.confounds,
                index,
                changes,
                draws,
                shuffled,
                statistic,
                reading.explanation_length,
            )
            same = {"measure": measure, "behavior": behavior, "statistic": statistic, "n_seeds": len(changes)}
            same |= pair.counts()
            for control in _controls(plan, reading, pair):
                rows.append(same | {"control": control})
                pairs.append(pair)
                asked.append(_asked(pair, measure, control))
    for row, pair, answer in zip(rows, pairs, answers(pairs, asked), strict=True):
        null = {name: answer.pop(name) for name in ("null_mean", "null_sd") if name in answer}
        yield row | answer | (_limits(pair, null) if null and row["control"] == "none" else {})


def _asked(pair: Pair, measure: str, control: str) -> np.ndarray | Confound | Pool | None:
    """Return what the result or a control asks; nothing where the statistic wants a direction that is not there."""
    if pair.kind.facts.directed and not MEASURES.facts(measure).directed:
        return None
    return pair.change if control == "none" else control_of(control, pair)


def _controls(plan: config.Plan, reading: Reading, pair: Pair) -> list[str]:
    """Return the result itself and the controls beside it; an arm with known wrong explanations is a control itself."""
    if plan.study.sources[reading.source].wrong_share:
        return ["none"]
    trained = {"random_dictionary": pair.draws, "shuffled_completions": pair.exchanged}
    return ["none", *(name for name in plan.study.controls if trained.get(name, pair) is not None)]


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
