"""Judgements from files: what a file says holds, a table calls the rest unaffected, people leave it unjudged."""

import json

import numpy as np
import pandas as pd
import pytest

from isaerft.config import Judge
from isaerft.errors import InputError
from isaerft.judges import judge_explanations, read_judgements, write_judgements

BEHAVIORS = {"refusal": "Refuses.", "politeness": "Is polite."}
TEXTS = ["fires on sorry", "promotes sir", "fires on sorry", "dogs"]


def judged(tmp_path, content, name="truth.csv", texts=TEXTS, **options):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    explained = pd.DataFrame({"latent_index": range(4), "explanation": texts, "side": "input", "url": ""})
    judge = Judge(kind="table", path="{subject_dir}/" + name, **options)
    return judge_explanations("truth", judge, explained, BEHAVIORS, subject_dir=tmp_path)


def of(frame, column="expected_effect"):
    return frame[column].tolist()


def test_judgements_by_explanation_reach_every_latent_with_that_text(tmp_path):
    frame = judged(
        tmp_path, "explanation,behavior,expected_effect\nfires on sorry,refusal,1\npromotes sir,politeness,-0.5\n"
    )
    assert of(frame) == [1, 0, 0, -0.5, 1, 0, 0, 0]
    assert of(frame, "expected") == [True, False, False, False, True, False, False, False]
    assert frame["confidence"].isna().all()
    assert frame.attrs["counts"] == {"judged": 3, "not_in_file": 5, "not_used": 0}


def test_judgements_by_latent_carry_confidence_and_rationale(tmp_path):
    content = (
        "behavior,latent_index,expected_effect,confidence,rationale\n"
        'refusal,2,0.5,0.9,"apology,\nas it were"\npoliteness,0,0.51, ,\npoliteness,77,1,1,gone\n'
    )
    frame = judged(tmp_path, content)
    assert of(frame) == [0, 0.51, 0, 0, 0.5, 0, 0, 0]
    assert of(frame, "expected") == [False, True] + [False] * 6
    assert (
        of(judged(tmp_path, content, expected_above=0.4), "expected") == [False, True, False, False, True] + [False] * 3
    )
    assert of(frame, "rationale") == [""] * 4 + ["apology, as it were"] + [""] * 3
    assert frame["confidence"].dropna().to_dict() == {4: 0.9}
    assert frame.attrs["counts"] == {"judged": 2, "not_in_file": 6, "not_used": 1}


def test_with_both_keys_a_judgement_of_another_text_is_not_used(tmp_path):
    content = (
        "latent_index,explanation,behavior,expected_effect\n"
        "0,fires on sorry,refusal,1\n1,fires on sorry,refusal,1\n9,dogs,refusal,1\n"
    )
    frame = judged(tmp_path, content)
    assert of(frame) == [1] + [0] * 7
    assert frame.attrs["counts"] == {"judged": 1, "not_in_file": 7, "not_used": 2}


def test_texts_are_compared_after_the_cleaning_that_explanations_got(tmp_path):
    frame = judged(tmp_path, "explanation,behavior,expected_effect\n  fires  on\x1b[0m sorry ,refusal,1\n")
    assert of(frame)[0] == 1


def test_other_forms_of_table_are_read_too(tmp_path):
    rows = [{"latent_index": 3, "behavior": "refusal", "expected_effect": 1, "rationale": "half \ud800"}]
    frame = judged(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), "truth.jsonl")
    assert of(frame) == [0] * 6 + [1, 0]
    assert of(frame, "rationale")[6] == "half"


HEAD = "latent_index,behavior,expected_effect,confidence\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        (HEAD, "is empty"),
        (HEAD + "0,refusl,1,\n", "unknown behavior in .*line 2: 'refusl'; allowed: politeness, refusal; did you mean"),
        (HEAD + "0,refusal,1,\n1,refusal,much,\n", "line 3: expected_effect 'much'; allowed: a number from -1 to 1"),
        (HEAD + "0,refusal,,\n", "line 2: expected_effect ''"),
        (HEAD + "0,refusal,nan,\n", "line 2: expected_effect 'nan'"),
        (HEAD + "0,refusal,1.01,\n", "line 2: expected_effect '1.01'"),
        (HEAD + "0,refusal,inf,\n", "line 2: expected_effect 'inf'"),
        (HEAD + "0,refusal,1,sure\n", "line 2: confidence 'sure'; allowed: a number from 0 to 1"),
        (HEAD + "0,refusal,1,2\n", "line 2: confidence '2'"),
        (HEAD + "0.5,refusal,1,\n", "line 2: latent_index '0.5'; allowed: an integer"),
        (HEAD + "-1,refusal,1,\n", "line 2: latent_index '-1'"),
        (HEAD + "x,refusal,1,\n", "line 2: latent_index 'x'"),
        (HEAD + "0,refusal,1,\n0,politeness,1,\n0,refusal,0,\n", "line 4 judges '0' for 'refusal' again"),
        (HEAD + "0,refusal\n", "line 2 has 2 fields; allowed: 4"),
        (HEAD + "9,refusal,1,\n", "judges none of the 4 explanations; check its column latent_index"),
        (HEAD.encode() + b"0,ref\xffusal,1,\n", "line 2 is not UTF-8"),
        (
            "latent_index,behavior,expected\n0,refusal,1\n",
            "unknown column in .*'expected'; .*did you mean 'expected_effect'",
        ),
        ("latent_index,behavior\n0,refusal\n", "lacks expected_effect; allowed: latent_index or explanation"),
        ("behavior,expected_effect\nrefusal,1\n", "lacks a column that names the latents"),
        ("explanation,behavior,expected_effect\na,refusal,1\n a ,refusal,1\n", "judges 'a' for 'refusal' again"),
    ],
)
def test_a_bad_file_is_an_error_that_says_where(tmp_path, content, message):
    with pytest.raises(InputError, match=message) as caught:
        judged(tmp_path, content)
    assert len(str(caught.value)) < 1000


