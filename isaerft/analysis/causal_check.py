"""causal_check.csv: what remains of an adapter's effect without the latents that changed most."""

from __future__ import annotations

import pandas as pd

from isaerft.analysis.base import Analysis, ResultTable
from isaerft.analysis.columns import ADAPTER, BEHAVIOR, SUBJECT, ci_columns
from isaerft.table import Column


def causal_check(analysis: Analysis) -> pd.DataFrame:
    """Return the rows that the causal check of each subject and behavior wrote."""
    parts = [
        pd.read_parquet(analysis.results.causal_check(subject, behavior)).assign(subject=subject, behavior=behavior)
        for subject in analysis.plan.study.subjects
        for behavior in analysis.plan.study.behaviors
    ]
    return pd.concat(parts, ignore_index=True)


_INTERVAL = "the interval: over seeds and held-out rows for most_changed, over draws for matched_random"

TABLE = ResultTable(
    name="causal_check",
    order=140,
    caption=(
        "What remains of each adapter's fall in held-out loss when the changes of its k most changed latents are "
        "undone, and when those of k others, matched in firing rate and decoder norm, are: 1 all of it, 0 nothing."
    ),
    columns=(
        SUBJECT,
        BEHAVIOR,
        ADAPTER,
        Column("k", "int", "Number of latents whose changes were undone.", role="key"),
        Column(
            "latents",
            "text",
            "most_changed: the k that changed most; matched_random: k others of similar firing rate and decoder norm.",
            role="key",
        ),
        Column(
            "loss_recovered",
            "float",
            "What remains of the adapter's own fall in held-out loss when these latents are set back: 1 if they had no "
            "part in it, 0 if they account for all of it. training.csv has the whole fall, against the reference's.",
            optional=True,
            role="estimate",
        ),
        *ci_columns(_INTERVAL),
    ),
    when=lambda plan: bool(plan.causally_checked),
    condition="studies with a causal check",
    make=causal_check,
)
