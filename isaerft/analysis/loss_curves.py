"""loss_curves.csv and basis_advantage.csv: how few directions a trained map needs, in which basis."""

from __future__ import annotations

import numpy as np
import pandas as pd

from isaerft import stats
from isaerft.analysis.base import Analysis, ResultTable
from isaerft.analysis.columns import CI, SUBJECT
from isaerft.table import Column

REFERENCE = "rank_residual"
"""The family whose map of full rank is what all are measured against."""
ADVANTAGES = {
    "sparsity": ("latents", ("random_latents", "principal", "random")),
    "low_rank": ("rank_latents", ("rank_residual",)),
}
"""Claim -> (family in the SAE's basis, families that it is compared with at equal numbers of directions)."""
ALL = ""


def loss_curves(analysis: Analysis) -> pd.DataFrame:
    """Return one row for each behavior, family and k, and for their means over behaviors."""
    rows = []
    for subject in analysis.plan.study.subjects:
        seeds = _recovered(analysis, subject)
        for (behavior, family, k), own in seeds.groupby(["behavior", "family", "k"], sort=False):
            rows.append({"behavior": behavior, "family": family, "k": k, "subject": subject} | _mean(analysis, own))
        if seeds["behavior"].nunique() > 1:
            numbers = ["recovered", "n_parameters", "heldout_loss", "heldout_loss_base"]
            means = seeds.groupby(["family", "k", "behavior"], sort=False)[numbers].mean().reset_index()
            for (family, k), own in means.groupby(["family", "k"], sort=False):
                rows.append({"behavior": ALL, "family": family, "k": k, "subject": subject} | _mean(analysis, own))
    return pd.DataFrame(rows)


def basis_advantage(analysis: Analysis) -> pd.DataFrame:
    """Return one row for each claim and comparison: the mean difference over k, at equal numbers of directions."""
    rows = []
    for subject in analysis.plan.study.subjects:
        seeds = _recovered(analysis, subject)
        wide = seeds.set_index(["behavior", "seed", "k", "family"])["recovered"].unstack("family")
        for claim, (family, others) in ADVANTAGES.items():
            for other in others:
                if family in wide and other in wide:
                    paired = (wide[family] - wide[other]).dropna()
                    row = {"subject": subject, "claim": claim, "family": family, "compared_with": other}
                    rows.append(row | _advantage(analysis, paired))
    return pd.DataFrame(rows, columns=TABLES[1].column_names)


def _recovered(analysis: Analysis, subject: str) -> pd.DataFrame:
    """Return a row for each training of all curves, with the share of the full map's fall in loss that it reaches."""
    parts = [
        pd.read_parquet(analysis.results.loss_curves(subject, behavior)).assign(behavior=behavior)
        for behavior in analysis.plan.study.curved_behaviors
    ]
    rows = pd.concat(parts, ignore_index=True)
    full = rows[rows["family"] == REFERENCE]
    full = full[full["k"] == full["k"].max()].groupby("behavior")["heldout_loss"].mean()
    fall = rows["heldout_loss_base"] - rows["behavior"].map(full)
    # Where the full map lowers no loss, there is nothing to reach.
    share = (rows["heldout_loss_base"] - rows["heldout_loss"]) / fall
    return rows.assign(recovered=share.where(fall > 0))


def _mean(analysis: Analysis, own: pd.DataFrame) -> dict[str, object]:
    """Return means over seeds, or over behaviors, and the interval of the share over the same."""
    values = own["recovered"].dropna().to_numpy(float)
    interval = stats.mean_interval(values, analysis.plan.study.agreement.confidence_level)
    columns: dict[str, object] = {"n_replicates": len(values), "ci_low": interval.low, "ci_high": interval.high}
    columns["recovered"] = values.mean() if len(values) else np.nan
    means = own[["n_parameters", "heldout_loss_base", "heldout_loss"]].mean()
    return columns | {name: float(value) for name, value in means.items()}


