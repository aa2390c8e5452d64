"""The files of an annotation sheet: as CSV, as a page, and as the record that reading the answers back needs.

- `sheet.csv`: one row per question, for a spreadsheet or a language model
- `sheet.html`: the same as a page that needs no network
- `sheet.json`: what was asked, of which study, made from which files
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path

from isaerft.annotation.page import sheet_page
from isaerft.annotation.sheet import EXPLAIN, JUDGE, Evidence, Sheet
from isaerft.errors import InputError
from isaerft.io import read_json, replacing, write_json, write_text
from isaerft.table import neutral_text

JUDGE_COLUMNS = ("sheet", "item", "explanation", "behavior", "description", "expected", "done")


def write_sheet(folder: str | Path, sheet: Sheet, evidence: Sequence[Evidence] = ()) -> None:
    """Write the three files of a sheet into a folder, sheet.json last.

    Raises
    ------
    InputError
        The folder holds another sheet, or this one with answers.
    """
    folder = Path(folder)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows(_explain_rows(sheet, evidence) if sheet.task == EXPLAIN else _judge_rows(sheet))
    data = text.getvalue().encode("utf-8-sig")  # spreadsheets know UTF-8 by the mark
    table = folder / "sheet.csv"
    if table.is_file() and table.read_bytes() != data:
        raise InputError(f"{table} holds another sheet, or answers", remedy="choose another folder")
    with replacing(table) as temporary:
        temporary.write_bytes(data)
    write_text(folder / "sheet.html", sheet_page(sheet, evidence))
    write_json(folder / "sheet.json", {"sheet": sheet.id, **asdict(sheet)})


def read_sheet(folder: str | Path) -> Sheet:
    """Read the sheet.json of a folder.

    Raises
    ------
    InputError
        The file is missing, or is not as `write_sheet` wrote it.
    """
    path = Path(folder) / "sheet.json"
    values = read_json(path)
    known = {one.name for one in fields(Sheet)}
    if isinstance(values, dict) and values.keys() == known | {"sheet"}:
        sheet = Sheet(**{name: values[name] for name in known})
        if sheet.id == values["sheet"] and sheet.task in (EXPLAIN, JUDGE):
            return sheet
    raise InputError(f"{path} is not the sheet.json of a sheet, or was edited", remedy="use the file as it was made")


def _explain_rows(sheet: Sheet, evidence: Sequence[Evidence]) -> Iterator[list[object]]:
    """Yield the header and the lines of a sheet that asks for explanations."""
    width = max(len(one.contexts) for one in evidence)
    numbered = [f"context_{number}" for number in range(1, width + 1)]
    yield ["sheet", "latent_index", *numbered, "promoted", "amplified", "explanation", "done"]
    for latent, one in zip(sheet.latents, evidence, strict=True):
        contexts = [neutral_text(f"{e.strength}: {e.before}<<{e.token}>>{e.after}") for e in one.contexts]
        lists = [neutral_text(", ".join(f'"{token}"' for token in tokens)) for tokens in (one.promoted, one.amplified)]
        yield [sheet.id, latent, *contexts, *[""] * (width - len(contexts)), *lists, "", ""]


def _judge_rows(sheet: Sheet) -> Iterator[list[object]]:
    """Yield the header and the lines of a sheet that asks for judgements."""
    yield [*JUDGE_COLUMNS]
    for item, text in enumerate(sheet.explanations, 1):
        for behavior, description in sheet.behaviors.items():
            yield [sheet.id, item, neutral_text(text), behavior, neutral_text(description), "", ""]
