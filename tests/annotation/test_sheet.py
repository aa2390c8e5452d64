"""Sheets: which latents and texts they ask about, in an order that says nothing, and what their files may hold."""

import csv
import hashlib
import io
import json
import re

import numpy as np
import pytest

from isaerft.annotation import chosen_latents, explain_sheet, judge_sheet, read_sheet, write_sheet
from isaerft.cli import main
from isaerft.config import plan_from_dict
from isaerft.errors import InputError
from tests.annotation.small_study import BEHAVIORS, CASES, SAMPLE, TEXTS, config, draw

FILES = ("sheet.csv", "sheet.html", "sheet.json")


def explain(study, latents=None, seed=0):
    return explain_sheet(
        study.plan, study.results, "toy", chosen_latents(study.plan, study.results, "toy", latents), seed=seed
    )


def judge(study, latents="all", seed=0):
    wanted = chosen_latents(study.plan, study.results, "toy", latents)
    return judge_sheet(study.plan, study.results, "toy", "said", wanted, seed=seed)


def rows_of(folder):
    return list(csv.DictReader(io.StringIO((folder / "sheet.csv").read_text("utf-8-sig"), newline="")))


def test_by_default_the_sheet_is_about_the_sample_where_there_is_one_or_should_be(study):
    assert sorted(explain(study)[0].latents) == list(SAMPLE)
    assert sorted(explain(study, "all")[0].latents) == list(range(9))
    study.results.design("toy").unlink()
    assert sorted(explain(study)[0].latents) == list(range(9))
    study.plan = plan_from_dict(config(design={"kind": "case_control"}))
    with pytest.raises(InputError, match="run the rule `design`"):
        explain(study)


def test_a_file_lists_the_latents(study):
    path = study.folder / "mine.csv"
    path.write_text("latent_index,why\n7,x\n3,y\n")
    assert sorted(explain(study, str(path))[0].latents) == [3, 7]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("latent_index\n3\n3\n", "line 3 lists latent 3 again"),
        ("latent_index\n3\n9\n12\n", "lists 2 latents that are not alive in 'toy': 9, 12"),
        ("latent_index\nthree\n", "line 2: latent index 'three'"),
        ("latent\n3\n", "has no column latent_index"),
    ],
)
def test_a_file_of_latents_that_cannot_be_is_refused(study, text, message):
    (study.folder / "mine.csv").write_text(text)
    with pytest.raises(InputError, match=re.escape(message)):
        explain(study, str(study.folder / "mine.csv"))


def test_the_files_are_the_same_bytes_whoever_is_a_case(study):
    found = []
    for cases in (CASES, SAMPLE[:1], SAMPLE):
        draw(study.results.design("toy"), cases, stratum=len(cases))
        folder = study.folder / f"cases{len(cases)}"
        write_sheet(folder, *explain(study))
        found.append([(folder / name).read_bytes() for name in FILES])
    assert found[0] == found[1] == found[2]


def test_no_column_and_no_word_of_a_sheet_is_about_training(study):
    write_sheet(study.folder / "explain", *explain(study))
    write_sheet(study.folder / "judge", judge(study))
    contexts = {f"context_{number}" for number in (1, 2, 3)}
    columns = {"sheet", "latent_index", *contexts, "promoted", "amplified", "explanation", "done"}
    assert set(rows_of(study.folder / "explain")[0]) == columns
    columns = {"sheet", "item", "explanation", "behavior", "description", "expected", "done"}
    assert set(rows_of(study.folder / "judge")[0]) == columns
    for task in ("explain", "judge"):
        for name in ("sheet.csv", "sheet.json"):
            text = (study.folder / task / name).read_text("utf-8-sig")
            for word in ("case", "control", "stratum", "drawn", "change", "rank", "bias", "secret"):
                assert word not in text, (task, name, word)
        assert "secret" not in (study.folder / task / "sheet.html").read_text()


def test_the_order_is_drawn_by_the_seed_over_cases_and_controls_alike(study):
    latents = np.arange(9)
    place = np.array(
        [
            np.argsort(explain_sheet(study.plan, study.results, "toy", latents, seed=seed)[0].latents)
            for seed in range(200)
        ]
    )
    assert abs(place.mean(0) - 4).max() < 4 * np.sqrt((81 - 1) / 12 / 200)
    assert explain(study, seed=3)[0] == explain(study, seed=3)[0]
    assert explain(study, seed=3)[0].id != explain(study, seed=4)[0].id


def test_the_order_depends_on_the_latents_and_not_on_how_they_are_listed(study):
    one, _ = explain_sheet(study.plan, study.results, "toy", np.array([7, 1, 4]), seed=1)
    other, _ = explain_sheet(study.plan, study.results, "toy", np.array([1, 4, 7]), seed=1)
    assert one == other


