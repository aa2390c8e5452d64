"""The result tables of a study, one module each.

A module of this package that defines `TABLE` (or `TABLES`, where tables share nearly everything) adds a result table:
its name, caption, columns with meanings, the studies that have it, and the function that makes it. There is no other
list of tables: the workflow, the report and docs/tables.md use this one.

>>> from isaerft import analysis
>>> next(iter(analysis.TABLES))
'subjects'
>>> analysis.table("seeds").column("n_seeds").kind
'int'
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from isaerft.analysis.base import Analysis, ResultTable
from isaerft.config import Plan
from isaerft.errors import unknown_name
from isaerft.layout import Results

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TABLES", "Analysis", "ResultTable", "analysis_of", "table", "tables_of", "write_tables"]


class _Tables(Mapping[str, ResultTable]):
    """Every result table by name, in reading order, as the modules of this package define them."""

    def _found(self) -> dict[str, ResultTable]:
        tables: list[ResultTable] = []
        for module in pkgutil.iter_modules(__path__, __name__ + "."):
            if not module.name.endswith(".__main__"):
                defined = vars(import_module(module.name))
                tables += [defined["TABLE"]] if "TABLE" in defined else []
                # The mapping of this package, imported by a module, is no list of tables.
                tables += defined["TABLES"] if isinstance(defined.get("TABLES"), list) else []
        tables.sort(key=lambda table: (table.order, table.name))
        found = {table.name: table for table in tables}
        if len(found) < len(tables):
            raise ValueError(f"two result tables share a name: {[table.name for table in tables]}")
        return found

    def __getitem__(self, name: str) -> ResultTable:
        return self._found()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found())

    def __len__(self) -> int:
        return len(self._found())


TABLES: Mapping[str, ResultTable] = _Tables()


def table(name: str) -> ResultTable:
    """Return a result table; an unknown name is an `InputError`."""
    if name not in TABLES:
        raise unknown_name("table", name, TABLES)
    return TABLES[name]


def tables_of(plan: Plan) -> list[str]:
    """Return the names of the tables that a study has, in reading order."""
    return [name for name, table in TABLES.items() if table.when(plan)]


def analysis_of(plan: Plan, results: Results, frames: dict[str, pd.DataFrame] | None = None) -> Analysis:
    """Return the analysis of a study; `frames` are tables that were made before."""
    return Analysis(plan, results, TABLES, {} if frames is None else frames)


def write_tables(plan: Plan, results: Results, out_dir: str | Path | None = None) -> None:
    """Make every table that a study has and write them as CSV: among its results, or under `out_dir`."""
    analysis = analysis_of(plan, results)
    frames = {name: analysis.frame(name) for name in tables_of(plan)}
    for name, frame in frames.items():
        table(name).write(frame, results.table(name) if out_dir is None else Path(out_dir) / f"{name}.csv")
