"""The source `file`: explanations from a local file, in one of four forms told apart by their columns.

| form | columns | latent index |
|---|---|---|
| Neuronpedia export | modelId, layer, index, description[, explanationModelName, typeName] | index, text or number |
| AxBench metadata.jsonl | concept, ref | end of ref, https://www.neuronpedia.org/{model}/{layer}/{index} |
| feature-circuits | Name, Annotation | end of Name, {component}[_{layer}]/{index} |
| table | latent_index, explanation[, side, url] | latent_index |

    sources:
      neuronpedia:
        kind: file
        path: exports/gemma-2-2b_20-gemmascope-res-16k.jsonl.gz
        options: {prefer: "gpt-4o-mini/oai_token-act-pair, human"}

`path` may also be a folder of such files (Neuronpedia's bulk export comes in batches); they are read in the order of
their names. A file may cover several SAEs; then options say which one is meant.

Three of the forms name an SAE, which is compared with the subject's own (`isaerft.explanations.provenance`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from isaerft.config import Source
from isaerft.errors import InputError, printable, shown, unknown_name
from isaerft.explanations.base import check_indices, clean_text, clean_url, names_of_maker, ranks_of_makers
from isaerft.explanations.neuronpedia.records import Explanation, side_of
from isaerft.explanations.provenance import Evidence
from isaerft.io import Row, read_data_file
from isaerft.provenance import About

NEURONPEDIA = "https://www.neuronpedia.org"
_REF = re.compile(r"(?:(?P<model>[^/]+)/(?P<layer>[^/]+)/)?(?P<index>\d{1,18})/?$")
_NAME = re.compile(r"(?P<component>[A-Za-z]+)(?:_(?P<layer>\d+))?/(?P<index>\d{1,18})")
_SLUG = re.compile(r"[A-Za-z0-9._-]+")
SAE_KEYS = ("model", "layer", "component")
OPTIONS = ("prefer", "maker", *SAE_KEYS)
MAX_LISTED = 10


class FileRow(NamedTuple):
    """One explanation in a file.

    `sae` is (model, layer, component), each "" if the form does not say. `maker` is "explanationModelName/typeName" if
    known. `side` is "" if the file does not say.
    """

    latent_index: int
    explanation: object
    side: str = ""
    url: object = ""
    sae: tuple[str, str, str] = ("", "", "")
    maker: str = ""


class Form(NamedTuple):
    """A form of file: its name, its columns, and how a row is read (None if the row has no explanation)."""

    name: str
    columns: frozenset[str]
    parse: Callable[[Row], FileRow | None]


def from_file(source: Source, *, subject_dir: Path, d_sae: int, latents: np.ndarray | None = None) -> pd.DataFrame:
    """Return the explanations in a file; see `isaerft.explanations.base.SourceFunction`.

    Options: `model`, `layer` and `component` select one SAE if the file covers several. `prefer` ranks the makers of a
    latent's explanations: a comma-separated list of `explanationModelName/typeName`, or one of the two. Makers that are
    not listed come last; among equals, the first in the file is taken. `maker` takes those of one maker only.

    With `source.side` "input" or "output", rows about the other side are left out, and a row about this side precedes
    one about both. With "both", a latent's input and output explanations are joined, unless the file has one about
    both. The side of a Neuronpedia export's rows follows from their maker. Rows without a side get the source's.

    `attrs["counts"]` of the result: rows, other_maker (with `maker`), empty (no text), other_side, not_chosen (further
    explanations of a latent). `attrs["evidence"]` says of which SAE they are.

    Raises
    ------
    InputError
        The file is missing, damaged or of an unknown form, an option matches nothing in it, it covers several SAEs, or
        a latent is beyond `d_sae`.
    """
    for option in source.options:
        if option not in OPTIONS:
            raise unknown_name("option of a file source:", option, OPTIONS)
    if source.path is None:
        raise InputError("explanation source of kind 'file' without a path", remedy="add `path:`")
    path = Path(source.path.replace("{subject_dir}", str(subject_dir)))
    rows = _of_one_sae(list(_read(path)), source.options, path)
    counts = {"rows": len(rows)}
    if "maker" in source.options:
        rows = _of_one_maker(rows, source.options["maker"])
        counts["other_maker"] = counts["rows"] - len(rows)
    frame = pd.DataFrame(
        {
            "latent_index": pd.Series([row.latent_index for row in rows], dtype="int64"),
            "explanation": [clean_text(row.explanation) for row in rows],
            "side": [row.side or source.side for row in rows],
            "url": [clean_url(row.url) for row in rows],
            "maker": [row.maker for row in rows],
            "rank": ranks_of_makers([row.maker for row in rows], _prefer(source.options)),
        }
    )
    check_indices(frame["latent_index"], d_sae)
    with_text = frame[frame["explanation"] != ""]
    counts["empty"] = len(frame) - len(with_text)
    chosen = _choose(with_text, source.side, counts)
    if chosen.empty:
        raise InputError(f"{path} explains no latent on side {source.side!r} ({counts})", remedy="check `side`")
    chosen.attrs |= {"counts": counts, "evidence": _evidence(rows[0].sae, path)}
    return chosen


def _read(path: Path) -> Iterator[FileRow]:
    """Yield the explanations of a file, or of all files of a folder."""
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
            parsed = parse_row(form, _without_nan(row))
            if parsed is not None:
                yield parsed


def _without_nan(row: Row) -> Row:
    """Replace NaN (an empty cell of a Parquet column) by None."""
    values = {
        key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.values.items()
    }
    return Row(row.location, values)


def _of_one_sae(rows: list[FileRow], options: dict[str, float | int | str | bool], path: Path) -> list[FileRow]:
    """Return the rows about the SAE that the options select; refuse them if they cover several."""
    for position, key in enumerate(SAE_KEYS):
        if key not in options:
            continue
        found = {row.sae[position] for row in rows}
        rows = [row for row in rows if row.sae[position] == str(options[key])]
        if not rows:
            raise unknown_name(f"{key} of explanations in {path}:", options[key], map(printable, found - {""}))
    saes = sorted({row.sae for row in rows})
    if len(saes) > 1:
        names = [
            " ".join(f"{key}={printable(value)}" for key, value in zip(SAE_KEYS, sae, strict=True) if value)
            for sae in saes[:MAX_LISTED]
        ]
        listed = "; ".join(names) + ("; ..." if len(saes) > MAX_LISTED else "")
        raise InputError(
            f"{path} holds explanations of {len(saes)} SAEs ({listed})",
            allowed="one",
            remedy=f"select one with the source's options {', '.join(SAE_KEYS)}",
        )
    return rows


def _evidence(sae: tuple[str, str, str], path: Path) -> Evidence:
    """Return of which SAE the explanations are, as far as the file tells."""
    model, layer, _ = sae
    return Evidence((About(f"the file {path}", source_id=f"{model}/{layer}" if model and layer else "", layer=layer),))


def _of_one_maker(rows: list[FileRow], maker: object) -> list[FileRow]:
    """Return the rows by a maker; none is an `InputError`."""
    found = [row for row in rows if maker in names_of_maker(row.maker)]
    if not found:
        raise unknown_name("maker of explanations:", maker, {printable(row.maker) for row in rows} - {""})
    return found


def _prefer(options: dict[str, float | int | str | bool]) -> list[str]:
    """Return the preferred makers, in order."""
    return [name.strip() for name in str(options.get("prefer", "")).split(",") if name.strip()]


def _choose(frame: pd.DataFrame, side: str, counts: dict[str, int]) -> pd.DataFrame:
    """Choose one explanation per latent, or join its two sides; count the others."""
    fits = frame["side"].isin([side, "both"]) | (side == "both")
    preferred = frame["rank"] == frame[fits].groupby("latent_index")["rank"].min().reindex(frame["latent_index"]).array
    best = frame[fits & preferred].drop_duplicates(["latent_index", "side"])
    exact = best["side"] == side
    has_exact = best["latent_index"].isin(best.loc[exact, "latent_index"])
    best = best[exact | ~has_exact].sort_values(["latent_index", "side"])
    counts["other_side"] = int((~fits).sum())
    counts["not_chosen"] = int(fits.sum()) - len(best)
    return best.groupby("latent_index", as_index=False).agg(
        explanation=("explanation", "; ".join), side=("side", _joined), url=("url", "first"), maker=("maker", _joined)
    )


def _joined(values: pd.Series) -> str:
    """Return the side that joined explanations are about, or their makers."""
    if values.nunique() == 1:
        return str(values.iloc[0])
    return "both" if values.name == "side" else "; ".join(values[values != ""])


def form_of(row: Row) -> Form:
    """Return the form of the file that begins with `row`; an unknown form is an `InputError`."""
    for form in FORMS:
        if form.columns <= row.values.keys():
            return form
    found = ", ".join(printable(name) for name in list(row.values)[:20])
    known = "; ".join(f"{form.name} ({', '.join(sorted(form.columns))})" for form in FORMS)
    raise InputError(f"explanations at {row.location} have the columns {found or 'of no form'}", allowed=known)


def parse_row(form: Form, row: Row) -> FileRow | None:
    """Read one row of a file of this form; a row without the form's columns is an `InputError`."""
    for column in sorted(form.columns - row.values.keys()):
        raise unknown_name(f"column in {row.location}:", column, [printable(name) for name in row.values])
    return form.parse(row)


