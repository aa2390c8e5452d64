"""Write docs/tables.md, the reference of the result tables, from the tables themselves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from isaerft.analysis.base import ResultTable
from isaerft.io import write_text

PAGE = Path("docs/tables.md")
COMMAND = "python -m isaerft.analysis"
_HEAD = f"""# Result tables

A study writes its tables to `results/{{study}}/tables/` as CSV: UTF-8, one header row, no index column. An undefined
value is an empty field, never 0. Each table has an HTML twin in `results/{{study}}/pages/`.

Generated from isaerft/analysis/ by `{COMMAND}`; do not edit by hand.

"""


def write_reference(root: str | Path = ".") -> Path:
    """Write the page under `root`, the repository, and return its path."""
    path = Path(root) / PAGE
    write_text(path, tables_page())
    return path


def tables_page(tables: Mapping[str, ResultTable] | None = None) -> str:
    """Return docs/tables.md: a list of the tables, and a section for each with one row per column."""
    if tables is None:
        from isaerft.analysis import TABLES

        tables = TABLES
    listed = "".join(f"- [{name}](#{name})\n" for name in tables)
    return _HEAD + listed + "".join(_section(table) for table in tables.values())


def _section(table: ResultTable) -> str:
    rows = "".join(
        f"| `{column.name}` | {column.kind}{', may be empty' if column.optional else ''} | {_cell(column.meaning)} |\n"
        for column in table.columns
    )
    return (
        f"\n## {table.name}\n{table.caption}\n\nIn: {table.condition}.\n\n"
        f"| column | kind | meaning |\n|---|---|---|\n{rows}"
    )


def _cell(text: str) -> str:
    """Return `text` fit for a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", r"\|")
