"""training.csv: every training run, its losses, and the held-out one's fall relative to the reference adapter's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from isaerft.analysis.base import Analysis, ResultTable
from isaerft.analysis.columns import ADAPTER, BEHAVIOR, SEED, SUBJECT
from isaerft.config import Plan
from isaerft.io import read_json
from isaerft.layout import Results
from isaerft.table import Column


def training_runs(plan: Plan, results: Results) -> Iterator[dict[str, Any]]:
    """Yield what each training noted, seed by seed, twins after subjects."""
    for subject in plan.all_subjects:
        adapters = list(plan.study.adapters) if subject in plan.study.subjects else plan.analyzed_adapters(subject)
        for behavior in plan.trained_behaviors(subject):
            for adapter in adapters:
                for run in read_json(results.training(subject, behavior, adapter)):
                    yield {"subject": subject, "behavior": behavior, "adapter": adapter} | run


def training(analysis: Analysis) -> pd.DataFrame:
    """Return one row per run; `loss_recovered` is relative to the reference's mean over seeds, on the same model."""
    plan, reference = analysis.plan, analysis.plan.study.reference
    table = pd.DataFrame(training_runs(plan, analysis.results)).assign(reference=reference, loss_recovered=np.nan)
    if reference is None:
        return table
    best = table[table.adapter == reference].groupby(["subject", "behavior"]).heldout_loss_adapted.mean()
    base = [name if plan.randomizes_model(name) else plan.origin(name) for name in table.subject]
    reached = pd.Series([best.get(key, np.nan) for key in zip(base, table.behavior, strict=True)], index=table.index)
    gap = table.heldout_loss_base - reached
    recovered = (table.heldout_loss_base - table.heldout_loss_adapted) / gap
    return table.assign(loss_recovered=recovered.where(gap > 0))


TABLE = ResultTable(
    name="training",
    order=110,
    caption="One row per training run: held-out loss before and after, and the share of the reference's improvement.",
    columns=(
        SUBJECT,
        BEHAVIOR,
        ADAPTER,
        Column("objective", "text", "Training objective (sft, dpo, ...)."),
        SEED,
        Column("n_parameters", "int", "Number of trained parameters."),
        Column("steps", "int", "Training steps taken; the weights kept may be those of an earlier step."),
        Column("tokens", "int", "Tokens run during training, prompts included."),
        Column("heldout_loss_base", "float", "Held-out loss before training (nats per completion token)."),
        Column(
            "heldout_loss_adapted",
            "float",
            "Held-out loss after training (nats per completion token).",
            role="estimate",
        ),
        Column(
            "train_loss_base",
            "float",
            "The same as heldout_loss_base on training rows, as many, of those that the replicate saw. Empty unless "
            "the study asks for `train_loss`.",
            optional=True,
        ),
        Column("train_loss_adapted", "float", "The same after training.", optional=True),
        Column("reference", "text", "Adapter that loss_recovered is relative to.", optional=True),
        Column(
            "loss_recovered",
            "float",
            "Fall of the held-out loss as a share of the reference adapter's fall; 1 equals the reference. In "
            "causal_check.csv it is what remains of the adapter's own fall without some latents.",
            optional=True,
            role="estimate",
        ),
        Column(
            "seconds",
            "float",
            "Wall-clock time of the training; of seeds trained together, an equal share. Empty unless the study "
            "records it.",
            optional=True,
        ),
    ),
    make=training,
)
