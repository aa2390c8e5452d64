"""The benchmark of explanation scorers as a data set: explanations of known truth, and their scores so far.

Whoever has the folder can score its explanations and compare, without this study's models or training:

>>> from datasets import load_dataset                          # doctest: +SKIP
>>> load_dataset("benchmark", "explanations", split="train")   # doctest: +SKIP
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd

from isaerft import analysis
from isaerft.analysis.benchmarked import ARM, SCORE, Benchmark, benchmark_of
from isaerft.config import Plan
from isaerft.errors import InputError
from isaerft.explanations.contexts import read_contexts
from isaerft.hub import escaped, plain
from isaerft.io import read_json, read_parquet
from isaerft.layout import Results
from isaerft.publish.files import Folder
from isaerft.version import VERSION

MANIFEST, CARD = "manifest.json", "README.md"
_PARTS = {
    "explanations": [*ARM, "source", "latent_index", "explanation", "kind", "said", "true", "testable"],
    "scores": [*ARM, "latent_index", *SCORE, "value"],
    "seconds": [*ARM, *SCORE, "seconds"],
}
CONTEXTS = "contexts"
MEANINGS = {
    "subject": "The world: a language model and an SAE of its own.",
    "source": "Name of the set of explanations in the study.",
    "side": "What the explanation describes: what the latent fires on (input) or what it promotes (output).",
    "share": "Share of the explanations of this world, side and share that are wrong.",
    "latent_index": "Latent of the world's SAE.",
    "explanation": "What is to be scored.",
    "kind": "right, or what is wrong with it.",
    "said": "The concept that it names; two, joined by &, for a half-true one.",
    "true": "The concept that the latent truly has on this side.",
    "testable": "Whether training gave it a score: it predicts something of the behaviors.",
    "scorer": "training, a scorer of the study, or control (length).",
    "score": "Judge for training; kind of score for a scorer.",
    "value": "Larger: the explanation fits better.",
    "seconds": "Seconds of the jobs behind the score.",
}
_CARD = """---
pretty_name: "{title}"
license: mit
language: en
tags:
- interpretability
- sparse-autoencoder
- benchmark
configs:
{configs}
---

# {heading}

Explanations of SAE latents of which it is known whether they are true: {n_explanations:,} of them, in {n_worlds} worlds
whose language was written for this purpose. A known share is wrong, in {n_kinds} ways. A score of explanations is as
good as it finds these: the AUROC of wrong against right ones, in each world, then the mean over worlds.

Version {version}, made by isaerft {isaerft} from the study `{study}`; `manifest.json` holds the checksum of every file.

| kind | explanations |
|---|---|
{counts}

## Join

Score every explanation of the sides and shares that you choose. Do not read `kind`, `said` and `true` for it. Write a
CSV with the columns subject, side, share, latent_index, value, and compare:

```bash
isaerft benchmark --dataset FOLDER --scores mine.csv
```

## Columns

| column | meaning |
|---|---|
{columns}
{contexts}
## Read with care

