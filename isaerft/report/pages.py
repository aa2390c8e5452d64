"""Pages of one table each, sortable, and the page of answers before and after training."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import pandas as pd

from isaerft.report.latents import address
from isaerft.report.selection import find_primary, matching
from isaerft.report.template import SORT_SCRIPT, grid, page, render
from isaerft.report.text import ELLIPSIS, count, fixed, number, plural, undefined, visible, web_address, words
from isaerft.table import Column, Table

MAX_ROWS = 2000
MAX_CHARACTERS = 600
_PLAIN_INTEGERS = {"seed", "latent_index", "rank", "k"}
_PVALUES = {"pvalue", "qvalue"}
_LONG = {"explanation", "reason"}

_TABLE_BODY = """
<h1>{{ table.name }}</h1>
<p>{{ table.caption }}</p>
<p class="note">{{ note }} A dash means undefined. Click a heading to sort.</p>
{% if constant %}<p class="note">The same in every row:
{% for name, text in constant %}<b>{{ name }}</b> {{ text }}{{ "." if loop.last else ", " }}{% endfor %}</p>
{% endif %}
<details><summary>What the columns mean</summary>
<dl>
{% for column in table.columns %}<dt>{{ column.name }}</dt><dd>{{ column.meaning }}</dd>
{% endfor %}</dl>
</details>
<div class="scroll tall">
<table>
<thead><tr>
{% for column in shown %}<th scope="col" title="{{ column.meaning }}"
{%- if css(column) %} class="{{ css(column) }}"{% endif %}><button type="button">{{ column.name }}</button></th>
{% endfor %}</tr></thead>
<tbody>
{% for primary, cells in rows %}<tr{% if primary %} class="primary"{% endif %}>
{%- for cell in cells %}<td{% if cell.css %} class="{{ cell.css }}"{% endif %} data-v="{{ cell.key }}"
{%- if cell.css != "n" %} dir="auto"{% endif %}>
{%- if cell.inside %}<a href="{{ cell.link }}">{{ cell.text }}</a>
{%- elif cell.link %}<a href="{{ cell.link }}" target="_blank" rel="noopener noreferrer nofollow">{{ cell.text }}</a>
{%- else %}{{ cell.text }}{% endif %}</td>{% endfor %}</tr>
{% endfor %}</tbody>
</table>
</div>
"""

_ANSWERS_BODY = """
<div class="page">
<h1>Answers before and after training</h1>
<p>A few held-out prompts, answered by the model itself and with each adapter, with the behavior's score of each answer.
These are examples; behavior_check.csv compares all of them. The text comes from the model or the data.</p>
{% for name, answers in groups %}
<h2>{{ name }}</h2>
{{ answers }}
{% else %}<p>No behavior was checked.</p>
{% endfor %}
</div>
"""


class Cell(NamedTuple):
    """A cell: its text, its key for sorting (empty if undefined), its CSS class, and a link (ours if `inside`)."""

    text: str
    key: str
    css: str = ""
    link: str = ""
    inside: bool = False


def table_page(table: Table, frame: pd.DataFrame, *, latent_page: str = "", subjects: Collection[str] = ()) -> str:
    """Return a table as a self-contained, sortable HTML page; the CSV remains the record.

    Short text columns with one value throughout are given once above the table. The primary results come first, each
    with its controls.

    Parameters
    ----------
    table : Table
        Its name, caption and columns.
    frame : DataFrame
        Its rows, as read by `table.read`.
    latent_page : str
        Relative address of the page of single latents, to which a latent's index links; empty without one.
    subjects : collection of str
        Subjects whose latents are on that page.
    """
    if table.name == "agreement":
        frame = _primary_first(frame)
    constant = [column for column in table.columns if len(frame) > 1 and _is_constant(column, frame[column.name])]
    varying = [column for column in table.columns if column not in constant]
    head = frame.head(MAX_ROWS)
    primary = head["primary"].fillna(False).to_list() if "primary" in head else [False] * len(head)
    values = head[[column.name for column in varying]].itertuples(index=False, name=None)
    rows: Iterable[list[Cell]] = (list(map(_cell, varying, row)) for row in values)
    if latent_page and {"subject", "latent_index"} <= set(head):
        links = [
            latent_page + address(subject, latent) if subject in subjects else ""
            for subject, latent in zip(head["subject"], head["latent_index"], strict=True)
        ]
        rows = _linked(rows, [column.name for column in varying].index("latent_index"), links)
    note = f"{plural(len(frame), 'row')}."
    if len(frame) > MAX_ROWS:
        note = f"The first {MAX_ROWS:,} of {len(frame):,} rows are shown; {table.name}.csv has all."
    body = render(
        _TABLE_BODY,
        table=table,
        note=note,
        constant=[(column.name, _cell(column, frame[column.name].iloc[0]).text) for column in constant],
        shown=varying,
        css=_css,
        rows=zip(primary, rows, strict=True),
    )
    return page(table.name, body, script=SORT_SCRIPT)


def answers_page(groups: Mapping[str, Iterable[Mapping[str, object]]], shown: int) -> str:
    """Return the page of answers before and after training.

    Parameters
    ----------
    groups : mapping of str to iterable of mapping
        Heading -> answers: adapter, prompt, before, after, score_before, score_after. Text is untrusted.
    shown : int
        Answers shown of each adapter, the first ones.
    """
    head = ("adapter", "prompt", "before", "score before", "after", "score after")
    numeric, long = ("score before", "score after"), ("prompt", "before", "after")
    tables = [
        (words(name), grid(head, _answers(lines, shown), numeric=numeric, long=long)) for name, lines in groups.items()
    ]
    return page("Answers before and after training", render(_ANSWERS_BODY, groups=tables))


def _linked(rows: Iterable[list[Cell]], place: int, links: Iterable[str]) -> Iterator[list[Cell]]:
    """Yield rows whose cell at `place` links to another page of the study."""
    for row, link in zip(rows, links, strict=True):
        cell = row[place]._replace(link=link, inside=bool(link))
        yield [*row[:place], cell, *row[place + 1 :]]


def _is_constant(column: Column, values: pd.Series) -> bool:
    """Tell whether a short text column has one value throughout, or any text column none."""
    short = column.kind == "text" and column.name not in _LONG | {"url"}
    return (short or (column.kind == "text" and bool(values.isna().all()))) and values.nunique(dropna=False) == 1


def _primary_first(agreement: pd.DataFrame) -> pd.DataFrame:
    """Return results and controls at the primary combination first, so that no cap hides them."""
    primary = find_primary(agreement)
    if primary is None:
        return agreement
    agreement = agreement.reset_index(drop=True)
    first = matching(agreement, primary)
    return pd.concat([first, agreement.drop(first.index)])


def _cell(column: Column, value: Any) -> Cell:
    """Return one value as a cell."""
    css = _css(column)
    if undefined(value):
        return Cell(visible(value), "", css)
    if column.kind == "int":
        return Cell(str(value) if column.name in _PLAIN_INTEGERS else count(value), str(value), css)
    if column.kind == "float":
        return Cell(number(value, 2 if column.name in _PVALUES else 4), repr(float(value)), css)
    if column.kind == "bool":
        return Cell("yes" if value else "no", "yes" if value else "no", css)
    text = visible(value)
    link = web_address(value) if column.name == "url" else ""
    return Cell(text, text, css, link)


def _css(column: Column) -> str:
    """Return the CSS class of a column's cells."""
    if column.kind in {"int", "float"}:
        return "n"
    return "long" if column.name in _LONG else ""


def _answers(lines: Iterable[Mapping[str, object]], shown: int) -> list[list[str]]:
    """Return the cells of the first `shown` answers of each adapter."""
    counts: dict[str, int] = {}
    rows = []
    for line in lines:
        adapter = visible(line["adapter"])
        counts[adapter] = counts.get(adapter, 0) + 1
        if counts[adapter] <= shown:
            before, after = (_beginning(visible(line[name])) for name in ("before", "after"))
            scores = [fixed(line[name]) for name in ("score_before", "score_after")]
            rows.append([adapter, _end(visible(line["prompt"])), before, scores[0], after, scores[1]])
    return rows


def _beginning(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + ELLIPSIS


def _end(text: str) -> str:
    """Return the end of a prompt, the part that is answered."""
    return text if len(text) <= MAX_CHARACTERS else ELLIPSIS + text[-MAX_CHARACTERS:]
