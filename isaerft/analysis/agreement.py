"""agreement.csv: did the latents change that were expected to? The result and all its controls.

The rule `agreement` tests one adapter of one subject at a time and writes its rows of this table and of specificity,
overall and source_comparison; the tables collect them and adjust p-values.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from isaerft import stats
from isaerft.analysis.base import Analysis, ResultTable, is_primary, with_qvalues
from isaerft.analysis.columns import (
    ADAPTER,
    BEHAVIOR,
    CI,
    FAMILY,
    JUDGE,
    MEASURE,
    N_EXPECTED,
    N_LATENTS,
    N_SEEDS,
    PRIMARY,
    PROVENANCE,
    QVALUE_OF_FAMILIES,
    SOURCE,
    STATISTIC,
    SUBJECT,
    ci_columns,
)
from isaerft.analysis.controls import (
    Comparison,
    Tested,
    control,
    controls_of,
    estimate_of,
    exchange_texts,
)
from isaerft.analysis.matrix import BehaviorMatrix
from isaerft.analysis.overall import TABLE as OVERALL
from isaerft.analysis.overall import overall_rows, reseeded_estimates
from isaerft.analysis.placebos import read_placebos
from isaerft.analysis.readings import LATENTS_PER_TEXT, Changes, Reading, explained_latents, read_changes, readings
from isaerft.analysis.source_comparison import TABLE as SOURCE_COMPARISON
from isaerft.analysis.source_comparison import comparison_rows
from isaerft.analysis.specificity import TABLE as SPECIFICITY
from isaerft.analysis.specificity import specificity_rows
from isaerft.config import RETRAINED, Plan
from isaerft.io import replacing
from isaerft.layout import AgreementFolder, Results
from isaerft.progress import Progress
from isaerft.registry import MEASURES
from isaerft.table import Column

logger = logging.getLogger(__name__)

RESULT = "none"
"""Value of the column `control` in the rows of results themselves."""
LATER = ("family", "qvalue", "provenance", "primary")
"""Columns of the tables that need all adapters, or the explanations, and are filled when the tables are made."""
RESEEDED = "reseeded"
"""Column beside those of the tables: the estimate without each seed in turn, a list; of agreement.csv the primary rows'
and their controls' alone."""
TRAINED = (RESULT, *RETRAINED)
"""Rows that are about one training, and are compared with other trainings."""


def agreement(analysis: Analysis) -> pd.DataFrame:
    """Return the rows of all adapters with q-values; a family is one question about all behaviors."""
    table = analysis.tested("agreement")
    if analysis.plan.baselines:
        table = pd.concat([table, analysis.of_baselines("agreement")], ignore_index=True)
    primary = is_primary(analysis.plan, table) & (table.control == RESULT)
    question = ("subject", "adapter", "measure", "source", "judge", "statistic")
    table = table.assign(primary=primary, provenance=analysis.provenance(table))
    return with_qvalues(analysis.plan, table, question, table.control == RESULT)


def write_agreement(plan: Plan, results: Results, subject: str, adapter: str) -> None:
    """Test every (behavior, measure, source, judge) of one adapter with its controls, and write the rows.

    They lie under `results.agreement(subject, adapter)`, one Parquet file for each of the four tables, without the
    columns that are filled when the tables are made (`LATER`), and with `RESEEDED`.
    """
    changes = _Changed.read(plan, results, subject, adapter)
    rows: dict[str, list[dict[str, object]]] = {table.name: [] for table in (TABLE, SPECIFICITY, OVERALL)}
    matrices: dict[tuple[str, str, str], BehaviorMatrix] = {}
    primary: Reading | None = None
    read = list(readings(plan, results, subject, sources=plan.sources_of(subject, adapter)))
    for reading in Progress(read, desc="agreement"):
        source, judge, n_latents = reading.source, reading.judge, len(reading.latents)
        logger.info("%s, %s: %d latents; left out: %s", source, judge, n_latents, reading.left_out)
        same = reading.names | {"adapter": adapter}
        for statistic in plan.study.agreement.statistics:
            of_measure = {measure: changes.matrix(plan, reading, measure, statistic) for measure in plan.study.measures}
            rows["agreement"] += [same | row for row in _agreement_rows(plan, reading, of_measure, changes)]
            if statistic != plan.study.primary.statistic:
                continue
            if (adapter, source, judge) == _primary_names(plan):
                primary = reading
            for measure, matrix in of_measure.items():
                matrices[judge, measure, source] = matrix
                rows["specificity"] += [same | {"measure": measure} | row for row in specificity_rows(matrix)]
                rows["overall"] += [same | {"measure": measure} | row for row in overall_rows(matrix)]
    same = {"subject": subject, "adapter": adapter}
    rows["source_comparison"] = [same | row for row in _comparisons(plan, matrices)]
    _add_reseeded(rows, plan, changes, matrices, primary)
    with replacing(results.agreement(subject, adapter).path) as temporary:
        temporary.mkdir()
        for table in (TABLE, SPECIFICITY, OVERALL, SOURCE_COMPARISON):
            columns = [name for name in table.column_names if name not in LATER]
            columns += [RESEEDED] if table is not SPECIFICITY else []
            frame = pd.DataFrame(rows[table.name], columns=columns)
            frame.to_parquet(AgreementFolder(temporary).rows(table.name), index=False)