def latent_index(value: object, place: str) -> int:
    """Return the index of a latent, given as number or text; anything else is an `InputError`."""
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,18}\s*", value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63:
        return value
    raise InputError(f"{place}: latent index {shown(value)}", allowed="an integer, 0 or more")


def _neuronpedia(row: Row) -> FileRow:
    values = row.values
    index = latent_index(values["index"], row.location)
    model, layer = (_text(values[column]) for column in ("modelId", "layer"))
    maker, kind = (clean_text(_text(values.get(column))) for column in ("explanationModelName", "typeName"))
    said = Explanation("", maker, kind)
    linkable = _SLUG.fullmatch(model) and _SLUG.fullmatch(layer)
    url = f"{NEURONPEDIA}/{model}/{layer}/{index}" if linkable else ""
    return FileRow(index, values["description"], side_of(said), url, (model, layer, ""), said.maker)


def _axbench(row: Row) -> FileRow:
    ref = row.values["ref"]
    match = _REF.search(ref.strip()) if isinstance(ref, str) else None
    if match is None:
        raise InputError(
            f"{row.location}: ref {shown(ref)}", allowed="an address that ends in /{model}/{layer}/{index}"
        )
    sae = (match["model"] or "", match["layer"] or "", "")
    return FileRow(int(match["index"]), row.values["concept"], url=ref, sae=sae)


