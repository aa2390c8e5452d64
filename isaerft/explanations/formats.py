"""The forms in which files of explanations come, told apart by their columns.

| form | columns | index |
|---|---|---|
| Neuronpedia export | modelId, layer, index, description[, explanationModelName, typeName] | index, text or number |
| AxBench metadata.jsonl | concept, ref | end of ref, https://www.neuronpedia.org/{model}/{layer}/{index} |
| feature-circuits | Name, Annotation | end of Name, {component}[_{layer}]/{index} |
| table | latent_index, explanation[, side, url] | latent_index |

A file may speak of several SAEs (`part` says which); the file source then wants to be told which one is meant.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from isaerft.behaviors.rows import Row, printable
from isaerft.errors import InputError, shown, unknown_name

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
    raise InputError(f"explanations at {row.place} have the columns {found or 'of no form'}", allowed=known)


def parse_row(form: Form, row: Row) -> Entry | None:
    """Read one row of a file of the given form; a row without the form's columns is an `InputError`."""
    for column in sorted(form.columns - row.values.keys()):
        raise unknown_name(f"column in {row.place}:", column, [printable(name) for name in row.values])
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
    index = latent_index(values["index"], row.place)
    model, layer = (_known(values[column]) for column in ("modelId", "layer"))
    maker = "/".join(_known(values.get(column)) for column in ("explanationModelName", "typeName")).strip("/")
    linkable = _SLUG.fullmatch(model) and _SLUG.fullmatch(layer)
    url = f"{NEURONPEDIA}/{model}/{layer}/{index}" if linkable else ""
    return Entry(index, values["description"], url=url, part=(model, layer, ""), maker=maker)


def _axbench(row: Row) -> Entry:
    ref = row.values["ref"]
    match = _REF.search(ref.strip()) if isinstance(ref, str) else None
    if match is None:
        raise InputError(f"{row.place}: ref {shown(ref)}", allowed="an address that ends in /{model}/{layer}/{index}")
    part = (match["model"] or "", match["layer"] or "", "")
    return Entry(int(match["index"]), row.values["concept"], url=ref, part=part)


def _feature_circuits(row: Row) -> Entry | None:
    name = row.values["Name"]
    if name == "Name":  # the published file repeats its header as a row
        return None
    match = _NAME.fullmatch(name.strip()) if isinstance(name, str) else None
    if match is None:
        raise InputError(
            f"{row.place}: Name {shown(name)}", allowed="{component}_{layer}/{index}, such as resid_5/3036"
        )
    return Entry(int(match["index"]), row.values["Annotation"], part=("", match["layer"] or "", match["component"]))


def _table(row: Row) -> Entry:
    values = row.values
    side = _known(values.get("side"))
    if side not in ("", "input", "output", "both"):
        raise InputError(f"{row.place}: side {shown(side)}", allowed="input, output, both")
    return Entry(latent_index(values["latent_index"], row.place), values["explanation"], side, values.get("url") or "")


def _known(value: object) -> str:
    """Return an optional name as text, absent as ""."""
    return "" if value is None else str(value).strip()


FORMS = (
    Form("Neuronpedia export", frozenset({"modelId", "layer", "index", "description"}), _neuronpedia),
    Form("AxBench metadata", frozenset({"concept", "ref"}), _axbench),
    Form("feature-circuits annotations", frozenset({"Name", "Annotation"}), _feature_circuits),
    Form("table", frozenset({"latent_index", "explanation"}), _table),
)
