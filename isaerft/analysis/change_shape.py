"""change_shape.csv: how few latents carry half of an adapter's effect, and how the largest changes are distributed."""

from __future__ import annotations

import numpy as np
import pandas as pd

from isaerft import stats
from isaerft.analysis.base import Analysis, ResultTable
from isaerft.analysis.columns import ADAPTER, BEHAVIOR, MEASURE, N_SEEDS, SUBJECT, ci_columns
from isaerft.registry import MEASURES
from isaerft.table import Column


def change_shape(analysis: Analysis) -> pd.DataFrame:
    """Return one row for each adapter, behavior and measure."""
    plan, rows = analysis.plan, []
    for subject in plan.study.subjects:
        for adapter in plan.analyzed_adapters(subject):
            for (behavior, measure), changes in analysis.changes(subject, adapter).items():
                same = {"subject": subject, "behavior": behavior, "adapter": adapter, "measure": measure}
                additive = MEASURES.facts(measure).additive
                rows.append(same | shape_of(changes, additive, plan.study.agreement.confidence_level))
    return pd.DataFrame(rows, columns=TABLE.column_names)


def shape_of(changes: np.ndarray, additive: bool, confidence_level: float) -> dict[str, object]:
    """Return the columns that describe changes, (n_seeds, d_sae); see `MeasureFacts.additive`."""
    effects = changes if additive else np.abs(changes)
    carrying = [n for n in map(stats.n_carrying, effects) if n is not None]
    interval = stats.mean_interval(np.array(carrying, float), confidence_level, (1, np.inf))
    mean = changes.mean(axis=0)
    row = {
        "n_seeds": len(changes),
        "n_changed": np.count_nonzero(mean),
        "n_half": np.mean(carrying) if carrying else np.nan,
        "ci_low": interval.low,
        "ci_high": interval.high,
    }
    tail = stats.tail_of(mean)
    if tail is None:
        return row
    row |= {"n_tail": tail.n, "tail": " or ".join(tail.fitting), "exponent": tail.exponent}
    return row | {f"pvalue_{family}": pvalue for family, pvalue in tail.pvalues.items()}


TABLE = ResultTable(
    name="change_shape",
    order=240,
    caption=(
        "How concentrated each adapter's changes are: the latents that carry half of the effect, and the family of "
        "distributions that the largest quarter of the changes fits."
    ),
    columns=(
        SUBJECT,
        BEHAVIOR,
        ADAPTER,
        MEASURE,
        N_SEEDS,
        Column("n_changed", "int", "Latents that changed at all, by the mean over seeds."),
        Column(
            "n_half",
            "float",
            "Fewest latents whose changes sum to half of the whole, mean over seeds. By attribution the whole is the "
            "fall in held-out loss; by other measures, the sum of the sizes of all changes. Empty where the loss rose.",
            optional=True,
        ),
        *ci_columns("n_half's interval over seeds (Student's t)"),
        Column("n_tail", "int", "Latents in the tail: the largest quarter of those that changed.", optional=True),
        Column(
            "tail",
            "text",
            "Families that fit the tail and that no other refutes at p < 0.05: normal, exponential, lognormal, "
            "power_law. Empty with fewer than 50 latents in the tail.",
            optional=True,
        ),
        Column(
            "exponent",
            "float",
            "Exponent of the power law if the tail is one: the density of changes falls as size to minus this.",
            optional=True,
        ),
        *(
            Column(
                f"pvalue_{family}",
                "float",
                f"p-value against the {family.replace('_', ' ')} from its comparison with the family that beats it by "
                "most; 1 if none does. It takes latents for independent.",
                optional=True,
            )
            for family in ("normal", "exponential", "lognormal", "power_law")
        ),
    ),
    when=lambda plan: plan.study.change_shape,
    condition="studies with `change_shape`",
    make=change_shape,
)
