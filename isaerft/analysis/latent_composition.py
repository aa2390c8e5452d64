"""latent_composition.csv: which parts each latent is composed of, and which latents share them."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from isaerft.analysis.base import Analysis, ResultTable
from isaerft.analysis.columns import LATENT_INDEX, SUBJECT
from isaerft.config import MetaSae
from isaerft.table import Column


def latent_composition(analysis: Analysis) -> pd.DataFrame:
    """Return one row for each meta-latent of each living latent, the largest part first."""
    options, parts = analysis.plan.study.meta_sae or MetaSae(), []
    for subject in analysis.plan.study.subjects:
        table = pd.read_parquet(analysis.results.subject(subject).composition).assign(subject=subject)
        texts = analysis.shown_explanations(subject)
        table["explanation"] = table["latent_index"].map(texts)
        table["n_latents"] = table.groupby("meta_latent")["latent_index"].transform("size").astype("Int64")
        parts.append(table.join(_sharing(table, options.n_named, texts)))
    return pd.concat(parts, ignore_index=True)


def _sharing(table: pd.DataFrame, n_named: int, texts: dict[int, str]) -> pd.DataFrame:
    """Return the other latents in which each row's meta-latent weighs most, by the table's index."""
    found = {}
    for _, rows in table.groupby("meta_latent"):
        ranked = rows.sort_values("weight", ascending=False, kind="stable")
        most = list(zip(ranked["latent_index"], ranked["weight"], strict=True))[: n_named + 1]
        for index, latent in rows["latent_index"].items():
            others = [(other, weight) for other, weight in most if other != latent][:n_named]
            said = "; ".join(f"{other} ({weight:.2f})" for other, weight in others) or None
            found[index] = {"shared_with": said, "shared_explanation": texts.get(others[0][0]) if others else None}
    return pd.DataFrame.from_dict(found, orient="index", columns=["shared_with", "shared_explanation"])


TABLE = ResultTable(
    name="latent_composition",
    order=155,
    caption=(
        "What each latent writes, composed of the meta-latents of a small dictionary of the decoder's rows, and the "
        "latents that share them."
    ),
    columns=(
        SUBJECT,
        replace(LATENT_INDEX, role="key"),
        Column("explanation", "text", "Its explanation.", optional=True),
        Column(
            "explained",
            "float",
            "Share of its decoder row, about the mean row, that its meta-latents together explain; below 0 they "
            "describe it worse than the mean row does.",
        ),
        Column("meta_latent", "int", "A meta-latent; empty if the latent has none.", optional=True),
        Column("weight", "float", "Length of the meta-latent's part in the row, whose length is 1.", optional=True),
        Column("n_latents", "int", "Latents that have this meta-latent.", optional=True),
        Column("shared_with", "text", "The other latents in which it weighs most, with their weights.", optional=True),
        Column("shared_explanation", "text", "Explanation of the first of these.", optional=True),
    ),
    when=lambda plan: plan.study.meta_sae is not None,
    condition="studies with meta_sae",
    make=latent_composition,
)
