"""The notebooks of the docs run as they are, leave no litter, and show what is kept in them."""

import json
import re
import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "docs/notebooks"
RUN = runpy.run_path(str(FOLDER / "execute.py"))
NAMES = RUN["names"]()
LARGEST = 400_000


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_in_an_empty_folder_and_shows_what_is_kept(name, tmp_path):
    kept = RUN["stored"](name)
    new = RUN["executed"](name, tmp_path)
    for before, after in zip(kept.cells, new.cells, strict=True):
        if before.cell_type == "code":
            assert RUN["outline"](after) == RUN["outline"](before), before.source


@pytest.mark.parametrize("name", NAMES)
def test_what_is_kept_is_small_and_says_nothing_of_the_machine_that_ran_it(name):
    text = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    assert len(text) < LARGEST
    assert not re.search(r"/(home|tmp|work|root|Users|var)/|[0-9]+:[0-9]{2}<|step/s|Warning|Traceback", text)
    for cell in json.loads(text)["cells"]:
        assert set(cell["metadata"]) <= {"tags"}
        assert {out.get("name", "") for out in cell.get("outputs", [])} <= {"", "stdout"}


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_that_shows_something_has_its_output(name):
    cells = [cell for cell in RUN["stored"](name).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert sum(bool(cell.outputs) for cell in cells) > len(cells) / 2


def test_cells_are_compared_exactly_unless_they_show_what_differs_between_processors():
    notebook = RUN["stored"](NAMES[0])
    cells = {"world": None, "same": None}
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.outputs and "text/html" in cell.outputs[0].get("data", {}):
            cells["world" if "world" in cell.metadata.get("tags", []) else "same"] = cell
    for kind, cell in cells.items():
        before = RUN["outline"](cell)
        page = cell.outputs[0].data["text/html"]
        cell.outputs[0].data["text/html"] = page + " "
        assert (RUN["outline"](cell) == before) == (kind == "world")
        cell.outputs[0].data["text/html"] = page + "<dl></dl>"
        assert RUN["outline"](cell) != before