@dataclass(frozen=True)
class _Changed:
    """Changes of one adapter: its own, on random dictionaries, on behaviors' twins by control, of placebo trainings.

    Those that were not made are empty. Of all of them only `latents` (m,) int64 are kept: those that any source was
    asked for, ascending.
    """

    latents: np.ndarray
    own: Changes
    random: Changes
    retrained: Mapping[str, Changes]
    placebos: Mapping[str, np.ndarray]

    @classmethod
    def read(cls, plan: Plan, results: Results, subject: str, adapter: str) -> _Changed:
        asked = [part.asked for part in explained_latents(plan, results, subject, plan.sources_of(subject, adapter))]
        latents = np.unique(np.concatenate(asked)) if asked else np.empty(0, np.int64)
        twin = plan.random_twin(subject)
        random: Changes = {}
        retrained: dict[str, dict[tuple[str, str], np.ndarray]] = {}
        placebos: Mapping[str, np.ndarray] = {}
        if twin and adapter in plan.analyzed_adapters(twin):
            random = read_changes(plan, results, twin, adapter, latents=latents)
        if adapter == plan.study.primary.adapter and subject in plan.study.subjects:
            twins = plan.behavior_twins
            found = read_changes(plan, results, subject, adapter, list(twins), latents=latents)
            for (name, measure), change in found.items():
                behavior, control = twins[name]
                retrained.setdefault(control, {})[behavior, measure] = change
            placebos = read_placebos(plan, results, subject, latents=latents)
        own = read_changes(plan, results, subject, adapter, latents=latents)
        return cls(latents, own, random, retrained, placebos)

    @property
    def n_seeds(self) -> int:
        """Seeds that every training has."""
        return min(map(len, self.own.values()))

    def without(self, seed: int) -> _Changed:
        """Return the same without one seed of all behaviors at once: their trainings may share its draws."""

        def left(changes_of: Changes) -> Changes:
            return {
                key: np.delete(changes, seed, axis=0) if seed < len(changes) else changes
                for key, changes in changes_of.items()
            }

        retrained = {control: left(changes) for control, changes in self.retrained.items()}
        return _Changed(self.latents, left(self.own), left(self.random), retrained, {})

    def matrix(self, plan: Plan, reading: Reading, measure: str, statistic: str) -> BehaviorMatrix:
        own, placebos, kept = self.own, self.placebos, self.latents
        read = reading.expectation, reading.confounds
        return BehaviorMatrix(plan, *read, measure, statistic, own, placebos=placebos, kept=kept)

    def comparison(self, plan: Plan, reading: Reading, matrix: BehaviorMatrix, place: int) -> Comparison:
        places = np.searchsorted(self.latents, reading.latents)

        def on_universe(changes: Changes) -> np.ndarray:
            return changes[reading.behaviors[place], matrix.measure][:, places]

        own = self.own[reading.behaviors[place], matrix.measure][:, places]
        retrained = {control: on_universe(changes) for control, changes in self.retrained.items()}
        return Comparison(
            plan, reading, place, own, on_universe(self.random) if self.random else None, retrained, matrix
        )


def _agreement_rows(
    plan: Plan, reading: Reading, matrices: Mapping[str, BehaviorMatrix], changes: _Changed
) -> Iterator[dict[str, object]]:
    """Yield every row of one statistic: measure by measure, behavior by behavior, the result before its controls."""
    rows: list[dict[str, object]] = []
    trained: list[tuple[dict[str, object], Comparison, np.ndarray]] = []
    for measure, matrix in matrices.items():
        for place, behavior in enumerate(reading.behaviors):
            comparison = changes.comparison(plan, reading, matrix, place)
            same = {
                "measure": measure,
                "behavior": behavior,
                "statistic": matrix.statistic,
                "n_seeds": len(comparison.changes),
                "n_latents": len(comparison.labels),
                "n_expected": comparison.n_expected,
                **_texts(reading, place),
            }
            for name in [RESULT, *controls_of(comparison)]:
                what, row = _tested(comparison, measure, name), same | {"control": name}
                rows.append(row)
                if name not in TRAINED:
                    row |= estimate_of(comparison, what)
                elif isinstance(what, np.ndarray):
                    row |= _against_trainings(plan, matrix, place, None if name == RESULT else what)
                    trained.append((row, comparison, what))
    found = exchange_texts([comparison for _, comparison, _ in trained], [change for *_, change in trained])
    for (row, comparison, _), columns in zip(trained, found, strict=True):
        row |= columns
        if row["control"] == RESULT and "estimate" in row:
            row["noise_ceiling"] = _noise_ceiling(comparison)
    yield from rows


