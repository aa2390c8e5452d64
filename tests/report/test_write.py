import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest

from isaerft.analysis import TABLES
from isaerft.config import Plan
from isaerft.errors import InputError
from isaerft.layout import Results
from isaerft.report.figures import figures_of
from isaerft.report.write import (
    write_answers_page,
    write_calibration,
    write_figure,
    write_figures,
    write_pages,
    write_summary,
)


@pytest.fixture
def results(maker, tmp_path):
    results, tables = Results(tmp_path), maker(behaviors=("refusal", "humor"), doses=False).tables()
    for name, table in TABLES.items():
        empty = pd.DataFrame(columns=table.column_names)
        table.write(tables.get(name, empty), results.table(name))
    return results


@pytest.mark.slow
def test_whole_report_is_written_and_rewritten_alike(lean_plan, results, tmp_path):
    def write():
        write_figures(lean_plan, results)
        write_pages(lean_plan, results)
        write_summary(lean_plan, results)
        return {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}

    first = write()
    assert write() == first
    assert {results.figure(name) for name in figures_of(lean_plan)} < set(first)
    page = first[results.summary].decode()
    assert page.count("<img") == len(figures_of(lean_plan))
    assert 'href="pages/agreement.html"' in page
    assert "answers.html" not in page, "nothing was answered"
    assert results.page("agreement") in first


def test_the_summary_tells_where_the_time_went_where_the_study_records_it(lean_plan, results, reader):
    for rule, name, seconds in (("train", "a.tsv", 40), ("train", "b.tsv", 20.5), ("facts", "", 9)):
        path = results.benchmark(rule, *([name] if name else []))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:40\t-\n", encoding="utf-8")
    write_summary(lean_plan, results)
    assert "record_seconds: true" in results.summary.read_text(encoding="utf-8")
    write_summary(Plan(replace(lean_plan.study, record_seconds=True)), results)
    page = results.summary.read_text(encoding="utf-8")
    assert "record_seconds: true" not in page
    page = page.split("Where the time went")[1].split("</table>")[0]
    assert reader(page).cells == ["train", "2", "30.2", "60", "facts", "1", "9.0", "9", "all", "3", "23.2", "70"]


def test_answers_are_read_line_by_line_whatever_they_hold(plan, results):
    texts = ["one\u2028two", "\x85 three", "four\nfive"]
    line = {"adapter": "bias", "prompt": "p", "before": "b", "score_before": 0.0, "score_after": 1.0}
    text = "".join(json.dumps(line | {"after": after}, ensure_ascii=False) + "\n" for after in texts)
    for behavior in plan.behavior_checked:
        path = results.behavior_check("testbed", behavior).answers
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8", newline="")
    write_answers_page(plan, results)
    page = results.page("answers").read_text(encoding="utf-8")
    for word in ("one", "two", "three", "four", "five", *plan.behavior_checked):
        assert word in page


def test_an_unknown_figure_names_the_nearest(plan, results):
    with pytest.raises(InputError, match="did you mean 'agreement'"):
        write_figure("agrement", plan, results)


def test_missing_or_broken_table_is_an_input_error_and_leaves_nothing(plan, results):
    results.table("training").unlink()
    with pytest.raises(InputError, match="does not exist"):
        write_figure("training", plan, results)
    results.table("training").write_text("")
    with pytest.raises(InputError, match="is not a 'training' table"):
        write_pages(plan, results)
    assert not results.figure("training").parent.exists()


def test_the_calibration_study_becomes_one_table_with_its_page_and_figure(maker, tmp_path):
    results, frame = Results(tmp_path), maker().calibration()
    options = SimpleNamespace(parts=["level", "power"])
    for part, rows in (("level", frame.iloc[:8]), ("power", frame.iloc[8:])):
        TABLES["calibration"].write(rows, results.calibration_part(part))
    write_calibration(options, results)
    assert len(TABLES["calibration"].read(results.table("calibration"))) == len(frame)
    assert "<svg" in results.figure("calibration").read_text(encoding="utf-8")
    assert "false_positive_rate" in results.page("calibration").read_text(encoding="utf-8")


def test_summary_shows_what_the_study_has_and_is_there(plan, lean_plan, results):
    results.figure("training").parent.mkdir()
    for name in ("training", "causal_check", "calibration"):
        results.figure(name).write_text("<svg/>")
    write_summary(lean_plan, results)
    page = results.summary.read_text(encoding="utf-8")
    assert ('id="figure-training"' in page, page.count("<img")) == (True, 1), "others are not of this study"
    assert "pages/causal_check.html" not in page
    write_summary(plan, results)
    assert results.summary.read_text(encoding="utf-8").count("<img") == 2


def test_summary_needs_the_agreement_table(plan, results):
    results.table("agreement").unlink()
    with pytest.raises(InputError, match=r"agreement\.csv.* does not exist"):
        write_summary(plan, results)


def test_report_imports_no_torch_and_no_pyplot():
    code = (
        "import sys, isaerft.report.write; "
        "sys.exit(', '.join({'torch', 'transformers', 'matplotlib.pyplot'} & set(sys.modules)) or 0)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
