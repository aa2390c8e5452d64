from pathlib import Path

import pytest

from isaerft.errors import InputError
from isaerft.report import captions
from isaerft.report.columns import MEANINGS, meaning
from isaerft.report.figures import FIGURES
from isaerft.table import TABLES

RST = Path(__file__).parents[2] / "workflow" / "report"


def test_every_column_of_every_table_has_one_line_of_meaning():
    for table, columns in TABLES.items():
        for column in columns:
            line = meaning(table, column.name)
            assert line.endswith(".")
            assert "\n" not in line


def test_no_meaning_is_left_over():
    known = {column.name for columns in TABLES.values() for column in columns}
    known |= {f"{table}.{column.name}" for table, columns in TABLES.items() for column in columns}
    assert set(MEANINGS) <= known


def test_unknown_column_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'estimate'"):
        meaning("agreement", "estimat")


def test_every_figure_and_table_has_a_caption():
    assert set(captions.FIGURES) == set(FIGURES)
    assert set(captions.TABLES) == set(TABLES)


def test_report_captions_say_what_the_pages_say():
    expected = {f"figure_{name}": caption for name, caption in captions.FIGURES.items()}
    expected |= {f"table_{name}": caption for name, caption in captions.TABLES.items()}
    expected |= {"summary": captions.SUMMARY, "answers": captions.ANSWERS}
    found = {path.stem: " ".join(path.read_text().split()) for path in RST.glob("*.rst") if path.stem != "workflow"}
    assert found == expected


def test_report_captions_render_as_restructured_text():
    core = pytest.importorskip("docutils.core")
    for path in RST.glob("*.rst"):
        core.publish_string(path.read_text(), writer="null", settings_overrides={"halt_level": 2, "report_level": 5})
