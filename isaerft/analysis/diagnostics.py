"""diagnostics.csv: how well adapters that are not trained on the latents can be described in the SAE's basis."""

from __future__ import annotations

import pandas as pd

from isaerft.analysis.base import Analysis, ResultTable
from isaerft.analysis.columns import ADAPTER, BEHAVIOR, SEED, SUBJECT
from isaerft.analysis.training import training_runs
from isaerft.table import Column


def diagnostics(analysis: Analysis) -> pd.DataFrame:
    """Return one row per run and quantity that was noted of it."""
    return pd.DataFrame(
        {name: run[name] for name in ("subject", "behavior", "adapter", "seed")} | {"quantity": name, "value": value}
        for run in training_runs(analysis.plan, analysis.results)
        for name, value in run.get("diagnostics", {}).items()
    )


TABLE = ResultTable(
    name="diagnostics",
    order=120,
    caption=(
        "Adapters that are not trained on the latents, in the SAE's basis: how much of their change the dictionary "
        "explains, and how well a baseline's direction tells held-out texts apart."
    ),
    columns=(
        SUBJECT,
        BEHAVIOR,
        ADAPTER,
        SEED,
        Column(
            "quantity",
            "text",
            "explained_share: share of the squared change of the activations that the change of latents reproduces; "
            "heldout_loss_displaced and heldout_loss_pulled_back: held-out loss under the full change and under what "
            "the latents reproduce of it; heldout_auroc and heldout_accuracy: how well a baseline's direction tells "
            "held-out completions from its contrast; steering_strength: norm of what the baseline adds, as a share of "
            "the activations' norm.",
        ),
        Column("value", "float", "Its value: a share, an area under the curve, or nats per token.", optional=True),
    ),
    make=diagnostics,
)