def test_a_path_is_needed_and_options_are_refused(tmp_path):
    explained = pd.DataFrame({"latent_index": [0], "explanation": ["a"], "side": "input", "url": ""})
    with pytest.raises(InputError, match="without a path"):
        judge_explanations("table", Judge(), explained, BEHAVIORS, subject_dir=tmp_path)
    with pytest.raises(InputError, match="unknown option of a table judge"):
        judged(tmp_path, HEAD + "0,refusal,1,\n", options={"x": 1})


SAMPLED = ["says sorry", "tells jokes", "says sorry"]
SAMPLE = "explanation,behavior,label,confidence\nsays sorry,refusal,Promoted,0.8\ntells jokes,refusal,suppressed,\n"


@pytest.fixture
def by_people(tmp_path):
    def judge(csv, kind="human"):
        (tmp_path / "people.csv").write_text(csv, encoding="utf-8")
        explanations = pd.DataFrame(
            {"latent_index": np.arange(3) + 5, "explanation": SAMPLED, "side": "input", "url": ""}
        )
        options = Judge(kind=kind, path=str(tmp_path / "people.csv"))
        return judge_explanations("people", options, explanations, BEHAVIORS, subject_dir=tmp_path)

    return judge


def test_only_the_pairs_that_people_judged_have_rows_and_the_others_are_counted(by_people, tmp_path):
    frame = by_people(SAMPLE)
    assert frame[["latent_index", "behavior", "expected_effect"]].values.tolist() == [
        [5, "refusal", 1.0],
        [6, "refusal", -1.0],
        [7, "refusal", 1.0],
    ]
    assert frame.expected.tolist() == [True, False, True]
    assert frame.confidence.fillna(-1).tolist() == [0.8, -1, 0.8]
    assert frame.attrs["counts"] == {"judged": 3, "unjudged_pairs": 3, "not_used": 0}
    write_judgements(frame, tmp_path / "r.parquet")
    pd.testing.assert_frame_equal(read_judgements(tmp_path / "r.parquet"), frame)


def test_the_same_file_read_as_a_table_calls_what_it_leaves_out_unaffected(by_people):
    frame = by_people(SAMPLE, kind="table")
    assert len(frame) == 6
    assert frame.loc[frame.behavior == "politeness", "expected_effect"].tolist() == [0, 0, 0]


def test_a_judgement_of_an_explanation_that_has_changed_since_is_not_used(by_people):
    csv = "latent_index,explanation,behavior,expected_effect\n5,says sorry,refusal,0.2\n6,other text,refusal,1\n"
    frame = by_people(csv)
    assert frame.latent_index.tolist() == [5]
    assert frame.attrs["counts"]["not_used"] == 1


@pytest.mark.parametrize(
    ("csv", "message"),
    [
        ("explanation,behavior,label\nsays sorry,refusal,promotd\n", r"people\.csv line 2: 'promotd'.*'promoted'"),
        ("explanation,behavior,label\nsays sorry,refusal,\n", "label in"),
        ("explanation,behavior\nsays sorry,refusal\n", "lacks expected_effect; allowed: .*label"),
        ("explanation,behavior,label\nnothing known,refusal,promoted\n", "judges none of the 2 explanations"),
        ("explanation,behavior,label\nsays sorry,rfusal,promoted\n", "did you mean 'refusal'"),
    ],
)
def test_labels_that_break_their_form_are_refused_with_the_place(by_people, csv, message):
    with pytest.raises(InputError, match=message):
        by_people(csv)


def test_a_text_is_found_both_as_the_source_has_it_and_as_a_table_shows_it(tmp_path):
    for shown in ("=SUM(1)", "'=SUM(1)"):
        frame = judged(
            tmp_path,
            f"explanation,behavior,expected_effect\n{shown},refusal,1\n",
            texts=["=SUM(1)", "-1", "=SUM(1)", "dogs"],
        )
        assert of(frame) == [1, 0, 0, 0, 1, 0, 0, 0]