def _advantage(analysis: Analysis, paired: pd.Series) -> dict[str, object]:
    """Return the mean difference over ks of paired trainings, with its interval over behaviors, or seeds of one."""
    each = paired.groupby(["behavior", "seed"]).mean()
    if each.index.get_level_values("behavior").nunique() > 1:
        each = each.groupby("behavior").mean()
    values = each.to_numpy(float)
    interval = stats.mean_interval(values, analysis.plan.study.agreement.confidence_level)
    ks = paired.index.get_level_values("k")
    found = {"k_min": ks.min(), "k_max": ks.max(), "n_replicates": len(values)} if len(paired) else {"n_replicates": 0}
    found |= {"estimate": values.mean() if len(values) else np.nan, "ci_low": interval.low, "ci_high": interval.high}
    if np.isnan(interval.low):
        return found | {"verdict": "untested"}
    return found | {"verdict": "yes" if interval.low > 0 else "no" if interval.high < 0 else "not shown"}


_FAMILY = (
    "Where the k directions come from. Chosen in training, k to read and k to write: latents (of the SAE), "
    "random_latents (of an untrained dictionary that fires as often), principal (axes of the residual stream), random "
    "(axes). Learned freely, so that k is the rank: rank_latents (on the SAE's activations), rank_residual (on the "
    "residual stream)."
)

TABLES = [
    ResultTable(
        name="loss_curves",
        order=147,
        caption=(
            "Held-out loss of linear maps with k directions, in the SAE's basis and in the residual stream, and the "
            "share of the full map's fall in loss that they reach."
        ),
        columns=(
            SUBJECT,
            Column(
                "behavior", "text", "Behavior that was trained; empty: means over behaviors.", role="key", optional=True
            ),
            Column("family", "text", _FAMILY, role="key"),
            Column("k", "int", "Number of directions.", role="key"),
            Column("n_parameters", "float", "Numbers that are trained: k times k, or both factors of a map of rank k."),
            Column(
                "heldout_loss_base", "float", "Loss on held-out rows before training, in nats per completion token."
            ),
            Column("heldout_loss", "float", "The same after training."),
            Column(
                "recovered",
                "float",
                "The fall in held-out loss as a share of that of the full map of the residual stream (rank_residual at "
                "the largest k), the mean over replicates; empty if that did not fall.",
                optional=True,
                role="estimate",
            ),
            *CI,
            Column("n_replicates", "int", "Seeds behind `recovered`; in means over behaviors, behaviors."),
        ),
        when=lambda plan: bool(plan.study.curved_behaviors),
        condition="studies with `loss_curves`",
        make=loss_curves,
    ),
    ResultTable(
        name="basis_advantage",
        order=148,
        caption=(
            "What does the SAE's basis buy, sparsity or low rank? Differences in the share of the full map's fall in "
            "loss at equal numbers of directions."
        ),
        columns=(
            SUBJECT,
            Column(
                "claim",
                "text",
                "sparsity: few latents do more than as many directions of other bases; low_rank: a rank does more on "
                "the SAE's activations than on the residual stream.",
                role="key",
            ),
            Column("family", "text", "Family of maps in the SAE's basis; see loss_curves.csv.", role="key"),
            Column("compared_with", "text", "Family that it is compared with.", role="key"),
            Column("k_min", "int", "Smallest number of directions that both have.", optional=True),
            Column("k_max", "int", "Largest number of directions that both have.", optional=True),
            Column(
                "estimate",
                "float",
                "Difference in `recovered`, the mean over these ks and over replicates.",
                optional=True,
                role="estimate",
            ),
            *CI,
            Column("n_replicates", "int", "Behaviors that the interval is over; with one behavior, its seeds."),
            Column("verdict", "text", "yes or no where the interval excludes 0; else not shown, or untested."),
        ),
        when=lambda plan: bool(plan.study.curved_behaviors),
        condition="studies with `loss_curves`",
        make=basis_advantage,
    ),
]