- The worlds are small and their language is artificial. What finds wrong explanations here need not elsewhere.
- A half-true explanation names two concepts, any other names one twice: a text alone can give it away by its meaning.
- `scores` holds what training and the study's scorers say, to 6 digits. `control` must be at chance.
"""
_CONTEXTS = """
`contexts` holds windows of each world's corpus that no explainer saw: with `side` heldout the latent fires, with silent
it doesn't, with unmarked it doesn't fire on the marked token. `amplified_heldout` are tokens that it makes likelier.
"""


def study_benchmark(plan: Plan, results: Results) -> Benchmark:
    """Return the benchmark of a finished study from its tables.

    Raises
    ------
    InputError
        No source has a key, or a table is missing or broken.
    """
    if "benchmark" not in analysis.tables_of(plan):
        raise InputError(
            f"study {plan.study.study!r} has no benchmark",
            allowed="studies of several behaviors with a source that has a `key`",
            remedy="see docs/benchmark.md",
        )
    read = {name: analysis.table(name).read(results.table(name)) for name in ("explanation_verdicts",)}
    scores = pd.DataFrame(columns=["subject", "source", "latent_index", *SCORE, "value"])
    if plan.study.scorers:
        scores = analysis.table("explanation_scores").read(results.table("explanation_scores"))
    return benchmark_of(plan, results, read["explanation_verdicts"], scores)


def benchmark_folder(plan: Plan, results: Results, benchmark: Benchmark) -> Folder:
    """Return a benchmark as a data set: a card, a Parquet file for each part, and a manifest with their checksums."""
    parts = {name: getattr(benchmark, name)[columns] for name, columns in _PARTS.items() if name != "seconds"}
    if len(benchmark.seconds):
        parts["seconds"] = benchmark.seconds[_PARTS["seconds"]]
    worlds = list(dict.fromkeys(benchmark.explanations["subject"]))
    scored = {world: results.subject(world).scored for world in worlds}
    if all(path.is_file() for path in scored.values()):
        parts[CONTEXTS] = pd.concat(
            [read_contexts(path).assign(subject=world) for world, path in scored.items()], ignore_index=True
        )
    files = {f"{name}.parquet": _parquet(part) for name, part in parts.items()}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    version = f"{VERSION}+{hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:12]}"
    manifest: dict[str, Any] = {
        "version": version,
        "isaerft": VERSION,
        "study": plan.study.study,
        "judge": benchmark.judge,
        "confidence_level": plan.study.agreement.confidence_level,
        "files": {
            name: {"sha256": digests[name], "bytes": len(content), "rows": len(parts[name.removesuffix(".parquet")])}
            for name, content in files.items()
        },
    }
    files[CARD] = _card(plan, benchmark, version, list(parts)).encode("utf-8", "replace")
    files[MANIFEST] = (json.dumps(manifest, indent=2) + "\n").encode()
    return Folder(files, "`isaerft benchmark --dataset` and `datasets.load_dataset` read it")


def read_benchmark_folder(folder: Path) -> tuple[Benchmark, float]:
    """Read a folder that `benchmark_folder` made; return the benchmark and its confidence level.

    Raises
    ------
    InputError
        A file is missing, or is not the one that the manifest describes.
    """
    manifest: Any = read_json(folder / MANIFEST)
    said = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(said, dict) or not {"explanations.parquet", "scores.parquet"} <= set(said):
        raise InputError(f"{folder / MANIFEST} is not the manifest of a benchmark", remedy="export it again")
    parts = {}
    for name, columns in _PARTS.items():
        path = folder / f"{name}.parquet"
        if path.name not in said:
            parts[name] = pd.DataFrame(columns=columns)
            continue
        frame = read_parquet(path, missing=f"{path} does not exist", remedy="copy the whole folder")
        if hashlib.sha256(path.read_bytes()).hexdigest() != said[path.name].get("sha256"):
            raise InputError(f"{path} is not the file that {MANIFEST} describes", remedy="copy the folder again")
        if list(frame) != columns:
            raise InputError(f"{path} has the columns {', '.join(map(str, frame))}", allowed=", ".join(columns))
        parts[name] = frame
    judge, level = str(manifest.get("judge")), manifest.get("confidence_level")
    if not isinstance(level, float) or not 0 < level < 1:
        raise InputError(f"{folder / MANIFEST}: confidence_level {level!r}", allowed="a share")
    return Benchmark(parts["explanations"], parts["scores"], judge, parts["seconds"]), level


def _parquet(frame: pd.DataFrame) -> bytes:
    stream = io.BytesIO()
    frame.reset_index(drop=True).to_parquet(stream, index=False)
    return stream.getvalue()


def _card(plan: Plan, benchmark: Benchmark, version: str, parts: list[str]) -> str:
    """Return the data set's card."""
    title = f"{plan.study.study}: explanations of known truth"
    configs = [f"- config_name: {name}\n  data_files: {name}.parquet" for name in parts]
    configs[0] += "\n  default: true"
    kinds = benchmark.explanations["kind"].value_counts()
    named = dict.fromkeys(column for name in parts for column in _PARTS.get(name, []))
    return _CARD.format(
        title=plain(title),
        heading=escaped(title),
        configs="\n".join(configs),
        n_explanations=len(benchmark.explanations),
        n_worlds=benchmark.explanations["subject"].nunique(),
        n_kinds=kinds.drop("right", errors="ignore").size,
        version=version,
        isaerft=VERSION,
        study=plain(plan.study.study),
        counts="\n".join(f"| {plain(kind)} | {n:,} |" for kind, n in kinds.items()),
        columns="\n".join(f"| {name} | {MEANINGS[name]} |" for name in named),
        contexts=_CONTEXTS if CONTEXTS in parts else "",
    )
