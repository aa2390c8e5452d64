"""The forms in which files of explanations come, told apart by their columns.

| form | columns | index |
|---|---|---|
| Neuronpedia export | modelId, layer, index, description[, explanationModelName, typeName] | index, text or number |
| AxBench metadata.jsonl | concept, ref | end of ref, https://www.neuronpedia.org/{model}/{layer}/{index} |
| feature-circuits | Name, Annotation | end of Name, {component}[_{layer}]/{index} |
| table | latent_index, explanation[, side, url] | latent_index |

A file may speak of several SAEs (`part` says which); the file source then wants to be told which one is meant.

Explanations from a local file: a Neuronpedia export, AxBench metadata, feature-circuits annotations, or a table.

    sources:
      neuronpedia:
        kind: file
        path: exports/gemma-2-2b_20-gemmascope-res-16k.jsonl.gz
        options: {prefer: "gpt-4o-mini/oai_token-act-pair, human"}

`path` may also be a folder of such files (Neuronpedia's bulk export comes in batches), read in order of their names.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from isaerft.config import Source
from isaerft.errors import InputError, printable, shown, unknown_name
from isaerft.explanations.base import check_indices, clean_text, clean_url, ranks_of_makers
from isaerft.io import Row, read_data_file

NEURONPEDIA = "https://www.neuronpedia.org"
_REF = re.compile(r"(?:(?P<model>[^/]+)/(?P<layer>[^/]+)/)?(?P<index>\d{1,18})/?$")
_NAME = re.compile(r"(?P<component>[A-Za-z]+)(?:_(?P<layer>\d+))?/(?P<index>\d{1,18})")
_SLUG = re.compile(r"[A-Za-z0-9._-]+")


class Entry(NamedTuple):
    """One explanation as a file gives it.

    `part` is which SAE it speaks of, as (model, layer, component), each "" when the form does not say. `maker` is
    "explanationModelName/typeName" where known. `side` is "" when the file does not say.
    """

    latent_index: int
    explanation: object
    side: str = ""
    url: object = ""
    part: tuple[str, str, str] = ("", "", "")
    maker: str = ""


class Form(NamedTuple):
    """A form: its name, the columns that tell it, how one row is read (None: the row holds no explanation)."""

    name: str
    columns: frozenset[str]
    parse: Callable[[Row], Entry | None]


def form_of(row: Row) -> Form:
    """Return the form of the file that begins with `row`; for an unknown one, an `InputError` says what was found."""
    for form in FORMS:
        if form.columns <= row.values.keys():
            return form
    found = ", ".join(printable(name) for name in list(row.values)[:20])
    known = "; ".join(f"{form.name} ({', '.join(sorted(form.columns))})" for form in FORMS)
    raise InputError(f"explanations at {row.location} have the columns {found or 'of no form'}", allowed=known)


def parse_row(form: Form, row: Row) -> Entry | None:
    """Read one row of a file of the given form; a row without the form's columns is an `InputError`."""
    for column in sorted(form.columns - row.values.keys()):
        raise unknown_name(f"column in {row.location}:", column, [printable(name) for name in row.values])
    return form.parse(row)


def latent_index(value: Any, place: str) -> int:
    """Return a latent's index given as number or text; anything else is an `InputError`."""
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,18}\s*", value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63:
        return value
    raise InputError(f"{place}: latent index {shown(value)}", allowed="an integer, 0 or more")


def _neuronpedia(row: Row) -> Entry:
    values = row.values
    index = latent_index(values["index"], row.location)
    model, layer = (_known(values[column]) for column in ("modelId", "layer"))
    maker = "/".join(_known(values.get(column)) for column in ("explanationModelName", "typeName")).strip("/")
    linkable = _SLUG.fullmatch(model) and _SLUG.fullmatch(layer)
    url = f"{NEURONPEDIA}/{model}/{layer}/{index}" if linkable else ""
    return Entry(index, values["description"], url=url, part=(model, layer, ""), maker=maker)


def _axbench(row: Row) -> Entry:
    ref = row.values["ref"]
    match = _REF.search(ref.strip()) if isinstance(ref, str) else None
    if match is None:
        raise InputError(
            f"{row.location}: ref {shown(ref)}", allowed="an address that ends in /{model}/{layer}/{index}"
        )
    part = (match["model"] or "", match["layer"] or "", "")
    return Entry(int(match["index"]), row.values["concept"], url=ref, part=part)


def _feature_circuits(row: Row) -> Entry | None:
    name = row.values["Name"]
    if name == "Name":  # the published file repeats its header as a row
        return None
    match = _NAME.fullmatch(name.strip()) if isinstance(name, str) else None
    if match is None:
        raise InputError(
            f"{row.location}: Name {shown(name)}", allowed="{component}_{layer}/{index}, such as resid_5/3036"
        )
    return Entry(int(match["index"]), row.values["Annotation"], part=("", match["layer"] or "", match["component"]))


def _table(row: Row) -> Entry:
    values = row.values
    side = _known(values.get("side"))
    if side not in ("", "input", "output", "both"):
        raise InputError(f"{row.location}: side {shown(side)}", allowed="input, output, both")
    return Entry(
        latent_index(values["latent_index"], row.location), values["explanation"], side, values.get("url") or ""
    )


def _known(value: object) -> str:
    """Return an optional name as text, absent as ""."""
    return "" if value is None else str(value).strip()


