"""Verdicts as files: explanations in Neuronpedia's export format, and a data set for the Hugging Face hub.

The export is what a Neuronpedia of your own imports. Its importer takes the columns from the first row, so every row
has the same; what a column of another table must hold (author, type, model) has to exist there.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from isaerft import analysis
from isaerft.errors import InputError
from isaerft.explanations.neuronpedia.records import SIDE_OF
from isaerft.hub import escaped, plain
from isaerft.io import replacing
from isaerft.publish.verdicts import Verdicts
from isaerft.version import VERSION

ROWS_PER_BATCH = 1024
AUTHOR = "clkht01d40000jv08hvalcvly"
"""User that a Neuronpedia of your own has from the start."""
_CARD = """---
pretty_name: "{title}"
tags:
- interpretability
- sparse-autoencoder
- neuronpedia
configs:
- config_name: default
  data_files: verdicts.parquet
---

# {heading}

Are the explanations of these latents right? Adapters were trained on {n_behaviors} behaviors, and each explanation was
read as a prediction: which behaviors should change its latent. A verdict says whether the latent changed so.

{facts}

| verdict | explanations |
|---|---|
{counts}

## Behaviors

{behaviors}

## Columns of verdicts.parquet

| column | meaning |
|---|---|
{columns}

## Read with care

- A verdict is about the explanation as the judge `{judge}` read it, and about these behaviors only.
- Of explanations with a verdict at q < 0.05 about 5 % are expected to have it by chance.
- *inconclusive* is no verdict: the data could not tell. *untestable* explanations predict nothing, or were not tested.
- The explanations are their makers' (column `maker`); add the license that theirs allows before you share this.

Made by isaerft {version}.
"""


class Folder(NamedTuple):
    """Files to write, by their path below a folder, and what they are for."""

    files: dict[str, bytes]
    purpose: str

    @property
    def n_bytes(self) -> int:
        """Size of all files together."""
        return sum(map(len, self.files.values()))


def write_folder(folder: Folder, out: Path) -> None:
    """Write a folder, as a whole; one that exists and holds anything is an `InputError`."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{str(out)!r} exists", allowed="a new or empty folder", remedy="name another one with --out")
    with replacing(out) as temporary:
        for name, content in folder.files.items():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def export_folder(verdicts: Verdicts, author: str = AUTHOR) -> Folder:
    """Return the explanations with a telling verdict as Neuronpedia exports them, the verdict in `notes`.

    Parameters
    ----------
    verdicts : Verdicts
    author : str
        Id of the user who is named as author; it must exist where the files are imported.
    """
    model, layer = verdicts.at_neuronpedia
    rows = []
    for row in verdicts.telling.sort_values("latent_index").itertuples():
        maker, kind = _split(row.maker)
        notes = f"{row.verdict}: {row.reason} (isaerft {VERSION}, {verdicts.title})"
        known: dict[str, Any] = {
            "modelId": model, "layer": layer, "index": str(row.latent_index), "authorId": author,
            "description": row.explanation, "typeName": kind, "explanationModelName": maker, "notes": notes,
        }  # fmt: skip
        digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
        rows.append({"id": f"isaerft{digest[:18]}"} | known)
    batches = [rows[at : at + ROWS_PER_BATCH] for at in range(0, len(rows), ROWS_PER_BATCH)]
    files = {}
    for number, batch in enumerate(batches):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in batch)
        path = f"v1/{model}/{layer}/explanations/batch-{number}.jsonl.gz"
        files[path] = gzip.compress(text.encode("utf-8", "replace"), mtime=0)
    return Folder(files, "a Neuronpedia of your own imports it, and a `file` source reads it")


def _split(maker: str) -> tuple[str | None, str | None]:
    """Return explanationModelName and typeName of a maker; None for what nobody says."""
    model, _, kind = maker.rpartition("/")
    if not model and kind not in SIDE_OF:
        model, kind = kind, ""
    return model or None, kind or None


def dataset_folder(verdicts: Verdicts) -> Folder:
    """Return all verdicts as a data set for the Hugging Face hub: a card and one Parquet file."""
    table = analysis.table("explanation_verdicts")
    meanings = {column.name: column.meaning for column in table.columns} | {
        "side": "What the explanation is about: input, output or both.",
        "maker": "Who made the explanation, where its source says so.",
        "url": "Page of the latent.",
    }
    stream = io.BytesIO()
    verdicts.rows.reset_index(drop=True).to_parquet(stream, index=False)
    card = _CARD.format(
        title=plain(verdicts.title),
        heading=escaped(verdicts.title),
        n_behaviors=len(verdicts.plan.tested_behaviors),
        facts=_facts(verdicts),
        counts="\n".join(f"| {name} | {n:,} |" for name, n in verdicts.rows.verdict.value_counts().items()),
        behaviors="\n".join(
            f"- *{escaped(name)}*: {escaped(verdicts.plan.described[name])}" for name in verdicts.plan.tested_behaviors
        ),
        columns="\n".join(f"| {name} | {plain(meanings[name])} |" for name in verdicts.rows),
        judge=plain(verdicts.judge),
        version=VERSION,
    )
    return Folder(
        {"README.md": card.encode("utf-8", "replace"), "verdicts.parquet": stream.getvalue()},
        "once you have read its card, upload it with --repo OWNER/NAME --send",
    )


def _facts(verdicts: Verdicts) -> str:
    """Return what the card says of the subject."""
    facts = verdicts.facts
    sae = " / ".join(plain(facts[name]) for name in ("release", "sae_id") if not pd.isna(facts.get(name, pd.NA)))
    parts = {
        "Model": facts.get("model"),
        "SAE": sae or None,
        "Hook": facts.get("hook_name"),
        "Provenance of the explanations": verdicts.provenance,
        "Dictionary at Neuronpedia": "/".join(verdicts.source_id) if verdicts.source_id else None,
    }
    return "\n".join(f"- {name}: `{plain(value)}`" for name, value in parts.items() if value and not pd.isna(value))
