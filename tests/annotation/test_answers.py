"""Answers read back: they reach a source and two judges as given, and a wrong row is named and nothing is written."""

import csv
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
import yaml

from isaerft.analysis import analysis_of
from isaerft.analysis.judge_quality import judge_quality
from isaerft.cli import main
from isaerft.config import load_plan
from isaerft.explanations import read_explanations
from isaerft.judges import read_judgements
from tests.annotation.small_study import BEHAVIORS, SAMPLE, TEXTS, config, write_contexts

WORDS = {1: "=SUM(1) in code", 2: "-ing forms", 4: "apologies", 5: '"quoted", with comma', 7: "", 8: "x\ny"}
READ = {1: "'=SUM(1) in code", 2: "'-ing forms", 4: "apologies", 5: '"quoted", with comma', 8: "x y"}
CHOICES = ("", "-1", "-0.5", "0", "0.5", "1")


class Returned:
    """A sheet and the CSV that a reader returns for it."""

    def __init__(self, study, *extra, name="sheet"):
        self.study, self.folder = study, study.folder / name
        self.path = study.folder / f"{name}_returned.csv"
        assert main(["annotation-sheet", *study.cli, "--out", str(self.folder), *extra]) == 0
        text = (self.folder / "sheet.csv").read_text("utf-8-sig")
        self.rows = list(csv.DictReader(io.StringIO(text, newline="")))

    def read(self, out="out.csv", *, rows=None, reader="ann", kind="person", cli=None):
        rows = self.rows if rows is None else rows
        pd.DataFrame(rows).to_csv(self.path, index=False)
        names = {"sheet": self.folder, "returned": self.path, "reader": reader, "kind": kind}
        names["out"] = self.study.folder / out
        line = [part for name, value in names.items() for part in (f"--{name}", str(value))]
        return main(["read-annotations", *(cli or self.study.cli), *line])


@pytest.fixture
def explained(study):
    returned = Returned(study)
    for row in returned.rows:
        row["explanation"] = WORDS[int(row["latent_index"])]
        row["done"] = "" if row["explanation"] else "x"
    return returned


def judged(study, name="sheet", seed=0):
    returned = Returned(study, "--source", "said", "--latents", "all", "--seed", str(seed), name=name)
    rng = np.random.default_rng(seed)
    for row in returned.rows:
        row["expected"] = str(rng.choice(CHOICES))
        row["done"] = "x"
    return returned


def changed_study(study, /, **changes):
    """Return the options that name the study with other entries in its config."""
    path = study.folder / "changed.yaml"
    path.write_text(yaml.safe_dump(config(**changes)))
    return ["--study", str(path), *study.cli[2:]]


def test_explanations_come_back_as_a_source_reads_them(study, explained):
    rng = np.random.default_rng(0)
    assert explained.read("written.csv", rows=[explained.rows[at] for at in rng.permutation(len(SAMPLE))]) == 0
    written = {"kind": "file", "path": str(study.folder / "written.csv"), "side": "both", "design": "case_control"}
    cli = changed_study(study, sources={"said": {"kind": "local"}, "written": written})
    assert main(["explain", *cli, "--source", "written"]) == 0
    found = read_explanations(study.results.explanations("toy", "written"))
    assert dict(zip(found["latent_index"], found["explanation"], strict=True)) == READ
    assert set(found["side"]) == {"both"}


