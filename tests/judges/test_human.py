"""People's judgements: a sample of pairs, in numbers or labels, nothing made of what they left out."""

import numpy as np
import pandas as pd
import pytest

from isaerft.config import Judge
from isaerft.errors import InputError
from isaerft.judges import judge_explanations, read_judgements, write_judgements

BEHAVIORS = {"refusal": "Refuses.", "humor": "Jokes."}
TEXTS = ["says sorry", "tells jokes", "says sorry"]


@pytest.fixture
def judged(tmp_path):
    def judge(csv, kind="human"):
        (tmp_path / "people.csv").write_text(csv, encoding="utf-8")
        explanations = pd.DataFrame(
            {"latent_index": np.arange(3) + 5, "explanation": TEXTS, "side": "input", "url": ""}
        )
        options = Judge(kind=kind, path=str(tmp_path / "people.csv"))
        return judge_explanations("people", options, explanations, BEHAVIORS, subject_dir=tmp_path)

    return judge


SAMPLE = "explanation,behavior,label,confidence\nsays sorry,refusal,Promoted,0.8\ntells jokes,refusal,suppressed,\n"


def test_only_the_pairs_that_people_judged_have_rows_and_the_others_are_counted(judged, tmp_path):
    frame = judged(SAMPLE)
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


def test_the_same_file_read_as_a_table_calls_what_it_leaves_out_unaffected(judged):
    frame = judged(SAMPLE, kind="table")
    assert len(frame) == 6
    assert frame.loc[frame.behavior == "humor", "expected_effect"].tolist() == [0, 0, 0]


def test_a_judgement_of_an_explanation_that_has_changed_since_is_not_used(judged):
    csv = "latent_index,explanation,behavior,expected_effect\n5,says sorry,humor,0.2\n6,another text,humor,1\n"
    frame = judged(csv)
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
def test_a_file_that_breaks_its_form_is_refused_with_the_place(judged, csv, message):
    with pytest.raises(InputError, match=message):
        judged(csv)
