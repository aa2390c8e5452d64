"""diagnostics.csv: how well adapters that are not trained on the latents can be described in the SAE's basis."""

from __future__ import annotations

from functools import cache, partial

import pandas as pd

from isaerft.analysis.base import Analysis, ResultTable
from isaerft.analysis.columns import ADAPTER, BEHAVIOR, SEED, SUBJECT
from isaerft.analysis.training import training_runs
from isaerft.io import read_json
from isaerft.layout import Results
from isaerft.table import Column


def diagnostics(analysis: Analysis) -> pd.DataFrame:
    """Return one row per run and quantity: of fitted adapters from their making, of others from their changes."""
    rows: list[dict[str, object]] = []
    of_changes = cache(partial(_of_changes, analysis.results))
    for run in training_runs(analysis.plan, analysis.results):
        same = {name: run[name] for name in ("subject", "behavior", "adapter", "seed")}
        measured = of_changes(run["subject"], run["behavior"])
        found = run.get("diagnostics", {}) | measured.get((run["adapter"], run["seed"]), {})
        rows += [same | {"quantity": name, "value": value} for name, value in found.items()]
    return pd.DataFrame(rows)


def _of_changes(results: Results, subject: str, behavior: str) -> dict[tuple[str, int], dict[str, float | None]]:
    """Return (adapter, seed) -> its diagnostics, other than changes of latents."""
    found = read_json(results.diagnostics(subject, behavior))
    return {(row["adapter"], row["seed"]): row["diagnostics"] for row in found}


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
            "held-out completions from its contrast; rephrased_auroc and rephrased_accuracy: the same under prompts of "
            "another phrasing; steering_strength: norm of what the baseline adds, as a share of "
            "the activations' norm.",
            role="key",
        ),
        Column(
            "value",
            "float",
            "Its value: a share, an area under the curve, or nats per token.",
            optional=True,
            role="estimate",
            chance=None,
        ),
    ),
    make=diagnostics,
)
