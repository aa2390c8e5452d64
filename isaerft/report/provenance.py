"""Whose labels are these? Sentences on the provenance of the explanations behind a study's results."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from isaerft.report.selection import Primary, Tables, real
from isaerft.report.text import count, named, plural, visible

EXPLAINED = "explained_latents"
PROVEN, STATED, UNKNOWN = "proven", "stated", "unknown"


def provenance_sentences(tables: Tables, primary: Primary) -> Iterator[str]:
    """Yield one sentence for each subject on the primary source, and one on each subject's others."""
    if EXPLAINED not in tables:
        return
    rows = real(tables[EXPLAINED])
    for subject, own in rows.groupby("subject", sort=False):
        is_primary = own["source"] == primary.source
        for row in own[is_primary].itertuples():
            yield f"{visible(subject)}: {_sentence(row)}"
        others = own[~is_primary]
        found = {kind: list(others.loc[others["provenance"] == kind, "source"]) for kind in (UNKNOWN, STATED, PROVEN)}
        parts = [f"{kind} of {named(sources, most=3)}" for kind, sources in found.items() if sources]
        if len(others) > 1 and len(parts) == 1 and found[PROVEN]:
            yield f"{visible(subject)}: the same is proven of {len(others)} other sources."
        elif parts:
            yield f"{visible(subject)}: provenance of the other sources' explanations: {'; '.join(parts)}."


def provenance_cautions(tables: Tables, primary: Primary) -> Iterator[str]:
    """Warn of results on explanations that may be of another SAE."""
    if EXPLAINED not in tables:
        return
    rows = real(tables[EXPLAINED])
    rows = rows[(rows["source"] == primary.source) & (rows["provenance"] != PROVEN)]
    for row in rows.itertuples():
        yield (
            f"{visible(row.subject)}: it is not proven that the {plural(int(row.n_explained), 'explanation')} from "
            f"{visible(row.source)} are of this SAE. If they are of another one, every result here says that "
            "explanations are wrong."
        )


def _sentence(row: pd.Series) -> str:
    """Return where the primary source's explanations come from."""
    source, n = visible(row.source), int(row.n_compared)
    recognized = (
        f"{count(row.n_recognized)} of {plural(n, 'latent')} compared promote the tokens that the labels' pages list"
    )
    compared = recognized if n else "no latents' promoted tokens could be compared"
    if row.provenance == PROVEN:
        how = recognized if n else "they were made from the subject's own contexts"
        return f"the explanations from {source} are proven to be of this SAE: {how}."
    if row.provenance == STATED:
        return f"the explanations from {source} are said to be of this SAE, which is not proven: {compared}."
    if is_of_another(row):
        return f"the explanations from {source} look like those of another SAE: only {recognized}."
    return f"it is unknown whether the explanations from {source} are of this SAE: {compared}."


def is_of_another(row: Any) -> bool:
    """Tell whether fewer than half of the latents compared were recognized, and the labels were taken all the same."""
    return bool(row.provenance == UNKNOWN and 0 <= 2 * row.n_recognized < row.n_compared)
