"""Everything that look-ups found at Neuronpedia: every explanation with its maker, side and published scores.

A source takes one explanation of each latent. The others stay in its file of look-ups; here they are listed, so that
a study can be given one source per maker.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from isaerft.config import Source
from isaerft.errors import InputError
from isaerft.explanations.neuronpedia.records import page_url, side_of, source_id_of
from isaerft.explanations.neuronpedia.store import STORE, Store
from isaerft.table import Column, Table

UNKNOWN = "unknown"

LABELS = Table(
    "labels",
    "Every explanation that Neuronpedia has of the latents that were looked up, one row for each published score.",
    (
        Column("latent_index", "int", "Index of the latent in the SAE."),
        Column("maker", "text", "Who made the explanation: explanationModelName/typeName, or the known part of it."),
        Column("side", "text", "What it is about, by its maker: input, output or both; unknown if nobody says."),
        Column("explanation", "text", "The explanation."),
        Column("score", "text", "Kind of the published score, if there is one.", optional=True),
        Column("score_model", "text", "Model that gave the score.", optional=True),
        Column("value", "float", "Value of the score.", optional=True),
        Column("url", "text", "Page of the latent."),
    ),
)


def known_labels(source: Source, subject_dir: Path) -> pd.DataFrame:
    """Return the rows of `LABELS` that look-ups have found so far; nothing is asked.

    Raises
    ------
    InputError
        No source at Neuronpedia is known, or nothing was looked up there.
    """
    options, path = source.neuronpedia, subject_dir / STORE
    source_id = source_id_of(options.source_id, subject_dir)
    if not path.is_file():
        raise InputError(f"nothing was looked up at Neuronpedia: {path} does not exist", remedy="run `isaerft explain`")
    with Store(path, source_id) as store:
        known = store.explanations()
    rows = [
        (
            latent, one.maker or UNKNOWN, side_of(one, options.sides) or UNKNOWN, one.text, *score,
            page_url(source_id, latent, options.base_url),
        )
        for latent, one in known
        for score in one.scores or [(None, None, None)]
    ]  # fmt: skip
    if not rows:
        raise InputError(f"{path} has no explanations of {'/'.join(source_id)}", remedy="run `isaerft explain`")
    return LABELS.conform(pd.DataFrame(rows, columns=LABELS.column_names))


def lines_about_makers(labels: pd.DataFrame) -> list[str]:
    """Return lines that tell each maker's explanations, side and mean published scores, and how to compare makers."""
    every = labels.drop_duplicates(["latent_index", "maker", "explanation"])
    lines = [f"{len(every):,} explanations of {every.latent_index.nunique():,} latents:"]
    counts = every.maker.value_counts()
    for maker in sorted(counts.index, key=lambda name: (-counts[name], name)):
        own = labels[labels.maker == maker]
        scores = "".join(
            f"; {kind} {values.mean():.2f} on {values.size:,}" for kind, values in own.groupby("score")["value"]
        )
        sides = "/".join(sorted(own.side.unique()))
        lines.append(f"  {maker}: {counts[maker]:,} of {own.latent_index.nunique():,} latents, side {sides}{scores}")
    if labels.score.isna().all():
        lines.append("No published scores were looked up: `neuronpedia: {scores: true}` does, a request per latent.")
    named = [maker for maker in counts.index if maker != UNKNOWN]
    if len(named) > 1:
        lines.append("To compare makers on the same latents (source_comparison.csv), give each a source:")
        for number, maker in enumerate(sorted(named), start=1):
            lines.append(f'  maker_{number}: {{kind: neuronpedia, neuronpedia: {{maker: "{maker}"}}}}')
    return lines