def test_two_readers_judgements_are_two_judges_whose_agreement_is_in_judge_quality(study):
    wanted, judges = {}, {}
    for seed, reader in enumerate(("ann", "bob")):
        returned = judged(study, f"sheet_{reader}", seed)
        assert returned.read(f"{reader}.csv", reader=reader) == 0
        record = json.loads((returned.folder / "sheet.json").read_text())
        wanted[reader] = {
            (record["explanations"][int(row["item"]) - 1], row["behavior"]): float(row["expected"] or 0)
            for row in returned.rows
        }
        judges[reader] = {"kind": "table", "path": str(study.folder / f"{reader}.csv")}
    cli = changed_study(
        study,
        judges=judges,
        sources={"said": {"kind": "local", "side": "both", "subjects": ["toy"]}},
        primary=config()["primary"] | {"judge": "ann"},
    )
    for reader in judges:
        assert main(["judge", *cli, "--source", "said", "--judge", reader]) == 0
        found = read_judgements(study.results.judgements("toy", "said", reader))
        assert len(found) == len(TEXTS) * len(BEHAVIORS)
        for row in found.itertuples():
            assert row.expected_effect == wanted[reader][TEXTS[row.latent_index], row.behavior]
    quality = judge_quality(analysis_of(load_plan(cli[1]), study.results)).set_index("statistic")
    assert {"kappa", "spearman"} <= set(quality.index)
    assert set(zip(quality.judge, quality.against, strict=True)) == {("ann", "bob")}
    both = [[wanted[reader][text, name] for text in TEXTS for name in BEHAVIORS] for reader in judges]
    assert quality.estimate["spearman"] == pytest.approx(pd.Series(both[0]).corr(pd.Series(both[1]), method="spearman"))


def test_the_provenance_says_who_answered_what(study, explained):
    assert explained.read("written.csv", reader=" Ann ", kind="model") == 0
    record = json.loads((study.folder / "written.json").read_text())
    sheet = json.loads((explained.folder / "sheet.json").read_text())
    assert (record["reader"], record["kind"], record["n_answers"], record["n_blank"]) == ("Ann", "model", 6, 1)
    for key in ("task", "study", "subject", "seed", "sheet", "protocol", "made_from"):
        assert record[key] == sheet[key]


def fail(returned, capsys, *parts, **given):
    """Check that reading fails in one line with these parts, and that nothing was written."""
    before = {path: path.read_bytes() for path in returned.study.folder.glob("out.*")}
    rows = pd.DataFrame(returned.rows if given.get("rows") is None else given["rows"]).to_csv(index=False)
    capsys.readouterr()
    assert returned.read(**given) == 2
    error = capsys.readouterr().err
    for part in parts:
        assert part in error, error
    assert error.count("\n") == 1
    assert {path: path.read_bytes() for path in returned.study.folder.glob("out.*")} == before
    assert returned.path.read_text() == rows


def test_every_wrong_row_is_named_at_once(explained, capsys):
    lost, twice, other, blank, unknown, odd = (row | {"explanation": "words"} for row in explained.rows)
    place = {name: row["latent_index"] for name, row in {"lost": lost, "twice": twice, "blank": blank}.items()}
    blank |= {"explanation": " ", "done": ""}
    unknown_of = unknown["latent_index"]
    unknown["latent_index"] = "3"
    other["sheet"] = "0123456789ab"
    odd["done"] = "perhaps"
    fail(
        explained,
        capsys,
        f"rows that answer again: line 3 ({place['twice']})",
        "rows of another sheet",
        "line 4 (0123456789ab)",
        f"rows blank and not marked as done: line 5 ({place['blank']})",
        "rows about what the sheet does not ask: line 6 (3)",
        "rows whose done is not one of x, 1, yes, true or blank: line 7",
        "rows missing: ",
        place["lost"],
        unknown_of,
        rows=[twice, twice, other, blank, unknown, odd],
    )


@pytest.mark.parametrize("value", ["2", "0.7", "yes", "0,5", "nan", "inf", "-"])
def test_an_effect_out_of_range_is_named(study, capsys, value):
    returned = judged(study)
    returned.rows[3]["expected"] = value
    row = returned.rows[3]
    fail(
        returned,
        capsys,
        f"an effect that is not one of -1, -0.5, 0, 0.5, 1: line 5 ({row['item']} {row['behavior']})",
    )


@pytest.mark.parametrize("value", ["1.0", " -0.50 ", "1e0", "-0"])
def test_an_effect_is_read_as_a_number_however_a_spreadsheet_writes_it(study, value):
    returned = judged(study)
    returned.rows[3]["expected"] = value
    assert returned.read() == 0
    found = pd.read_csv(study.folder / "out.csv")["expected_effect"]
    assert found.isin([-1, -0.5, 0, 0.5, 1]).all()


