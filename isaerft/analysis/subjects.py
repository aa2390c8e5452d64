"""subjects.csv: the subjects, and how well each SAE reconstructs the activations at its hook."""

from __future__ import annotations

import pandas as pd

from isaerft.analysis.base import Analysis, ResultTable
from isaerft.analysis.columns import SUBJECT
from isaerft.table import Column


def subjects(analysis: Analysis) -> pd.DataFrame:
    """Return one row per subject and random-dictionary twin."""
    cards = [analysis.results.subject(name).read_cards() for name in analysis.plan.subjects]
    return pd.DataFrame([row for card in cards for row in card])


TABLE = ResultTable(
    name="subjects",
    order=100,
    caption="The subjects: model, SAE and hook, and how well the SAE reconstructs the activations there.",
    columns=(
        SUBJECT,
        Column("model", "text", "Hugging Face id or folder of the language model."),
        Column(
            "release", "text", "SAELens release of the SAE; empty if trained here or read from a folder.", optional=True
        ),
        Column("sae_id", "text", "Id of the SAE within its release.", optional=True),
        Column(
            "sae_model",
            "text",
            "Model on which the SAE was trained, as its metadata say; empty if they do not, or if trained here.",
            optional=True,
        ),
        Column(
            "hook_name",
            "text",
            "Hook where the SAE reads and writes: the residual stream, or the output of an attention or MLP block.",
        ),
        Column("d_in", "int", "Width of the activations at the hook."),
        Column("d_sae", "int", "Number of latents in the SAE."),
        Column(
            "variance_explained",
            "float",
            "Share of the activations' variance that the SAE reconstructs (1 is perfect).",
            optional=True,
            role="estimate",
        ),
        Column("l0", "float", "Mean number of active latents per token.", optional=True, role="estimate"),
        Column(
            "n_alive", "int", "Latents that fire often enough on the reference corpus to be tested.", role="estimate"
        ),
        Column("n_dense", "int", "Latents that fire on so many tokens that their explanations say little."),
        Column(
            "loss_base",
            "float",
            "Loss of the unchanged model on the reference corpus (nats per token).",
            optional=True,
            role="estimate",
        ),
        Column(
            "loss_spliced",
            "float",
            "The same loss with the SAE's reconstruction in place of the activations (nats per token).",
            optional=True,
            role="estimate",
        ),
    ),
    make=subjects,
)
