"""The rows of most_changed_latents.csv: which latents changed most, what they are said to be, and if seeds agree."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from isaerft import config
from isaerft.analysis.inputs import alive_latents, judges_of, read_changes, sources_of
from isaerft.explanations import latents_to_explain, read_explanations, sample_path
from isaerft.judges import read_judgements
from isaerft.layout import SubjectFolder
from isaerft.stats import qvalues, stability_pvalue

STABLE = 0.05
EXPECTED_FALL = 0.5
SIGNED = ("contribution", "parameter")


def most_changed(plan: config.Plan, subject: str, results: str | Path) -> pd.DataFrame:
    """Return the rows of one subject, with the explanations of the primary source and its judge.

    Where the primary source does not speak of the subject, the first that does takes its place, with its first judge.
    """
    results = Path(results)
    facts = SubjectFolder(results / "subjects" / subject).read_latents()
    latents = alive_latents(plan, facts)
    source, judge = plan.study.primary.source, plan.study.primary.judge
    if source not in sources_of(plan, subject):
        source = next(iter(sources_of(plan, subject)), source)
        judge = judges_of(plan, source)[0]
    known = _what_is_said(results, subject, source, judge)
    sample = sample_path(plan, results, subject, source)
    asked = set(latents_to_explain(facts, plan.study.agreement.min_firing_rate, sample).tolist())
    parts = []
    for adapter in plan.study.adapters:
        if adapter == plan.study.reference:
            continue
        changes = read_changes(plan, results / "changes", subject, adapter)
        for (behavior, measure), values in changes.items():
            pushed = _pushed(changes, behavior, measure)
            rows = _ranked(values[:, latents], pushed[latents], latents, plan.study.agreement.top_k)
            said = known[known.behavior == behavior].drop(columns="behavior")
            rows = rows.merge(said, on="latent_index", how="left")
            parts.append(rows.assign(behavior=behavior, adapter=adapter, measure=measure))
    table = pd.concat(parts, ignore_index=True).merge(facts[["latent_index", "firing_rate"]], on="latent_index")
    table = table.sort_values(["behavior", "adapter", "measure", "rank"], ignore_index=True)
    return table.assign(subject=subject, source=source, judge=judge, verdict=list(_verdicts(table, asked))).drop(
        columns="expected"
    )


def _pushed(changes: Mapping[tuple[str, str], np.ndarray], behavior: str, measure: str) -> np.ndarray:
    """Return the signed change that tells which way each latent was pushed, (d_sae,).

    An attribution's sign says whether the change lowered the loss, so the direction is read off another measure.
    """
    for name in (*SIGNED, measure):
        if (behavior, name) in changes:
            return changes[behavior, name].mean(0)
    raise KeyError(measure)


def _ranked(changes: np.ndarray, pushed: np.ndarray, latents: np.ndarray, top_k: int) -> pd.DataFrame:
    """Return the `top_k` latents by mean absolute change; the p-value asks whether seeds agree on the rank."""
    change, size = changes.mean(0), np.abs(changes).mean(0)
    pvalue = stability_pvalue(np.abs(changes))
    order = np.argsort(-size, kind="stable")[:top_k]
    return pd.DataFrame(
        {
            "rank": np.arange(1, len(order) + 1),
            "latent_index": latents[order],
            "change": change[order],
            "pvalue": pvalue[order],
            "qvalue": qvalues(pvalue)[order],
            "direction": np.where(pushed[order] >= 0, "promoted", "suppressed"),
        }
    )


def _what_is_said(results: Path, subject: str, source: str, judge: str) -> pd.DataFrame:
    said = read_explanations(results / "explanations" / subject / f"{source}.parquet")
    judged = read_judgements(results / "judgements" / subject / source / f"{judge}.parquet")
    both = judged[["latent_index", "behavior", "expected", "expected_effect"]]
    return both.merge(said[["latent_index", "explanation", "url"]], on="latent_index")


def _verdicts(table: pd.DataFrame, asked: Container[int]) -> Iterator[str]:
    for row in table.itertuples():
        if not row.qvalue <= STABLE:
            yield "unstable"
        elif pd.isna(row.expected):
            yield "unexplained" if row.latent_index in asked else "not asked"
        else:
            rises, falls = bool(row.expected), row.expected_effect < -EXPECTED_FALL
            agrees = (rises and row.direction == "promoted") or (falls and row.direction == "suppressed")
            yield "expected" if agrees else "unexpected"