@pytest.mark.parametrize("done", ["", "no", "0"])
def test_a_blank_effect_is_no_judgement_unless_the_row_is_done(study, capsys, done):
    returned = judged(study)
    returned.rows[3] |= {"expected": "", "done": done}
    fail(returned, capsys, "rows blank and not marked as done: line 5")


def test_an_explanation_too_long_to_keep_whole_is_refused(explained, capsys):
    explained.rows[0] |= {"explanation": "a " * 1001}
    fail(explained, capsys, "rows with more than 2000 characters: line 2")


@pytest.mark.parametrize("column", ["sheet", "latent_index", "explanation", "done"])
def test_a_missing_column_is_named(explained, capsys, column):
    rows = [{name: value for name, value in row.items() if name != column} for row in explained.rows]
    fail(explained, capsys, f"lacks the columns {column}; allowed: sheet, latent_index, explanation, done", rows=rows)


def test_only_the_columns_with_keys_and_answers_are_needed(explained):
    names = ("done", "explanation", "latent_index", "sheet")
    assert explained.read(rows=[{name: row[name] for name in names} for row in explained.rows]) == 0


def test_a_sheet_of_another_study_or_subject_is_refused(study, explained, capsys):
    other = changed_study(study, study="large")
    fail(explained, capsys, "is of study 'small', subject 'toy'; allowed: study 'large'", cli=other)
    cli = [part if part != "toy" else "other" for part in study.cli]
    fail(explained, capsys, "allowed: study 'small', subject 'other'", cli=cli)


def test_answers_about_contexts_explanations_or_descriptions_that_have_changed_are_refused(study, explained, capsys):
    judgements = judged(study, "judge")
    write_contexts(study.results.subject("toy").contexts, mark="n other")
    fail(explained, capsys, "contexts.parquet has changed since the sheet")
    behaviors = {name: {"description": text, "rule": True} for name, text in BEHAVIORS.items()}
    behaviors["humor"]["description"] = "Is funny."
    fail(
        judgements,
        capsys,
        "the description of humor has changed",
        cli=changed_study(study, behaviors=behaviors),
    )
    path = study.results.explanations("toy", "said")
    frame = pd.read_parquet(path)
    frame.assign(explanation=frame["explanation"].str.upper()).to_parquet(path)
    fail(judgements, capsys, "said.parquet has changed since the sheet")
    study.results.subject("toy").contexts.unlink()
    fail(explained, capsys, "contexts.parquet, from which the sheet was made, does not exist")


def test_one_readers_answers_never_replace_anothers(study, explained, capsys):
    assert explained.read(reader="ann") == 0
    explained.rows[0]["explanation"] = "corrected"
    assert explained.read(reader="ann") == 0
    assert "corrected" in (study.folder / "out.csv").read_text()
    fail(explained, capsys, "exists and is not bob's answers to this sheet", reader="bob")
    (study.folder / "out.json").unlink()
    fail(explained, capsys, "exists and is not ann's answers", reader="ann")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "robot"}, "--kind 'robot'; allowed: person, model"),
        ({"reader": " "}, "a reader without a name"),
        ({"out": "out.xlsx"}, "allowed: a .csv file"),
    ],
)
def test_who_and_where_to_are_checked(explained, capsys, given, message):
    fail(explained, capsys, message, **given)


def test_hostile_answers_become_harmless_text(study, explained):
    explained.rows[0]["explanation"] = "=cmd|' /C calc'!A0\x1b[2J \u202e<b>"
    assert explained.read() == 0
    text = (study.folder / "out.csv").read_text()
    assert "'=cmd|' /C calc'!A0 <b>" in text
    assert not re.search(r"[\x1b\u202e]", text)
    assert all(line[1][:1] not in "=+-@" or not line[1] for line in csv.reader(io.StringIO(text)))
