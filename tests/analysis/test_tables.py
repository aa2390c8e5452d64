"""Finding the result tables, making those of a study, and adding one."""

import subprocess
import sys
from pathlib import Path

import pytest

from isaerft import analysis, config
from isaerft.analysis import TABLES, analysis_of, tables_of, write_tables
from isaerft.analysis.reference import PAGE, tables_page, write_reference
from isaerft.errors import InputError
from isaerft.layout import Results
from isaerft.table import Table
from tests.analysis.small_study import BEHAVIORS, Parts, make_study

ROOT = Path(__file__).parents[2]
ADDED = '''
"""heaviest.csv: one more table."""
import pandas as pd
from isaerft.analysis.base import ResultTable
from isaerft.analysis.columns import SUBJECT
from isaerft.table import Column

def heaviest(analysis):
    return pd.DataFrame([{"subject": "toy", "n_rows": len(analysis.frame("training"))}])

TABLE = ResultTable(
    name="heaviest", order=115, caption="One more table.", make=heaviest,
    columns=(SUBJECT, Column("n_rows", "int", "Rows of training.csv.")),
    when=lambda plan: plan.study.n_seeds == 2, condition="studies with two seeds",
)
'''


def test_a_module_put_into_the_package_is_a_table_with_no_other_edit(parts, tmp_path, monkeypatch):
    (tmp_path / "more").mkdir()
    (tmp_path / "more/heaviest.py").write_text(ADDED)
    monkeypatch.setattr(analysis, "__path__", [*analysis.__path__, str(tmp_path / "more")])
    monkeypatch.delitem(sys.modules, "isaerft.analysis.heaviest", raising=False)
    names = list(TABLES)
    assert names[names.index("training") + 1] == "heaviest"
    assert "heaviest" in tables_of(make_study())
    assert "heaviest" not in tables_of(make_study(n_seeds=3))
    written = parts.tables(make_study())
    assert written["heaviest"].n_rows.tolist() == [len(written["training"])]
    assert "| `n_rows` | int | Rows of training.csv. |" in tables_page()
    assert TABLES["heaviest"].caption in tables_page()
    sys.modules.pop("isaerft.analysis.heaviest")


def test_two_tables_of_one_name_are_refused(tmp_path, monkeypatch):
    (tmp_path / "again.py").write_text(ADDED.replace('name="heaviest"', 'name="training"'))
    monkeypatch.setattr(analysis, "__path__", [*analysis.__path__, str(tmp_path)])
    with pytest.raises(ValueError, match="share a name"):
        list(TABLES)
    sys.modules.pop("isaerft.analysis.again")


def test_every_table_is_complete():
    for name, table in TABLES.items():
        assert isinstance(table, Table), name
        assert len(set(table.column_names)) == len(table.columns), name
        for text in (table.caption, *(column.meaning for column in table.columns)):
            assert text.endswith("."), (name, text)
            assert text == " ".join(text.split()), (name, text)
        assert table.condition.isprintable(), name


def test_a_shared_column_has_one_meaning():
    shared = {}
    for table in TABLES.values():
        for name in ("subject", "adapter", "measure", "latent_index", "seed"):
            if name in table.column_names:
                shared.setdefault(name, set()).add(table.column(name).meaning)
    assert all(len(meanings) == 1 for meanings in shared.values())


def test_the_tables_of_a_study_follow_from_its_plan():
    always = ["subjects", "training", "diagnostics", "most_changed_latents"]
    always += ["agreement", "overall", "specificity", "seeds", "explained_latents", "reliability", "claims"]
    off = {"causal_check": {"adapters": []}, "behavior_check": {"adapters": []}}
    one = {"behaviors": {"a": {"description": "a", "rule": True}}, "controls": [], "random_dictionary_adapters": []}
    assert tables_of(make_study(**off, **one)) == always
    more = set(tables_of(make_study(sources={name: {"kind": "local"} for name in ("said", "other")})))
    assert more - set(always) == {"explanation_verdicts", "causal_check", "behavior_check", "source_comparison"}
    judges = {"lexical": {}, "embedding": {}}
    assert set(tables_of(make_study(judges=judges))) - more == {"judge_quality"}
    judges["embedding"]["reference"] = True
    assert set(tables_of(make_study(judges=judges))) - more == {"judge_quality", "corrected_agreement"}
    scored = set(tables_of(make_study(scorers={"words": {"kind": "lexical"}})))
    assert scored - more == {"explanation_scores", "explanation_quality", "agreement_by_quality"}


def test_what_is_written_is_what_the_plan_says(finished):
    parts, tables = finished
    written = {path.stem for path in (parts.folder / "tables").iterdir()}
    assert written == set(tables) == set(tables_of(make_study()))


def test_every_table_keeps_its_columns(finished):
    for name, frame in finished[1].items():
        assert len(frame), name
        assert list(frame) == TABLES[name].column_names


def test_a_table_is_made_once(finished):
    made = analysis_of(make_study(), Results(finished[0].folder))
    assert made.frame("agreement") is made.frame("agreement")


@pytest.mark.slow
def test_two_runs_give_the_same_bytes(finished, tmp_path):
    parts, _ = finished
    again = Parts(tmp_path)
    again.tables(make_study())
    for path in (parts.folder / "tables").iterdir():
        assert (tmp_path / "tables" / path.name).read_bytes() == path.read_bytes()
    again.tables(make_study(seed=1))
    assert (tmp_path / "tables/agreement.csv").read_bytes() != (parts.folder / "tables/agreement.csv").read_bytes()


@pytest.mark.slow
def test_shuffled_completions_train_no_row_of_another_table(parts):
    for behavior in BEHAVIORS:
        parts.changes("toy", f"{behavior}-shuffled")
    tables = parts.tables(make_study(controls=[*config.CONTROLS, "shuffled_completions"]))
    for name in set(tables) - {"agreement"}:
        assert "-shuffled" not in tables[name].to_csv(), name


def test_nothing_is_written_when_one_table_cannot_be_made(parts):
    parts.agreement(make_study())
    (parts.folder / "changes/toy/a.parquet").unlink()
    with pytest.raises((InputError, FileNotFoundError)):
        write_tables(make_study(), Results(parts.folder), parts.folder / "tables")
    assert not (parts.folder / "tables").exists()


def test_an_unknown_table_names_the_nearest():
    with pytest.raises(InputError, match=r"unknown table 'agrement'.*did you mean 'agreement'\?"):
        analysis.table("agrement")


def test_the_page_of_tables_is_up_to_date(tmp_path):
    written = write_reference(tmp_path)
    assert written == tmp_path / PAGE
    assert written.read_text(encoding="utf-8") == (ROOT / PAGE).read_text(encoding="utf-8"), (
        "python -m isaerft.analysis"
    )


def test_the_tables_are_known_without_the_statistics():
    code = "import sys, isaerft.analysis as a; list(a.TABLES)\n"
    code += "sys.exit(' '.join({'torch', 'transformers', 'scipy'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
