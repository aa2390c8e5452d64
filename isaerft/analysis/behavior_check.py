"""behavior_check.csv: how far training moved the behavior itself, in answers to held-out prompts."""

from __future__ import annotations

import pandas as pd

from isaerft.analysis.base import Analysis, ResultTable
from isaerft.analysis.columns import ADAPTER, BEHAVIOR, SUBJECT, ci_columns
from isaerft.table import Column


def behavior_check(analysis: Analysis) -> pd.DataFrame:
    """Return the rows that the behavior check of each subject and behavior wrote."""
    parts = [
        pd.read_parquet(analysis.results.behavior_check(subject, behavior).scores).assign(
            subject=subject, behavior=behavior
        )
        for subject in analysis.plan.study.subjects
        for behavior in analysis.plan.behavior_checked
    ]
    return pd.concat(parts, ignore_index=True)


TABLE = ResultTable(
    name="behavior_check",
    order=150,
    caption=(
        "Scores of the answers to held-out prompts before and after training; the interval is that of the difference, "
        "over prompts. answers.html shows some of the answers."
    ),
    columns=(
        SUBJECT,
        BEHAVIOR,
        ADAPTER,
        Column(
            "score",
            "text",
            "Metric of the answers, such as words, pattern or classifier (docs/config.md, Metric).",
            role="key",
        ),
        Column("n_prompts", "int", "Distinct held-out prompts that were answered; the unit of the interval."),
        Column("before", "float", "Mean score of the unchanged model's answers."),
        Column("after", "float", "Mean score of the answers with the adapter.", role="estimate"),
        *ci_columns("the interval of after minus before, over prompts"),
        Column(
            "target",
            "float",
            "Mean score of the data's own replies to the same prompts: roughly where imitating them would lead.",
        ),
        Column("n_seeds", "int", "Seeds whose adapters answered; scores are averaged prompt by prompt."),
    ),
    when=lambda plan: bool(plan.behavior_checked),
    condition="studies with a behavior check",
    make=behavior_check,
)
