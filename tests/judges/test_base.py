"""The judge interface: every pair once, values in range, texts judged once, ties treated alike."""

import numpy as np
import pandas as pd
import pytest

from isaerft.config import Judge
from isaerft.errors import InputError
from isaerft.judges import (
    checked_judgements,
    distinct_texts,
    judge_explanations,
    judgements,
    read_judgements,
    top_share,
    write_judgements,
)
from isaerft.registry import JUDGES

BEHAVIORS = {"refusal": "Refuses.", "politeness": "Is polite."}


def explained(*texts, first=10):
    return pd.DataFrame(
        {
            "latent_index": np.arange(first, first + len(texts)),
            "explanation": list(texts),
            "side": "input",
            "url": "",
        }
    )


def made(effects=((0.5, -0.5), (0.1, 0.2)), **columns):
    effects = np.array(effects)
    frame = judgements(explained("a", "b"), BEHAVIORS, effects, expected=effects > 0.3)
    return frame.assign(**columns)


def test_matrices_are_laid_out_latent_by_latent_in_the_order_of_the_behaviors():
    frame = made()
    assert frame["latent_index"].tolist() == [10, 10, 11, 11]
    assert frame["behavior"].tolist() == ["refusal", "politeness"] * 2
    assert frame["expected_effect"].tolist() == [0.5, -0.5, 0.1, 0.2]
    assert frame["expected"].tolist() == [True, False, False, False]
    assert frame["confidence"].isna().all()
    assert (frame["rationale"] == "").all()


def test_judgements_survive_their_file_byte_for_byte(tmp_path):
    frame = made(confidence=[0.5, np.nan, 1, 0], rationale=["ä", "", "c", "d"])
    frame.attrs["counts"] = {"judged": 4}
    write_judgements(frame, tmp_path / "r.parquet")
    back = read_judgements(tmp_path / "r.parquet")
    pd.testing.assert_frame_equal(back, frame)
    assert back.attrs == {"counts": {"judged": 4}}
    first = (tmp_path / "r.parquet").read_bytes()
    write_judgements(back, tmp_path / "r.parquet")
    assert (tmp_path / "r.parquet").read_bytes() == first


def test_texts_are_distinct_and_every_row_finds_its_own():
    frame = explained("b", "a", "b", "c", "a")
    texts, position = distinct_texts(frame)
    assert texts == ["a", "b", "c"]
    assert [texts[place] for place in position] == frame["explanation"].tolist()


def test_a_rationale_from_outside_becomes_harmless():
    rationale = np.array([["\x1b[31mred\0", "half \ud800"], ["y" * 1_000_000, None]], dtype=object)
    frame = judgements(explained("a", "b"), BEHAVIORS, np.zeros((2, 2)), expected=np.zeros((2, 2)), rationale=rationale)
    assert frame["rationale"].tolist()[:2] == ["red", "half"]
    assert frame["rationale"].tolist()[3] == ""
    assert frame["rationale"].str.len().max() == 2000
    frame = made(rationale=["a\x1b[2J", "b", "c", "d"])
    assert checked_judgements(frame)["rationale"][0] == "a"


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (made([[1.5, 0], [0, 0]]), "expected_effect 1.5; allowed: -1 to 1"),
        (made([[np.nan, 0], [0, 0]]), "expected_effect nan"),
        (made(confidence=[0, 0, 2, 0]), "confidence 2.0; allowed: 0 to 1"),
        (made(latent_index=[10, 10, 10, 11]), "latent 10 is judged twice for behavior 'refusal'"),
        (made(latent_index=[10, 10, 12, 12]), r"judgements of unknown latents or behaviors: \[12\]"),
        (made(behavior=["refusal", "refusl", "refusal", "refusl"]), "unknown latents or behaviors: .*'refusl'"),
        (made()[:3], "judgements of 3 pairs, 0 counted as unjudged; allowed: together all 2 latents x 2 behaviors"),
        (made(verdict="x"), "judgements with columns"),
        (made().drop(columns="rationale"), "judgements with columns"),
    ],
)
def test_judgements_that_break_the_contract_are_refused(frame, message):
    with pytest.raises(InputError, match=message):
        checked_judgements(frame, latents=np.array([10, 11]), behaviors=BEHAVIORS)


def test_a_missing_or_damaged_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="do not exist"):
        read_judgements(tmp_path / "r.parquet")
    (tmp_path / "r.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"Parquet file .* cannot be loaded .*; make it again"):
        read_judgements(tmp_path / "r.parquet")


def test_any_registered_judge_runs_and_an_incomplete_one_is_caught(monkeypatch, tmp_path):
    monkeypatch.setattr(JUDGES, "_parts", dict(JUDGES._parts))

    @JUDGES("halfway")
    def halfway(explanations, behaviors, judge, *, subject_dir):
        effects = np.full((len(explanations), len(behaviors)), 0.25)
        frame = judgements(explanations, behaviors, effects, expected=effects > 0)
        return frame[: judge.options.get("rows")]

    frame = judge_explanations("halfway", Judge(), explained("a"), BEHAVIORS, subject_dir=tmp_path)
    assert frame["expected_effect"].tolist() == [0.25, 0.25]
    judge = Judge(kind="halfway", options={"rows": 1})
    with pytest.raises(InputError, match="judgements of 1 pairs"):
        judge_explanations("mine", judge, explained("a"), BEHAVIORS, subject_dir=tmp_path)
    with pytest.raises(InputError, match="did you mean 'halfway'"):
        judge_explanations("halfwy", Judge(), explained("a"), BEHAVIORS, subject_dir=tmp_path)
    with pytest.raises(InputError, match="without behaviors"):
        judge_explanations("halfway", Judge(), explained("a"), {}, subject_dir=tmp_path)
    with pytest.raises(InputError, match="without explanations"):
        judge_explanations("halfway", Judge(), explained(), BEHAVIORS, subject_dir=tmp_path)


def test_the_top_share_is_taken_per_behavior_and_only_above_zero():
    effects = np.column_stack([np.linspace(-1, 1, 100), np.linspace(0.9, -0.9, 100), np.full(100, -0.1)])
    expected = top_share(effects, 0.05)
    assert np.flatnonzero(expected[:, 0]).tolist() == [95, 96, 97, 98, 99]
    assert np.flatnonzero(expected[:, 1]).tolist() == [0, 1, 2, 3, 4]
    assert not expected[:, 2].any()
    assert top_share(effects[98:], 0.01)[:, 0].tolist() == [False, True]


def test_a_tie_at_the_border_of_the_top_share_comes_in_whole_and_zeros_never():
    effects = np.array([[0.9], [0.5], [0.5], [0.5], [0.1], [0], [0], [0], [0], [0]])
    assert top_share(effects, 0.2)[:, 0].tolist() == [True] * 4 + [False] * 6
    assert top_share(effects, 0.9)[:, 0].tolist() == [True] * 5 + [False] * 5
