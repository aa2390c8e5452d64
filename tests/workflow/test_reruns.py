"""What an edit makes run again. The small study has run; each test edits one thing, plans, and takes the edit back."""

import contextlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BEHAVIOR_CHECK = {"behavior_check": 1, "answers_page": 1}
TABLES_AND_ON = {"tables": 1, "summary": 1, "all": 1}


@contextlib.contextmanager
def edited(workspace, path, old="", new=""):
    """Replace text in a file (or add a line to it) for the length of the block."""
    file = workspace.folder / path
    before = file.read_text(encoding="utf-8")
    assert old in before
    file.write_text(before.replace(old, new, 1) if old else before + "# edited\n", encoding="utf-8")
    yield
    file.write_text(before, encoding="utf-8")


def reruns(workspace, *edit):
    with edited(workspace, *edit):
        jobs = workspace.planned()
    return {name: count for name, count in jobs.items() if not name.startswith("figure_") and name != "pages"}


def test_without_an_edit_that_matters_nothing_runs_again(finished):
    (finished.folder / "data/limericks.jsonl").touch()
    assert reruns(finished, "config/small.yaml", "device: cpu", "device: cpu\nthreads: 2") == {}


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("changes/measures.py", {"changes": 4, "causal_check": 2, "agreement": 2}),
        (
            "adapters/elementwise.py",
            {"train": 4, "changes": 4, "causal_check": 2, "agreement": 2} | BEHAVIOR_CHECK,
        ),  # of ten
        ("changes/metrics.py", BEHAVIOR_CHECK),
        ("judges/lexical.py", {"judge": 1, "agreement": 2, "score": 1}),  # of the four judgements
        ("scorers/base.py", {"score": 1}),
        ("subjects/contexts.py", {"scored_contexts": 1, "score": 1}),
        ("stats/agreement.py", {"agreement": 2}),
    ],
)
def test_editing_a_module_reruns_the_jobs_that_use_it_and_what_follows(finished, module, expected):
    assert reruns(finished, f"isaerft/{module}") == expected | TABLES_AND_ON


def test_editing_a_figure_reruns_no_table(finished):
    with edited(finished, "isaerft/report/figures/training.py"):
        jobs = finished.planned()
    assert jobs["figure_training"] == 1
    assert "tables" not in jobs


def test_describing_a_behavior_anew_reruns_the_judges_and_trains_nothing(finished):
    jobs = reruns(finished, "config/small.yaml", "The assistant refuses.", "It says no.")
    assert jobs == {"judge": 4, "agreement": 2} | TABLES_AND_ON


def test_an_option_of_one_adapter_trains_that_one_again(finished):
    jobs = reruns(finished, "config/small.yaml", "scale: {}", "scale: {steps: 5}")
    # The twins with random dictionaries train the primary adapter, bias, alone.
    assert jobs == {"train": 2, "changes": 2, "causal_check": 2, "agreement": 2} | TABLES_AND_ON


def test_new_data_of_one_behavior_trains_for_that_one_again(finished):
    row = '{"prompt": "p", "completion": "c"}\n{"prompt"'
    jobs = reruns(finished, "data/limericks.jsonl", '{"prompt"', row)
    assert (jobs["behavior"], jobs["capture"], jobs["train"]) == (1, 1, 4)


def test_no_module_hides_what_it_uses_from_the_digests():
    relative = [
        path.name for path in (ROOT / "isaerft").rglob("*.py") if "\nfrom ." in path.read_text(encoding="utf-8")
    ]
    assert relative == []