FORMS = (
    Form("Neuronpedia export", frozenset({"modelId", "layer", "index", "description"}), _neuronpedia),
    Form("AxBench metadata", frozenset({"concept", "ref"}), _axbench),
    Form("feature-circuits annotations", frozenset({"Name", "Annotation"}), _feature_circuits),
    Form("table", frozenset({"latent_index", "explanation"}), _table),
)


PARTS = ("model", "layer", "component")
OPTIONS = ("prefer", *PARTS)
MAX_LISTED = 10


def from_file(source: Source, *, subject_dir: Path, d_sae: int, latents: np.ndarray | None = None) -> pd.DataFrame:
    """Return the explanations that a file holds.

    Options: `model`, `layer`, `component` say which SAE is meant where the file speaks of several. `prefer` orders the
    makers of a latent's explanations: a comma-separated list of `explanationModelName/typeName` or one of the two;
    those that are not listed come after, and among equals the first in the file is taken.

    With `source.side` "input" or "output", a file's rows for the other side are left out (a row for the very side goes
    before one for both); with "both", a latent's input and output explanations are joined, unless the file has one for
    both. Rows without a side have the source's.

    `attrs["counts"]` of the result: rows, empty (no text), other_side, not_chosen (a latent's further explanations).

    Raises
    ------
    InputError
        The file is missing, damaged or of unknown form, an option fits nothing in it, it speaks of several SAEs, or a
        latent is beyond `d_sae`.
    """
    for option in source.options:
        if option not in OPTIONS:
            raise unknown_name("option of a file source:", option, OPTIONS)
    if source.path is None:
        raise InputError("explanation source of kind 'file' without a path", remedy="add `path:`")
    path = Path(source.path.replace("{subject_dir}", str(subject_dir)))
    entries = _of_one_sae(list(_entries(path)), source.options, path)
    counts = {"rows": len(entries)}
    frame = pd.DataFrame(
        {
            "latent_index": pd.Series([entry.latent_index for entry in entries], dtype="int64"),
            "explanation": [clean_text(entry.explanation) for entry in entries],
            "side": [entry.side or source.side for entry in entries],
            "url": [clean_url(entry.url) for entry in entries],
            "rank": ranks_of_makers([entry.maker for entry in entries], _prefer(source.options)),
        }
    )
    check_indices(frame["latent_index"], d_sae)
    with_text = frame[frame["explanation"] != ""]
    counts["empty"] = len(frame) - len(with_text)
    chosen = _chosen(with_text, source.side, counts)
    if chosen.empty:
        raise InputError(f"{path} explains no latent on side {source.side!r} ({counts})", remedy="check `side`")
    chosen.attrs["counts"] = counts
    return chosen


def _entries(path: Path) -> Iterator[Entry]:
    """Give the explanations of a file, or of all files of a folder."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
        if not files:
            raise InputError(f"folder {str(path)!r} holds no files", remedy="check the path in the config")
    else:
        files = [path]
    for file in files:
        form = None
        for row in read_data_file(file, inside="explanations"):
            form = form or form_of(row)
            entry = parse_row(form, _without_gaps(row))
            if entry is not None:
                yield entry


def _without_gaps(row: Row) -> Row:
    """Turn NaN (an empty cell of a Parquet column) into None."""
    values = {
        key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.values.items()
    }
    return Row(row.location, values)


def _of_one_sae(entries: list[Entry], options: dict[str, float | int | str | bool], path: Path) -> list[Entry]:
    """Keep the entries of the SAE that the options name; refuse what is left if it speaks of several."""
    for position, key in enumerate(PARTS):
        if key not in options:
            continue
        found = {entry.part[position] for entry in entries}
        entries = [entry for entry in entries if entry.part[position] == str(options[key])]
        if not entries:
            raise unknown_name(f"{key} of explanations in {path}:", options[key], map(printable, found - {""}))
    parts = Counter(entry.part for entry in entries)
    if len(parts) > 1:
        found_parts = [
            " ".join(f"{key}={printable(value)}" for key, value in zip(PARTS, part, strict=True) if value)
            for part in sorted(parts)
        ]
        listed = "; ".join(found_parts[:MAX_LISTED]) + ("; ..." if len(parts) > MAX_LISTED else "")
        raise InputError(
            f"{path} holds explanations of {len(parts)} SAEs ({listed})",
            allowed="one",
            remedy=f"say which one with the source's options {', '.join(PARTS)}",
        )
    return entries


def _prefer(options: dict[str, float | int | str | bool]) -> list[str]:
    """Return the preferred makers, in order."""
    return [name.strip() for name in str(options.get("prefer", "")).split(",") if name.strip()]


def _chosen(frame: pd.DataFrame, side: str, counts: dict[str, int]) -> pd.DataFrame:
    """Choose one explanation per latent, or join its two sides; count what was not taken."""
    fits = frame["side"].isin([side, "both"]) | (side == "both")
    best = frame[fits].sort_values("rank", kind="stable").drop_duplicates(["latent_index", "side"])
    exact = best["side"] == side
    has_exact = best["latent_index"].isin(best.loc[exact, "latent_index"])
    best = best[exact | ~has_exact].sort_values(["latent_index", "side"])
    counts["other_side"] = int((~fits).sum())
    counts["not_chosen"] = int(fits.sum()) - len(best)
    return best.groupby("latent_index", as_index=False).agg(
        explanation=("explanation", "; ".join), side=("side", _joint), url=("url", "first")
    )


def _joint(sides: pd.Series) -> str:
    """Return the side that joined explanations speak of."""
    return sides.iloc[0] if sides.nunique() == 1 else "both"