def _feature_circuits(row: Row) -> FileRow | None:
    name = row.values["Name"]
    if name == "Name":  # the published file repeats its header
        return None
    match = _NAME.fullmatch(name.strip()) if isinstance(name, str) else None
    if match is None:
        raise InputError(
            f"{row.location}: Name {shown(name)}", allowed="{component}_{layer}/{index}, such as resid_5/3036"
        )
    return FileRow(int(match["index"]), row.values["Annotation"], sae=("", match["layer"] or "", match["component"]))


def _table(row: Row) -> FileRow:
    values = row.values
    side = _text(values.get("side"))
    if side not in ("", "input", "output", "both"):
        raise InputError(f"{row.location}: side {shown(side)}", allowed="input, output, both")
    return FileRow(
        latent_index(values["latent_index"], row.location), values["explanation"], side, values.get("url") or ""
    )


def _text(value: object) -> str:
    """Return an optional value as text, a missing one as ""."""
    return "" if value is None else str(value).strip()


FORMS = (
    Form("Neuronpedia export", frozenset({"modelId", "layer", "index", "description"}), _neuronpedia),
    Form("AxBench metadata", frozenset({"concept", "ref"}), _axbench),
    Form("feature-circuits annotations", frozenset({"Name", "Annotation"}), _feature_circuits),
    Form("table", frozenset({"latent_index", "explanation"}), _table),
)
