"""explained_latents.csv: how many of the requested latents each source explains."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd

from isaerft.analysis.base import Analysis, ResultTable, provenance_of
from isaerft.analysis.columns import PROVENANCE, SOURCE, SUBJECT
from isaerft.table import Column

MAX_MAKERS = 5


def explained_latents(analysis: Analysis) -> pd.DataFrame:
    """Return one row for each subject and source."""
    rows = []
    for subject in analysis.plan.study.subjects:
        for part in analysis.explained(subject):
            n_asked = len(part.asked)
            n_explained = int(np.isin(part.asked, part.explanations["latent_index"]).sum())
            n_failed = int(part.explanations.attrs["counts"].get("failed", 0))
            rows.append(
                {
                    "subject": subject,
                    "source": part.source,
                    "design": analysis.plan.design_of(part.source),
                    "n_asked": n_asked,
                    "n_explained": n_explained,
                    "n_unlabeled": n_asked - n_explained - n_failed,
                    "n_failed": n_failed,
                    "share_explained": n_explained / n_asked if n_asked else np.nan,
                    **provenance_of(part),
                    "makers": makers_of(part.explanations),
                }
            )
    return pd.DataFrame(rows)


def makers_of(explanations: pd.DataFrame) -> str | None:
    """Return the makers of explanations, the most frequent first, with their numbers; None where nobody says."""
    from isaerft.explanations.base import MAKER

    if MAKER not in explanations or not explanations[MAKER].any():
        return None
    counts = sorted(Counter(explanations[MAKER]).items(), key=lambda one: (-one[1], one[0] == "", one[0]))
    named = [f"{maker or 'unknown'} ({n:,})" for maker, n in counts[:MAX_MAKERS]]
    others = counts[MAX_MAKERS:]
    return "; ".join(named + [f"{len(others)} others ({sum(n for _, n in others):,})"] * bool(others)) or None


TABLE = ResultTable(
    name="explained_latents",
    order=300,
    caption=(
        "How many of the latents that each source was asked for it explains. Results hold for the explained latents "
        "only, and under the case_control design for a sample."
    ),
    columns=(
        SUBJECT,
        SOURCE,
        Column(
            "design",
            "text",
            "all: every latent alive was asked for; case_control: the most changed latents and matched controls.",
        ),
        Column("n_asked", "int", "Latents that the source was asked for."),
        Column("n_explained", "int", "Latents among them that it explains; results are about these."),
        Column("n_unlabeled", "int", "Latents among them that the source has no explanation for."),
        Column("n_failed", "int", "Latents among them whose request failed, so whether they are explained is unknown."),
        Column("share_explained", "float", "n_explained as a share of n_asked.", optional=True, role="estimate"),
        PROVENANCE,
        Column(
            "n_compared",
            "int",
            "Latents whose promoted tokens were compared with those that the labels' pages list; 0 if none could be.",
        ),
        Column(
            "n_recognized",
            "int",
            "Latents among them that were recognized: their tokens overlap most with those that their own page lists.",
        ),
        Column(
            "makers",
            "text",
            "Who made the explanations and how many each, as explanationModelName/typeName where they come from "
            "Neuronpedia; empty where the source does not say.",
            optional=True,
        ),
    ),
    make=explained_latents,
)
