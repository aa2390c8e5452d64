"""agreement.csv: did the latents change that were expected to? The result and all its controls.

The rule `agreement` tests one adapter of one subject at a time and writes its rows of this table and of specificity,
overall and source_comparison; the tables collect them and adjust p-values.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from tqdm import tqdm

from isaerft import stats
from isaerft.analysis.base import Analysis, ResultTable, is_primary, with_qvalues
from isaerft.analysis.columns import (
    ADAPTER,
    BEHAVIOR,
    CI_HIGH,
    CI_LOW,
    FAMILY,
    JUDGE,
    MEASURE,
    N_EXPECTED,
    N_LATENTS,
    N_SEEDS,
    PRIMARY,
    QVALUE_OF_FAMILIES,
    SOURCE,
    STATISTIC,
    SUBJECT,
)
from isaerft.analysis.controls import Comparison, Tested, control, controls_of, run_tests
from isaerft.analysis.matrix import BehaviorMatrix
from isaerft.analysis.overall import TABLE as OVERALL
from isaerft.analysis.overall import overall_rows
from isaerft.analysis.readings import Changes, Reading, read_changes, readings
from isaerft.analysis.source_comparison import TABLE as SOURCE_COMPARISON
from isaerft.analysis.source_comparison import comparison_rows
from isaerft.analysis.specificity import TABLE as SPECIFICITY
from isaerft.analysis.specificity import specificity_rows
from isaerft.config import Plan
from isaerft.io import replacing
from isaerft.layout import AgreementFolder, Results
from isaerft.registry import MEASURES
from isaerft.table import Column

logger = logging.getLogger(__name__)

RESULT = "none"
"""Value of the column `control` in the rows of results themselves."""


def agreement(analysis: Analysis) -> pd.DataFrame:
    """Return the rows of all adapters with q-values; a family is one question about all behaviors."""
    table = analysis.tested("agreement")
    primary = is_primary(analysis.plan, table) & (table.control == RESULT)
    question = ("subject", "adapter", "measure", "source", "judge", "statistic")
    return with_qvalues(analysis.plan, table.assign(primary=primary), question, table.control == RESULT)


def write_agreement(plan: Plan, results: Results, subject: str, adapter: str) -> None:
    """Test every (behavior, measure, source, judge) of one adapter with its controls, and write the rows.

    They lie under `results.agreement(subject, adapter)`, one Parquet file for each of the four tables, without the
    columns that only all adapters together can fill.
    """
    changes = _Changed.read(plan, results, subject, adapter)
    rows: dict[str, list[dict[str, object]]] = {table.name: [] for table in (TABLE, SPECIFICITY, OVERALL)}
    matrices: dict[tuple[str, str, str], BehaviorMatrix] = {}
    read = list(readings(plan, results, subject, sources=plan.sources_of(subject, adapter)))
    for reading in tqdm(read, desc="agreement", disable=None):
        source, judge, n_latents = reading.source, reading.judge, len(reading.latents)
        logger.info("%s, %s: %d latents; left out: %s", source, judge, n_latents, reading.left_out)
        same = reading.names | {"adapter": adapter}
        for statistic in plan.study.agreement.statistics:
            rows["agreement"] += [same | row for row in _agreement_rows(plan, reading, statistic, changes)]
        for measure in plan.study.measures:
            matrix = BehaviorMatrix(plan, reading.expectation, reading.confounds, measure, changes.own)
            matrices[judge, measure, source] = matrix
            rows["specificity"] += [same | {"measure": measure} | row for row in specificity_rows(matrix)]
            rows["overall"] += [same | {"measure": measure} | row for row in overall_rows(matrix)]
    same = {"subject": subject, "adapter": adapter}
    rows["source_comparison"] = [same | row for row in _comparisons(plan, matrices)]
    with replacing(results.agreement(subject, adapter).path) as temporary:
        temporary.mkdir()
        for table in (TABLE, SPECIFICITY, OVERALL, SOURCE_COMPARISON):
            columns = [name for name in table.column_names if name not in ("family", "qvalue", "primary")]
            frame = pd.DataFrame(rows[table.name], columns=columns)
            frame.to_parquet(AgreementFolder(temporary).rows(table.name), index=False)


class _Changed:
    """Changes of one adapter: its own, on random dictionaries, and from exchanged completions; empty if not made."""

    def __init__(self, own: Changes, random: Changes, exchanged: Changes) -> None:
        self.own, self.random, self.exchanged = own, random, exchanged

    @classmethod
    def read(cls, plan: Plan, results: Results, subject: str, adapter: str) -> _Changed:
        twin = plan.random_twin(subject)
        random: Changes = {}
        exchanged: Changes = {}
        if twin and adapter in plan.analyzed_adapters(twin):
            random = read_changes(plan, results, twin, adapter)
        if adapter == plan.study.primary.adapter:
            twins = plan.shuffled_behaviors
            found = read_changes(plan, results, subject, adapter, list(twins))
            exchanged = {(twins[name], measure): change for (name, measure), change in found.items()}
        return cls(read_changes(plan, results, subject, adapter), random, exchanged)

    def comparison(self, plan: Plan, reading: Reading, behavior: str, measure: str, statistic: str) -> Comparison:
        def on_universe(changes: Changes) -> np.ndarray | None:
            return changes[behavior, measure][:, reading.latents] if changes else None

        own = self.own[behavior, measure][:, reading.latents]
        place = reading.behaviors.index(behavior)
        return Comparison(plan, reading, place, own, on_universe(self.random), on_universe(self.exchanged), statistic)


def _agreement_rows(plan: Plan, reading: Reading, statistic: str, changes: _Changed) -> Iterator[dict[str, object]]:
    """Yield every row of one statistic: measure by measure, behavior by behavior, the result before its controls."""
    rows, comparisons, tested = [], [], []
    for measure in plan.study.measures:
        for behavior in reading.behaviors:
            comparison = changes.comparison(plan, reading, behavior, measure, statistic)
            same = {
                "measure": measure,
                "behavior": behavior,
                "statistic": statistic,
                "n_seeds": len(comparison.changes),
                "n_latents": len(comparison.labels),
                "n_expected": comparison.n_expected,
            }
            for name in [RESULT, *controls_of(comparison)]:
                rows.append(same | {"control": name})
                comparisons.append(comparison)
                tested.append(_tested(comparison, measure, name))
    for row, comparison, found in zip(rows, comparisons, run_tests(comparisons, tested), strict=True):
        null: dict[str, float] = {name: found.pop(name) for name in ("null_mean", "null_sd") if name in found}
        yield row | found | ({"noise_ceiling": _noise_ceiling(comparison)} if null and row["control"] == RESULT else {})


def _tested(comparison: Comparison, measure: str, name: str) -> Tested:
    """Return what the result or a control tests; nothing where the statistic wants a direction that is not there."""
    if comparison.kind.facts.directed and not MEASURES.facts(measure).directed:
        return None
    return comparison.change if name == RESULT else control(name, comparison)


def _noise_ceiling(comparison: Comparison) -> float:
    # A seed that kept its untrained adapter changed nothing, and seeds cannot be compared.
    if len(comparison.changes) < 2 or (np.ptp(comparison.changes, axis=1) == 0).any():
        return math.nan
    if comparison.statistic == "spearman":
        return stats.spearman_ceiling_of_mean(comparison.changes, comparison.labels)
    if comparison.statistic == "auroc":
        return stats.auroc_ceiling_of_mean(comparison.changes, comparison.n_expected)
    return math.nan


def _comparisons(plan: Plan, matrices: Mapping[tuple[str, str, str], BehaviorMatrix]) -> Iterator[dict[str, object]]:
    """Yield the rows of source_comparison from matrices by (judge, measure, source)."""
    for judge, sources in plan.compared_sources.items():
        for measure in plan.study.measures:
            of_judge = {name: matrices[judge, measure, name] for name in sources if (judge, measure, name) in matrices}
            for row in comparison_rows(plan, of_judge):
                yield {"judge": judge, "measure": measure} | row


TABLE = ResultTable(
    name="agreement",
    order=200,
    caption=(
        "How well expected and measured changes agree over latents, for every combination and every control. "
        "Compare each result with its controls."
    ),
    columns=(
        SUBJECT,
        BEHAVIOR,
        ADAPTER,
        MEASURE,
        SOURCE,
        JUDGE,
        Column("control", "text", "none for the result itself; otherwise the control that takes its place."),
        STATISTIC,
        Column(
            "estimate",
            "float",
            "Value of the statistic over latents (by chance: 0.5 for auroc, 0 for spearman, for sign_agreement that of "
            "its row shuffled_explanations).",
            optional=True,
        ),
        CI_LOW,
        CI_HIGH,
        Column(
            "pvalue",
            "float",
            "Probability of so high an estimate if explanations and changes were unrelated (exchange test).",
            optional=True,
        ),
        QVALUE_OF_FAMILIES,
        FAMILY,
        N_LATENTS,
        N_EXPECTED,
        N_SEEDS,
        Column("n_resamples", "int", "Exchanges behind the p-value.", optional=True),
        Column(
            "noise_ceiling",
            "float",
            "Highest estimate to expect of perfect explanations, given how well the mean over these seeds is known.",
            optional=True,
        ),
        Column(
            "minimum_detectable_effect",
            "float",
            "Smallest true value of the statistic that this test would detect.",
            optional=True,
        ),
        PRIMARY,
    ),
    make=agreement,
)