def _texts(reading: Reading, place: int) -> dict[str, object]:
    """Return how many different explanation texts there are, and how many of them are expected."""
    texts = reading.confounds.texts
    expected = texts[reading.expectation.expected[place]]
    return {"n_texts": len(np.unique(texts)), "n_expected_texts": len(np.unique(expected))}


def _tested(comparison: Comparison, measure: str, name: str) -> Tested:
    """Return what the result or a control tests; nothing where the statistic wants a direction that is not there."""
    if comparison.kind.facts.directed and not MEASURES.facts(measure).directed:
        return None
    return comparison.change if name == RESULT else control(name, comparison)


def _against_trainings(plan: Plan, matrix: BehaviorMatrix, place: int, change: np.ndarray | None) -> dict[str, object]:
    """Return the columns in which a training is compared with the other trainings, for the same expectations.

    `change` (n,) is that of the training; None: of the behavior's own, whose values the matrix has.
    """
    if change is None:
        raw, own = float(matrix.values[place, place]), float(matrix.adjusted[place, place])
    else:
        only = [place]
        raw, own = (float(matrix.values_of(change[None], only, adjusted=which)[0, 0]) for which in (False, True))
    if not np.isfinite(own):
        return {}
    level, bounds = plan.study.agreement.confidence_level, matrix.kind.facts.bounds
    column, families = matrix.adjusted[:, place], matrix.families
    found = stats.against_others(own, stats.others_of(column, place, families), confidence_level=level, bounds=bounds)
    unadjusted = stats.others_of(matrix.values[:, place], place, families)
    interval = stats.against_others(raw, unadjusted, confidence_level=level, bounds=bounds).confidence_interval
    placebos = matrix.placebo_values[:, place]
    placebos = placebos[np.isfinite(placebos)]
    return {
        "estimate": raw,
        "ci_low": interval.low,
        "ci_high": interval.high,
        "ci_over": "trainings" if np.isfinite(interval.low) else None,
        "adjusted_estimate": own,
        "adjusted_ci_low": found.confidence_interval.low,
        "adjusted_ci_high": found.confidence_interval.high,
        "pvalue": found.pvalue,
        "null_mean": found.null_mean,
        "null_sd": found.null_sd,
        "n_others": found.n_others,
        "minimum_detectable_effect": found.minimum_detectable_effect(),
        "pvalue_placebo": stats.placebo_pvalue(own, placebos),
        "placebo_mean": float(placebos.mean()) if len(placebos) else math.nan,
        "placebo_sd": float(placebos.std(ddof=1)) if len(placebos) > 1 else math.nan,
        "n_placebos": len(placebos),
    }


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


def _primary_names(plan: Plan) -> tuple[str, str, str]:
    primary = plan.study.primary
    return primary.adapter, primary.source, primary.judge


def _add_reseeded(
    rows: Mapping[str, list[dict[str, object]]],
    plan: Plan,
    changes: _Changed,
    matrices: Mapping[tuple[str, str, str], BehaviorMatrix],
    primary: Reading | None,
) -> None:
    """Add `RESEEDED` to rows whose estimate is known, and to those of overall.csv their reliable difference."""
    keys = {"overall": _KEYS, "source_comparison": _KEYS, "agreement": ("behavior", "control")}
    left_out: dict[tuple[str, ...], list[float]] = {}
    for seed in range(changes.n_seeds if changes.n_seeds > 1 else 0):
        for key, estimate in _estimates(plan, changes.without(seed), matrices, primary):
            left_out.setdefault(key, []).append(estimate)
    same = {"measure": plan.study.primary.measure, "statistic": plan.study.primary.statistic}
    if primary is not None:
        same |= {"source": primary.source, "judge": primary.judge}
    for table, names in keys.items():
        for row in rows[table]:
            known = pd.notna(row.get("estimate"))
            if table == "agreement" and (primary is None or any(row[name] != same[name] for name in same)):
                continue
            found = left_out.get((table, *(str(row[name]) for name in names)), [])
            row[RESEEDED] = found if known else None
            if table == "overall" and known:
                row["reliable_difference"] = stats.reliable_difference(found, plan.study.agreement.confidence_level)


