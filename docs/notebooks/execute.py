"""Run the notebooks of this folder and keep their outputs: `python docs/notebooks/execute.py [NAME ...]`.

`tests/test_notebooks.py` runs them anew and compares. Cells tagged `world` show what differs between processors,
because the toy model is trained from scratch: their outputs are compared by structure, all others exactly.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent
WORLD = "world"
TIMEOUT = 1200
_SHAPE = re.compile(r"<(table|iframe|img|th|tr|dl|details)\b")
_HEAD = re.compile(r"<th>([^<]*)</th>")


def names() -> list[str]:
    """Return the notebooks in the order in which they are read."""
    found = {path.stem for path in FOLDER.glob("*.ipynb")}
    first = [name for name in ("quickstart", "reading_results", "own_behavior") if name in found]
    return first + sorted(found - set(first))


def stored(name: str) -> Any:
    """Return a notebook as it is kept."""
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def executed(name: str, folder: Path) -> Any:
    """Return a notebook, run in a folder; an error of a cell is raised."""
    notebook = stored(name)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=TIMEOUT, kernel_name="python3", resources=resources).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.metadata.pop("execution", None)
            # Progress and warnings go to stderr; they tell of this run, not of the result.
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    notebook.metadata.language_info = {"name": "python"}
    return notebook


def outline(cell: Any) -> list[Any]:
    """Return what a cell's outputs must have in common with those that are kept."""
    found: list[Any] = []
    for out in cell.outputs:
        data = out.get("data", {"text/plain": out.get("text", "")})
        if WORLD not in cell.metadata.get("tags", []):
            found.append((out.output_type, dict(data)))
            continue
        page = data.get("text/html", "")
        found.append((out.output_type, sorted(data), sorted(set(_SHAPE.findall(page))), _columns(page)))
    return found


def _columns(page: str) -> list[str]:
    """Return the names of a table's columns; not those of its rows."""
    return [text for text in _HEAD.findall(page.split("</thead>")[0]) if text]


if __name__ == "__main__":
    for chosen in sys.argv[1:] or names():
        with tempfile.TemporaryDirectory() as temporary:
            nbformat.write(executed(chosen, Path(temporary)), FOLDER / f"{chosen}.ipynb")
