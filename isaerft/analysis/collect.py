"""From the parts that the rules wrote to the study's result tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from isaerft import config
from isaerft.analysis.agreement import AGREEMENT, COMPARISON, OVERALL, SPECIFICITY
from isaerft.analysis.audit import AUDIT, AUDIT_LATENTS
from isaerft.analysis.audit_calibration import audit_calibration
from isaerft.analysis.coverage import coverage_table
from isaerft.analysis.judges import corrected_agreement, judge_quality
from isaerft.analysis.known_truth import calibration_table
from isaerft.analysis.most_changed import most_changed
from isaerft.analysis.scores import agreement_by_quality, explanation_quality, explanation_scores
from isaerft.analysis.seeds import seeds_table
from isaerft.analysis.verdicts import explanation_verdicts
from isaerft.io import read_json
from isaerft.layout import SubjectFolder
from isaerft.stats import qvalues
from isaerft.table import TABLES, write_table


def write_tables(plan: config.Plan, results: str | Path, out: str | Path) -> None:
    """Write the study's tables as CSV under `out`; which ones there are, the study says."""
    results, out = Path(results), Path(out)
    runs = list(_runs(plan, results))
    frames = {
        "subjects": pd.DataFrame(
            [row for name in plan.study.subjects for row in SubjectFolder(results / "subjects" / name).read_cards()]
        ),
        "training": training_table(plan, runs),
        "diagnostics": diagnostics_table(runs),
        "most_changed_latents": pd.concat(most_changed(plan, name, results) for name in plan.study.subjects),
        "agreement": agreement_table(plan, results),
        "specificity": _parts(plan, results, SPECIFICITY),
        "overall": overall_table(plan, results),
        "coverage": coverage_table(plan, results),
        "seeds": seeds_table(plan, results),
    }
    if plan.compared_sources:
        frames["source_comparison"] = comparison_table(plan, results)
    if len(plan.tested_behaviors) > 1:
        frames["explanation_verdicts"] = explanation_verdicts(plan, results)
    if plan.study.audits:
        frames["audit"] = _audits(plan, results, AUDIT)
        frames["audit_latents"] = _audits(plan, results, AUDIT_LATENTS)
    if plan.causally_checked:
        frames["causal_check"] = causal_table(plan, results)
    if len(plan.study.judges) > 1:
        frames["judge_quality"] = judge_quality(plan, results)
        if any(judge.reference for judge in plan.study.judges.values()):
            quality = frames["judge_quality"]
            frames["corrected_agreement"] = corrected_agreement(plan, frames["agreement"], quality)
    if plan.study.scorers:
        frames["explanation_scores"] = scores = explanation_scores(plan, results)
        frames["explanation_quality"] = explanation_quality(plan, scores)
        frames["agreement_by_quality"] = agreement_by_quality(plan, results, scores)
    if plan.behavior_checked:
        frames["behavior_check"] = behavior_table(plan, results)
    known = list(_known_truth(plan, frames))
    if known:
        frames["calibration"] = pd.concat(known, ignore_index=True)
    for name, frame in frames.items():
        columns = [column.name for column in TABLES[name]]
        write_table(name, frame.reindex(columns=columns), out / f"{name}.csv")


