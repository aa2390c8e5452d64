"""most_changed_latents.csv: which latents changed most, their explanations, and whether the seeds agree on them."""

from __future__ import annotations

from collections.abc import Container, Iterator

import numpy as np
import pandas as pd

from isaerft import stats
from isaerft.analysis.base import Analysis, ResultTable
from isaerft.analysis.columns import ADAPTER, BEHAVIOR, FIRING_RATE, LATENT_INDEX, MEASURE, QVALUE, SUBJECT, URL
from isaerft.analysis.readings import Changes, ExplainedLatents, alive_latents
from isaerft.table import Column

STABLE = 0.05
"""Largest q-value of a latent whose rank the seeds agree on."""
EXPECTED_FALL = 0.5
SIGNED = ("contribution", "parameter")


def most_changed_latents(analysis: Analysis) -> pd.DataFrame:
    """Return the most changed latents of every subject, behavior, adapter and measure."""
    return pd.concat(most_changed(analysis, subject) for subject in analysis.plan.study.subjects)


def most_changed(analysis: Analysis, subject: str) -> pd.DataFrame:
    """Return the rows of one subject, with the explanations of the primary source and its judge."""
    plan = analysis.plan
    source, judge = plan.shown_reading(subject)
    explained = next(analysis.explained(subject, [source]))
    known = _explained_and_judged(explained, judge)
    latents = alive_latents(plan, explained.facts)
    parts = []
    for adapter in plan.analyzed_adapters():
        changes = analysis.changes(subject, adapter)
        for (behavior, measure), values in changes.items():
            pushed = _pushed(changes, behavior, measure)
            rows = _ranked(values[:, latents], pushed[latents], latents, plan.study.agreement.top_k)
            own = known[known.behavior == behavior].drop(columns="behavior")
            rows = rows.merge(own, on="latent_index", how="left")
            parts.append(rows.assign(behavior=behavior, adapter=adapter, measure=measure))
    rate = explained.facts[["latent_index", "firing_rate"]]
    table = pd.concat(parts, ignore_index=True).merge(rate, on="latent_index")
    table = table.sort_values(["behavior", "adapter", "measure", "rank"], ignore_index=True)
    verdicts = list(_verdicts(table, set(explained.asked.tolist())))
    return table.assign(subject=subject, source=source, judge=judge, verdict=verdicts).drop(columns="expected")


def _explained_and_judged(explained: ExplainedLatents, judge: str) -> pd.DataFrame:
    """Return each explanation with what the judge expects of its latent, behavior by behavior."""
    judged = explained.judgements(judge)[["latent_index", "behavior", "expected", "expected_effect"]]
    return judged.merge(explained.explanations[["latent_index", "explanation", "url"]], on="latent_index")


def _pushed(changes: Changes, behavior: str, measure: str) -> np.ndarray:
    """Return the signed change, the direction in which each latent was pushed, (d_sae,).

    An attribution's sign says whether the change lowered the loss, so the direction is read off another measure.
    """
    for name in (*SIGNED, measure):
        if (behavior, name) in changes:
            return changes[behavior, name].mean(0)
    raise KeyError(measure)


def _ranked(changes: np.ndarray, pushed: np.ndarray, latents: np.ndarray, top_k: int) -> pd.DataFrame:
    """Return the `top_k` latents by mean absolute change; the p-value asks whether seeds agree on the rank."""
    change, size = changes.mean(0), np.abs(changes).mean(0)
    pvalue = stats.stability_pvalue(np.abs(changes))
    order = np.argsort(-size, kind="stable")[:top_k]
    return pd.DataFrame(
        {
            "rank": np.arange(1, len(order) + 1),
            "latent_index": latents[order],
            "change": change[order],
            "pvalue": pvalue[order],
            "qvalue": stats.qvalues(pvalue)[order],
            "direction": np.where(pushed[order] >= 0, "promoted", "suppressed"),
        }
    )


def _verdicts(table: pd.DataFrame, asked: Container[int]) -> Iterator[str]:
    """Yield a word for each row: stable or not, explained or not, expected or not."""
    for row in table.itertuples():
        if not row.qvalue <= STABLE:
            yield "unstable"
        elif pd.isna(row.expected):
            yield "unexplained" if row.latent_index in asked else "not asked"
        else:
            rises, falls = bool(row.expected), row.expected_effect < -EXPECTED_FALL
            agrees = (rises and row.direction == "promoted") or (falls and row.direction == "suppressed")
            yield "expected" if agrees else "unexpected"


TABLE = ResultTable(
    name="most_changed_latents",
    order=130,
    caption="The latents that training on each behavior changed most, with their explanations and verdicts.",
    columns=(
        SUBJECT,
        BEHAVIOR,
        ADAPTER,
        MEASURE,
        Column("rank", "int", "Rank by size of change within the group; 1 changed most."),
        LATENT_INDEX,
        Column("change", "float", "Change of the latent under this measure, mean over seeds."),
        Column(
            "pvalue",
            "float",
            "Probability of so high a mean rank if the seeds ranked latents independently.",
            optional=True,
        ),
        QVALUE,
        Column("direction", "text", "Whether training promoted or suppressed the latent."),
        FIRING_RATE,
        Column("source", "text", "Where the explanation comes from.", optional=True),
        Column("explanation", "text", "The explanation, as its source gives it.", optional=True),
        Column("judge", "text", "What predicts an effect from explanation and behavior.", optional=True),
        Column(
            "expected_effect",
            "float",
            "Effect that the judge expects of training on this behavior, -1 (suppressed) to 1 (promoted).",
            optional=True,
        ),
        Column(
            "verdict",
            "text",
            "expected, unexpected, unexplained, not asked (outside the sample) or unstable (seeds disagree).",
            optional=True,
        ),
        URL,
    ),
    make=most_changed_latents,
)