def test_a_latent_is_shown_by_its_marked_contexts_each_once_and_the_tokens_that_it_promotes(study):
    write_sheet(study.folder / "out", *explain(study))
    row = next(row for row in rows_of(study.folder / "out") if row["latent_index"] == "5")
    assert [row[f"context_{number}"] for number in (1, 2, 3)] == [
        "10: a before0 <<tok5>>ly after0",
        "7: a before1 <<tok5>>ly after1",
        "3: a before2 <<tok5>>ly after2",
    ]
    assert (row["promoted"], row["amplified"]) == ('"out"', '"ampl"')
    assert (row["explanation"], row["done"]) == ("", "")


def test_each_distinct_text_is_judged_once_for_every_described_behavior(study):
    sheet = judge(study)
    assert sorted(sheet.explanations) == sorted(set(TEXTS))
    assert sheet.behaviors == BEHAVIORS
    write_sheet(study.folder / "out", sheet)
    asked = [(row["item"], row["behavior"]) for row in rows_of(study.folder / "out")]
    assert len(set(asked)) == len(asked) == 7 * 2
    assert {row["description"] for row in rows_of(study.folder / "out")} == set(BEHAVIORS.values())


def test_a_sheet_of_judgements_keeps_to_the_latents_asked_for(study):
    assert sorted(judge(study, "sample").explanations) == sorted({TEXTS[latent] for latent in SAMPLE})


def test_no_field_of_the_csv_is_a_formula(study):
    write_sheet(study.folder / "explain", *explain(study, "all"))
    write_sheet(study.folder / "judge", judge(study))
    for task in ("explain", "judge"):
        for row in rows_of(study.folder / task):
            assert not [field for field in row.values() if field[:1] in tuple("=+-@\t\r")], row


def test_hostile_text_is_text_in_the_page_and_only_the_pages_own_script_may_run(study):
    for name, sheet in {"explain": explain(study, "all"), "judge": (judge(study),)}.items():
        write_sheet(study.folder / name, *sheet)
        html = (study.folder / name / "sheet.html").read_text()
        assert html.count("<script") == html.count("</script>") == 1
        assert "<img" not in html
        assert html.replace(" ", "").count("&lt;script&gt;alert(1)") == 1
        assert html.count("</article>") == html.count("<article")
        policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1]
        assert "default-src &#39;none&#39;" in policy
        assert "unsafe-eval" not in policy
        assert "script-src &#39;sha256-" in policy
        assert not re.search(r"""(src|href)=["']?(https?:)?//""", html)


def test_the_record_says_of_what_the_sheet_was_made_and_is_read_again(study):
    sheet, evidence = explain(study, seed=5)
    write_sheet(study.folder / "out", sheet, evidence)
    record = json.loads((study.folder / "out/sheet.json").read_text())
    digest = hashlib.sha256(study.results.subject("toy").contexts.read_bytes()).hexdigest()
    assert record["made_from"] == {"contexts.parquet": digest}
    assert [record[key] for key in ("task", "study", "subject", "seed", "protocol")] == [
        "explain",
        "small",
        "toy",
        5,
        1,
    ]
    assert read_sheet(study.folder / "out") == sheet


def test_an_edited_record_is_refused(study):
    write_sheet(study.folder / "out", *explain(study))
    path = study.folder / "out/sheet.json"
    path.write_text(path.read_text().replace('"toy"', '"other"'))
    with pytest.raises(InputError, match="was edited"):
        read_sheet(study.folder / "out")


def test_a_sheet_with_answers_is_never_overwritten(study):
    folder = study.folder / "out"
    write_sheet(folder, *explain(study))
    write_sheet(folder, *explain(study))
    table = folder / "sheet.csv"
    table.write_bytes(table.read_bytes() + b"answers")
    before = {name: (folder / name).read_bytes() for name in FILES}
    for seed in (0, 1):
        with pytest.raises(InputError, match="holds another sheet, or answers"):
            write_sheet(folder, *explain(study, seed=seed))
    assert {name: (folder / name).read_bytes() for name in FILES} == before


def test_a_latent_without_contexts_is_refused(study):
    with pytest.raises(InputError, match="no contexts of 1 latents: 9"):
        explain_sheet(study.plan, study.results, "other", np.array([3, 9]), seed=0)
    with pytest.raises(InputError, match="no latent of 'other' is alive"):
        explain_sheet(study.plan, study.results, "other", np.array([], dtype=int), seed=0)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--latents", "sample", "--subject", "other"], "run the rule `design`"),
        (["--source", "sayd"], "unknown source 'sayd'; allowed: said; did you mean 'said'?"),
        (["--subject", "other", "--source", "said", "--latents", "all"], "do not exist"),
    ],
)
def test_the_verb_says_in_one_line_what_it_lacks(study, extra, message, capsys):
    assert main(["annotation-sheet", *study.cli, "--out", str(study.folder / "out"), *extra]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (study.folder / "out").exists()
