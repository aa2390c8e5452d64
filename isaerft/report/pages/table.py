"""A table as a page that a person can read and sort; the CSV beside it stays the record."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pandas as pd

from isaerft.report.columns import meaning
from isaerft.report.pages.template import SORT_SCRIPT, page, render
from isaerft.report.selection import find_primary, matching
from isaerft.report.text import count, number, plural, undefined, visible
from isaerft.table import Column, columns_of, conform

MAX_ROWS = 2000
_PLAIN_INTEGERS = {"seed", "latent_index", "rank", "k"}
_PVALUES = {"pvalue", "qvalue"}
_LONG = {"explanation", "reason"}
_LINK = re.compile(r"https?://[A-Za-z0-9.-]+(:\d+)?(/[^\s\"'<>\\]*)?")

_BODY = """
<h1>{{ name }}</h1>
<p>{{ caption }}</p>
<p class="note">{{ rows_note }} A dash means undefined. Click a heading to sort.</p>
{% if constant %}<p class="note">The same in every row:
{% for item in constant %}<b>{{ item.name }}</b> {{ item.text }}{{ "." if loop.last else ", " }}{% endfor %}</p>
{% endif %}
<details><summary>What the columns mean</summary>
<dl>
{% for column in columns %}<dt>{{ column.name }}</dt><dd>{{ column.help }}</dd>
{% endfor %}</dl>
</details>
<div class="scroll tall">
<table>
<thead><tr>
{% for column in shown_columns %}<th scope="col" title="{{ column.help }}"
{%- if column.css %} class="{{ column.css }}"{% endif %}><button type="button">{{ column.name }}</button></th>
{% endfor %}</tr></thead>
<tbody>
{% for row in rows %}<tr{% if row.primary %} class="primary"{% endif %}>
{%- for cell in row.cells %}<td{% if cell.css %} class="{{ cell.css }}"{% endif %} data-v="{{ cell.key }}"
{%- if cell.css != "n" %} dir="auto"{% endif %}>
{%- if cell.link %}<a href="{{ cell.link }}" target="_blank" rel="noopener noreferrer nofollow">{{ cell.text }}</a>
{%- else %}{{ cell.text }}{% endif %}</td>{% endfor %}</tr>
{% endfor %}</tbody>
</table>
</div>
"""


class Cell(NamedTuple):
    """A cell as shown: its text, the key it sorts by (empty when undefined), its CSS class, and a link."""

    text: str
    key: str
    css: str = ""
    link: str = ""


def table_page(name: str, frame: pd.DataFrame, caption: str) -> str:
    """Return table `name` as a self-contained, sortable HTML page.

    Parameters
    ----------
    name : str
        Name of the table in `isaerft.table.TABLES`.
    frame : DataFrame
        Its rows; checked against the table's columns.
    caption : str
        Shown under the heading.

    Text columns with one value throughout are said once above the table; the primary
    results come first, each behavior's controls below its result.

    Raises
    ------
    InputError
        The table is unknown or `frame` does not conform to it.
    """
    frame = conform(name, frame).reset_index(drop=True)
    columns = columns_of(name)
    if name == "agreement":
        frame = _primary_first(frame)
    constant = [column for column in columns if len(frame) > 1 and _is_constant(column, frame[column.name])]
    varying = [column for column in columns if column not in constant]
    shown = frame.head(MAX_ROWS)
    is_primary = shown["primary"].fillna(False).to_list() if "primary" in shown else [False] * len(shown)
    rows = [
        {"primary": primary, "cells": [cell(column, value) for column, value in zip(varying, values, strict=True)]}
        for primary, values in zip(is_primary, _values(shown, varying), strict=True)
    ]
    note = f"{plural(len(frame), 'row')}."
    if len(frame) > MAX_ROWS:
        note = f"The first {MAX_ROWS:,} of {len(frame):,} rows are shown; {name}.csv holds all."
    body = render(
        _BODY,
        name=name,
        caption=caption,
        rows_note=note,
        constant=[{"name": c.name, "text": cell(c, frame[c.name].iloc[0]).text} for c in constant],
        columns=_helped(name, columns),
        shown_columns=_helped(name, varying),
        rows=rows,
    )
    return page(name, body, script=SORT_SCRIPT)


def _is_constant(column: Column, values: pd.Series) -> bool:
    """Return whether a short text column has one value throughout, or any text column none."""
    short = column.kind == "text" and column.name not in _LONG | {"url"}
    return (short or (column.kind == "text" and values.isna().all())) and values.nunique(dropna=False) == 1


def _primary_first(agreement: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with results and controls at the primary combination first, so that no cap hides them."""
    primary = find_primary(agreement)
    if primary is None:
        return agreement
    first = matching(agreement, primary)
    return pd.concat([first, agreement.drop(first.index)])


def _values(frame: pd.DataFrame, columns: list[Column]) -> Iterator[tuple[object, ...]]:
    """Return the rows' values in the given columns."""
    return frame[[column.name for column in columns]].itertuples(index=False, name=None)


def _helped(name: str, columns: Iterable[Column]) -> list[dict[str, str]]:
    """Return each column's name, meaning and CSS class."""
    return [{"name": c.name, "help": meaning(name, c.name), "css": _css(c)} for c in columns]


def cell(column: Column, value: object) -> Cell:
    """Return one value as a cell."""
    css = _css(column)
    if undefined(value):
        return Cell(visible(value), "", css)
    if column.kind == "int":
        return Cell(str(value) if column.name in _PLAIN_INTEGERS else count(value), str(value), css)
    if column.kind == "float":
        return Cell(number(value, 2 if column.name in _PVALUES else 4), repr(float(value)), css)  # type: ignore[arg-type]
    if column.kind == "bool":
        return Cell("yes" if value else "no", "yes" if value else "no", css)
    text = visible(value)
    link = text if column.name == "url" and _LINK.fullmatch(str(value)) else ""
    return Cell(text, text, css, link)


def _css(column: Column) -> str:
    """Return the CSS class of a column's cells."""
    if column.kind in {"int", "float"}:
        return "n"
    return "long" if column.name in _LONG else ""
