import json
import subprocess
import sys

import pytest

from isaerft.errors import InputError
from isaerft.report.figures import FIGURES
from isaerft.report.write import write_answers_page, write_figure, write_summary, write_table_page
from isaerft.table import write_table


@pytest.fixture
def folder(tables, tmp_path):
    for name, frame in tables.items():
        write_table(name, frame, tmp_path / "tables" / f"{name}.csv")
    return tmp_path


def test_whole_report_is_written_and_rewritten_alike(folder, doses):
    def write():
        for name in FIGURES:
            write_figure(name, folder / "tables", folder / "figures" / f"{name}.svg", doses)
        write_table_page("agreement", folder / "tables", folder / "pages" / "agreement.html")
        write_summary(folder / "tables", folder / "figures", folder / "summary.html", "testbed", folder / "pages")
        return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}

    first = write()
    assert write() == first
    page = first[folder / "summary.html"].decode()
    assert page.count("<img") == len(FIGURES)
    assert 'href="pages/agreement.html"' in page


def test_answers_are_read_line_by_line_whatever_they_hold_and_linked_from_the_summary(folder):
    said = ["one\u2028two", "\x85 three", "four\nfive"]
    line = {"adapter": "bias", "prompt": "p", "before": "b", "score_before": 0.0, "score_after": 1.0}
    text = "".join(json.dumps(line | {"after": after}, ensure_ascii=False) + "\n" for after in said)
    (folder / "answers.jsonl").write_text(text, encoding="utf-8", newline="")
    write_answers_page({"refusal": folder}, 3, folder / "pages" / "answers.html")
    page = (folder / "pages" / "answers.html").read_text(encoding="utf-8")
    for word in ("one", "two", "three", "four", "five"):
        assert word in page

    def summary():
        write_summary(folder / "tables", folder / "figures", folder / "summary.html", "testbed", folder / "pages")
        return (folder / "summary.html").read_text(encoding="utf-8")

    assert 'href="pages/answers.html"' in summary()
    (folder / "pages" / "answers.html").unlink()
    assert 'answers.html"' not in summary()


def test_unknown_figure_and_table_name_the_nearest(folder):
    with pytest.raises(InputError, match="did you mean 'agreement'"):
        write_figure("agrement", folder / "tables", folder / "a.svg")
    with pytest.raises(InputError, match="did you mean 'training'"):
        write_table_page("trainin", folder / "tables", folder / "a.html")


def test_missing_or_empty_table_is_an_input_error_and_leaves_nothing(folder):
    (folder / "tables" / "training.csv").unlink()
    with pytest.raises(InputError, match="does not exist"):
        write_figure("training", folder / "tables", folder / "out" / "a.svg")
    (folder / "tables" / "training.csv").write_text("")
    with pytest.raises(InputError, match="is not a 'training' table"):
        write_table_page("training", folder / "tables", folder / "out" / "a.html")
    assert not (folder / "out").exists()


def test_share_out_of_range_is_refused(folder):
    with pytest.raises(InputError, match="'truth_input' has a share"):
        write_figure("dose_response", folder / "tables", folder / "a.svg", {"truth_input": ("input", 40)})


def test_summary_needs_the_agreement_table(folder):
    (folder / "tables" / "agreement.csv").unlink()
    with pytest.raises(InputError, match=r"agreement\.csv.* does not exist"):
        write_summary(folder / "tables", folder / "figures", folder / "s.html", "x")


def test_report_imports_no_torch_and_no_pyplot():
    code = (
        "import sys, isaerft.report.write; "
        "sys.exit(', '.join({'torch', 'transformers', 'matplotlib.pyplot'} & set(sys.modules)) or 0)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
