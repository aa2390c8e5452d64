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
from isaerft.stats import qvalues
from isaerft.subjects.paths import SubjectFolder
from isaerft.table import TABLES, write_table


def write_tables(study: config.Study, results: str | Path, out: str | Path) -> None:
    """Write the study's tables as CSV under `out`; which ones there are, the study says."""
    results, out = Path(results), Path(out)
    runs = list(_runs(study, results))
    frames = {
        "subjects": pd.DataFrame(
            [row for name in study.subjects for row in SubjectFolder(results / "subjects" / name).read_cards()]
        ),
        "training": training_table(study, runs),
        "diagnostics": diagnostics_table(runs),
        "most_changed_latents": pd.concat(most_changed(study, name, results) for name in study.subjects),
        "agreement": agreement_table(study, results),
        "specificity": _parts(study, results, SPECIFICITY),
        "overall": overall_table(study, results),
        "coverage": coverage_table(study, results),
        "seeds": seeds_table(study, results),
    }
    if study.compared_sources:
        frames["source_comparison"] = comparison_table(study, results)
    if len(study.tested_behaviors) > 1:
        frames["explanation_verdicts"] = explanation_verdicts(study, results)
    if study.audits:
        frames["audit"] = _audits(study, results, AUDIT)
        frames["audit_latents"] = _audits(study, results, AUDIT_LATENTS)
    if study.causally_checked:
        frames["causal_check"] = causal_table(study, results)
    if len(study.judges) > 1:
        frames["judge_quality"] = judge_quality(study, results)
        if any(judge.reference for judge in study.judges.values()):
            quality = frames["judge_quality"]
            frames["corrected_agreement"] = corrected_agreement(study, frames["agreement"], quality)
    if study.scorers:
        frames["explanation_scores"] = scores = explanation_scores(study, results)
        frames["explanation_quality"] = explanation_quality(study, scores)
        frames["agreement_by_quality"] = agreement_by_quality(study, results, scores)
    if study.behavior_checked:
        frames["behavior_check"] = behavior_table(study, results)
    known = list(_known_truth(study, frames))
    if known:
        frames["calibration"] = pd.concat(known, ignore_index=True)
    for name, frame in frames.items():
        columns = [column.name for column in TABLES[name]]
        write_table(name, frame.reindex(columns=columns), out / f"{name}.csv")


def _known_truth(study: config.Study, frames: Mapping[str, pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Yield the rows of calibration.csv, of whatever the study knows the truth."""
    if study.dose_arms:
        verdicts = frames.get("explanation_verdicts")
        yield calibration_table(study, frames["agreement"], frames["overall"], verdicts)
    if study.known_audits:
        yield audit_calibration(study, frames["audit"], frames["audit_latents"])


def _audits(study: config.Study, results: Path, name: str) -> pd.DataFrame:
    return pd.concat((pd.read_parquet(results / "audit" / part / name) for part in study.subjects), ignore_index=True)


def _runs(study: config.Study, results: Path) -> Iterator[dict[str, Any]]:
    """Yield what every training.json says, one seed at a time."""
    for subject in [*study.subjects, *study.permuted_subjects]:
        for behavior in study.trained_behaviors(subject):
            for adapter in study.adapters if subject in study.subjects else study.analysed_adapters(subject):
                for row in read_json(results / "adapters" / subject / behavior / adapter / "training.json"):
                    yield {"subject": subject, "behavior": behavior, "adapter": adapter} | row


def diagnostics_table(runs: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the rows of diagnostics.csv: what was noted of adapters that were not trained on latents."""
    return pd.DataFrame(
        {name: run[name] for name in ("subject", "behavior", "adapter", "seed")} | {"quantity": name, "value": value}
        for run in runs
        for name, value in run.get("diagnostics", {}).items()
    )


def training_table(study: config.Study, runs: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the rows of training.csv; loss_recovered is measured against the reference's mean over seeds."""
    table = pd.DataFrame(runs).assign(reference=study.reference, loss_recovered=np.nan)
    if study.reference is None:
        return table
    best = table[table.adapter == study.reference].groupby(["subject", "behavior"]).heldout_loss_adapted.mean()
    base = [study.permuted_subjects.get(name, name) for name in table.subject]
    reached = pd.Series([best[key] for key in zip(base, table.behavior, strict=True)], index=table.index)
    gap = table.heldout_loss_base - reached
    recovered = (table.heldout_loss_base - table.heldout_loss_adapted) / gap
    return table.assign(loss_recovered=recovered.where(gap > 0))


def agreement_table(study: config.Study, results: Path) -> pd.DataFrame:
    """Return the rows of agreement.csv with q-values.

    Benjamini-Hochberg runs within families: the primary result over behaviors, all other results, and each control.
    """
    table = _parts(study, results, AGREEMENT)
    return _adjusted(table.assign(primary=_is_primary(study, table) & (table.control == "none")), "control")


def overall_table(study: config.Study, results: Path) -> pd.DataFrame:
    """Return the rows of overall.csv; families of q-values are the quantities, the primary combination apart."""
    table = _parts(study, results, OVERALL)
    return _adjusted(table.assign(primary=_is_primary(study, table)), "quantity")


def comparison_table(study: config.Study, results: Path) -> pd.DataFrame:
    """Return the rows of source_comparison.csv, the best source of each judge first."""
    table = _parts(study, results, COMPARISON)
    keys = ["subject", "adapter", "measure", "judge", "quantity"]
    groups = table.groupby(keys, sort=False).ngroup().rename("group")
    order = pd.concat([groups, table["rank"]], axis=1).sort_values(["group", "rank"], kind="stable").index
    return table.loc[order]


def _is_primary(study: config.Study, table: pd.DataFrame) -> pd.Series:
    named = pd.Series(True, index=table.index)
    for column in ("adapter", "measure", "source", "judge", "statistic"):
        named &= table[column] == getattr(study.primary, column)
    return named


def _adjusted(table: pd.DataFrame, kind: str) -> pd.DataFrame:
    table = table.assign(qvalue=np.nan)
    for _, family in table.groupby([kind, "primary"]):
        table.loc[family.index, "qvalue"] = qvalues(family.pvalue.to_numpy())
    return table


def causal_table(study: config.Study, results: Path) -> pd.DataFrame:
    """Return the rows of causal_check.csv."""
    parts = [
        pd.read_parquet(results / "causal_check" / subject / f"{behavior}.parquet").assign(
            subject=subject, behavior=behavior
        )
        for subject in study.subjects
        for behavior in study.behaviors
    ]
    return pd.concat(parts, ignore_index=True)


def behavior_table(study: config.Study, results: Path) -> pd.DataFrame:
    """Return the rows of behavior_check.csv."""
    parts = [
        pd.read_parquet(results / "behavior_check" / subject / behavior / "scores.parquet").assign(
            subject=subject, behavior=behavior
        )
        for subject in study.subjects
        for behavior in study.behavior_checked
    ]
    return pd.concat(parts, ignore_index=True)


def _parts(study: config.Study, results: Path, name: str) -> pd.DataFrame:
    folders = [
        results / "agreement" / subject / adapter
        for subject in study.subjects
        for adapter in study.analysed_adapters(subject)
    ]
    return pd.concat([pd.read_parquet(folder / name) for folder in folders], ignore_index=True)