def _known_truth(plan: config.Plan, frames: Mapping[str, pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Yield the rows of calibration.csv, of whatever the study knows the truth."""
    if plan.dose_arms:
        verdicts = frames.get("explanation_verdicts")
        yield calibration_table(plan, frames["agreement"], frames["overall"], verdicts)
    if plan.known_audits:
        yield audit_calibration(plan, frames["audit"], frames["audit_latents"])


def _audits(plan: config.Plan, results: Path, name: str) -> pd.DataFrame:
    return pd.concat(
        (pd.read_parquet(results / "audit" / part / name) for part in plan.study.subjects), ignore_index=True
    )


def _runs(plan: config.Plan, results: Path) -> Iterator[dict[str, Any]]:
    """Yield what every training.json says, one seed at a time."""
    for subject in [*plan.study.subjects, *plan.permuted_subjects]:
        for behavior in plan.trained_behaviors(subject):
            for adapter in plan.study.adapters if subject in plan.study.subjects else plan.analysed_adapters(subject):
                for row in read_json(results / "adapters" / subject / behavior / adapter / "training.json"):
                    yield {"subject": subject, "behavior": behavior, "adapter": adapter} | row


def diagnostics_table(runs: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the rows of diagnostics.csv: what was noted of adapters that were not trained on latents."""
    return pd.DataFrame(
        {name: run[name] for name in ("subject", "behavior", "adapter", "seed")} | {"quantity": name, "value": value}
        for run in runs
        for name, value in run.get("diagnostics", {}).items()
    )


def training_table(plan: config.Plan, runs: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the rows of training.csv; loss_recovered is measured against the reference's mean over seeds."""
    table = pd.DataFrame(runs).assign(reference=plan.study.reference, loss_recovered=np.nan)
    if plan.study.reference is None:
        return table
    best = table[table.adapter == plan.study.reference].groupby(["subject", "behavior"]).heldout_loss_adapted.mean()
    base = [plan.permuted_subjects.get(name, name) for name in table.subject]
    reached = pd.Series([best[key] for key in zip(base, table.behavior, strict=True)], index=table.index)
    gap = table.heldout_loss_base - reached
    recovered = (table.heldout_loss_base - table.heldout_loss_adapted) / gap
    return table.assign(loss_recovered=recovered.where(gap > 0))


def agreement_table(plan: config.Plan, results: Path) -> pd.DataFrame:
    """Return the rows of agreement.csv with q-values.

    Benjamini-Hochberg runs within families: the primary result over behaviors, all other results, and each control.
    """
    table = _parts(plan, results, AGREEMENT)
    return _adjusted(table.assign(primary=_is_primary(plan, table) & (table.control == "none")), "control")


def overall_table(plan: config.Plan, results: Path) -> pd.DataFrame:
    """Return the rows of overall.csv; families of q-values are the quantities, the primary combination apart."""
    table = _parts(plan, results, OVERALL)
    return _adjusted(table.assign(primary=_is_primary(plan, table)), "quantity")


def comparison_table(plan: config.Plan, results: Path) -> pd.DataFrame:
    """Return the rows of source_comparison.csv, the best source of each judge first."""
    table = _parts(plan, results, COMPARISON)
    keys = ["subject", "adapter", "measure", "judge", "quantity"]
    groups = table.groupby(keys, sort=False).ngroup().rename("group")
    order = pd.concat([groups, table["rank"]], axis=1).sort_values(["group", "rank"], kind="stable").index
    return table.loc[order]


def _is_primary(plan: config.Plan, table: pd.DataFrame) -> pd.Series:
    named = pd.Series(True, index=table.index)
    for column in ("adapter", "measure", "source", "judge", "statistic"):
        named &= table[column] == getattr(plan.study.primary, column)
    return named


def _adjusted(table: pd.DataFrame, kind: str) -> pd.DataFrame:
    table = table.assign(qvalue=np.nan)
    for _, family in table.groupby([kind, "primary"]):
        table.loc[family.index, "qvalue"] = qvalues(family.pvalue.to_numpy())
    return table


def causal_table(plan: config.Plan, results: Path) -> pd.DataFrame:
    """Return the rows of causal_check.csv."""
    parts = [
        pd.read_parquet(results / "causal_check" / subject / f"{behavior}.parquet").assign(
            subject=subject, behavior=behavior
        )
        for subject in plan.study.subjects
        for behavior in plan.study.behaviors
    ]
    return pd.concat(parts, ignore_index=True)


def behavior_table(plan: config.Plan, results: Path) -> pd.DataFrame:
    """Return the rows of behavior_check.csv."""
    parts = [
        pd.read_parquet(results / "behavior_check" / subject / behavior / "scores.parquet").assign(
            subject=subject, behavior=behavior
        )
        for subject in plan.study.subjects
        for behavior in plan.behavior_checked
    ]
    return pd.concat(parts, ignore_index=True)


def _parts(plan: config.Plan, results: Path, name: str) -> pd.DataFrame:
    folders = [
        results / "agreement" / subject / adapter
        for subject in plan.study.subjects
        for adapter in plan.analysed_adapters(subject)
    ]
    return pd.concat([pd.read_parquet(folder / name) for folder in folders], ignore_index=True)