_KEYS = ("judge", "measure", "source", "quantity")


def _estimates(
    plan: Plan, part: _Changed, matrices: Mapping[tuple[str, str, str], BehaviorMatrix], primary: Reading | None
) -> Iterator[tuple[tuple[str, ...], float]]:
    """Yield (table, names of the row) and the estimate of some of the seeds; of agreement.csv the primary rows'."""
    parts = {key: replace(matrix, changes_of=part.own, placebos={}) for key, matrix in matrices.items()}
    for key, matrix in parts.items():
        for quantity, estimate in reseeded_estimates(matrix, matrices[key]).items():
            yield ("overall", *key, quantity), estimate
    for row in _comparisons(plan, parts):
        names = tuple(str(row[name]) for name in _KEYS)
        yield ("source_comparison", *names), float(row.get("estimate", math.nan))  # type: ignore[arg-type]
    if primary is None:
        return
    measure = plan.study.primary.measure
    matrix = parts[primary.judge, measure, primary.source]
    for place, behavior in enumerate(primary.behaviors):
        comparison = part.comparison(plan, primary, matrix, place)
        for name in [RESULT, *controls_of(comparison)]:
            found = estimate_of(comparison, _tested(comparison, measure, name))
            yield ("agreement", behavior, name), float(found.get("estimate", math.nan))  # type: ignore[arg-type]


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
        Column(
            "control", "text", "none for the result itself; otherwise the control that takes its place.", role="key"
        ),
        STATISTIC,
        Column(
            "estimate",
            "float",
            "Value of the statistic over latents (by chance: 0.5 for auroc, 0 for spearman, for sign_agreement that of "
            "its row shuffled_explanations).",
            optional=True,
        ),
        *CI,
        Column(
            "ci_over",
            "text",
            "What the interval runs over: trainings (which spread as the other trainings do), random dictionaries, "
            "other behaviors or shuffles.",
            optional=True,
        ),
        Column(
            "adjusted_estimate",
            "float",
            "The estimate without what firing rate, decoder norm and density explain of the expectations.",
            optional=True,
        ),
        *ci_columns("its confidence interval over trainings", prefix="adjusted_"),
        Column(
            "pvalue",
            "float",
            "Probability of so high an adjusted estimate if the training were one more of the trainings on other "
            "behaviors, for the same expectations (Student's t); empty with fewer than 4 others.",
            optional=True,
        ),
        QVALUE_OF_FAMILIES,
        FAMILY,
        Column("null_mean", "float", "Mean of the adjusted estimate over the other trainings: chance.", optional=True),
        Column("null_sd", "float", "Its standard deviation over the other trainings.", optional=True),
        Column("n_others", "int", "Other trainings; variants of one behavior are one.", optional=True),
        Column(
            "pvalue_placebo",
            "float",
            "Probability of so high an adjusted estimate if the training were one more placebo training (on neutral "
            "completions of the model itself): its rank among them.",
            optional=True,
        ),
        Column("placebo_mean", "float", "Mean of the adjusted estimate over placebo trainings.", optional=True),
        Column("placebo_sd", "float", "Its standard deviation over placebo trainings.", optional=True),
        Column("n_placebos", "int", "Placebo trainings.", optional=True),
        Column(
            "pvalue_texts",
            "float",
            "Probability of so high an estimate if explanation texts were exchanged between latents, with confounds "
            "and what other trainings did taken out. Valid only if latents with different texts move independently; "
            f"empty where fewer than {LATENTS_PER_TEXT} latents share a text on average.",
            optional=True,
        ),
        Column("p_floor", "float", "Smallest value that pvalue_texts can take here.", optional=True),
        N_LATENTS,
        N_EXPECTED,
        Column("n_texts", "int", "Different explanation texts."),
        Column("n_expected_texts", "int", "Different explanation texts of the expected latents."),
        N_SEEDS,
        Column("n_resamples", "int", "Exchanges behind pvalue_texts.", optional=True),
        Column(
            "noise_ceiling",
            "float",
            "Highest estimate to expect of perfect explanations, given how well the mean over these seeds is known.",
            optional=True,
        ),
        Column(
            "minimum_detectable_effect",
            "float",
            "True value of the adjusted estimate that reaches p < 0.05 with a chance of 80 %.",
            optional=True,
        ),
        PROVENANCE,
        PRIMARY,
    ),
    make=agreement,
)
