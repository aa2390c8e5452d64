"""The lexicon judge: the mean effect of the words named, side by side, whatever the text around them."""

import numpy as np
import pandas as pd
import pytest

from isaerft.config import Judge
from isaerft.errors import InputError
from isaerft.judges import judge_explanations

BEHAVIORS = {"refusal": "Refuses.", "politeness": "Is polite."}
HEAD = "word,side,behavior,effect\n"
LIST = HEAD + (
    "sorry,both,refusal,1\nsorry,both,politeness,0.5\nrefus*,both,refusal,1\nThank you,input,politeness,0.25\n"
    "you,input,refusal,-1\nplain,output,refusal,-1\nthank,output,politeness,1\n"
)


def judged(tmp_path, texts, content=LIST, sides="input", **options):
    (tmp_path / "words.csv").write_text(content, encoding="utf-8")
    explained = pd.DataFrame({"latent_index": range(len(texts)), "explanation": texts, "side": sides, "url": ""})
    judge = Judge(kind="lexicon", path="{subject_dir}/words.csv", **options)
    return judge_explanations("words", judge, explained, BEHAVIORS, subject_dir=tmp_path)


def effects(frame):
    return frame["expected_effect"].to_numpy().reshape(-1, 2).tolist()


def effect(tmp_path, text, side="input"):
    return effects(judged(tmp_path, [text, "sorry"], sides=[side, "input"]))[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("says sorry", [1, 0.5]),
        ("SORRY, sorry and sorry again", [1, 0.5]),
        ("refuses or was refusing", [1, 0]),
        ("is sorry and refuses", [1, 0.25]),
        ("thank you", [0, 0.25]),
        ("thanks from you", [-1, 0]),
        ("dogs and unrefused cats", [0, 0]),
        ('fires on "sorry", "tree", ".", "cat"', [0.25, 0.125]),
        ('fires on "Sorry" and on sorry', [1, 0.5]),
        ('fires on "sorry, I refuse"', [1, 0.25]),
        ('fires on "dog"; for example "I am [sorry]"', [0, 0]),
        ('fires on "" and sorry', [0.5, 0.25]),
    ],
)
def test_the_effect_is_the_mean_over_what_is_named_each_once(tmp_path, text, expected):
    assert effect(tmp_path, text) == expected


def test_the_side_decides_which_rows_of_the_list_hold(tmp_path):
    assert effect(tmp_path, "plain thank") == [0, 0]
    assert effect(tmp_path, "plain thank", "output") == [-0.5, 0.5]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('fires on "sorry", "x"; promotes "plain"', [-1, 0.25]),
        ('fires on "sorry", "x"; amplified, makes "thank", "x", "y", "z" more likely', [0.5, 0.25]),
        ("thank you", [-0.0, 1]),
        ('fires on "sorry"; promotes "plain"', [1, 0.5]),
    ],
)
def test_of_both_sides_the_one_with_the_larger_effect_counts_and_the_input_at_a_tie(tmp_path, text, expected):
    assert effect(tmp_path, text, "both") == expected


def test_expected_is_above_half_of_the_largest_whatever_the_scale_of_the_list(tmp_path):
    texts = ['"sorry"', '"sorry", "x"', '"sorry", "x", "sorry refuse"', "dogs"]
    large = judged(tmp_path, texts)
    small = judged(tmp_path, texts, HEAD + "sorry,both,refusal,0.1\nrefuse,both,refusal,0.1\n")
    for frame in (large, small):
        of = frame[frame.behavior == "refusal"]
        assert of["expected"].tolist() == [True, False, True, False]
    generous = judged(tmp_path, texts, expected_above=0.4)
    assert generous.loc[generous.behavior == "refusal", "expected"].tolist() == [True, True, True, False]
    assert not small.loc[small.behavior == "politeness", "expected"].any()


def test_a_negative_effect_is_never_expected(tmp_path):
    frame = judged(tmp_path, ["you", "sorry you", "dogs"], HEAD + "you,input,refusal,-1\n")
    assert not frame["expected"].any()
    assert frame.loc[frame.behavior == "refusal", "expected_effect"].tolist() == [-1, -1, 0]


def test_the_rationale_names_the_words_and_the_counts_say_what_was_not_read(tmp_path):
    frame = judged(tmp_path, ['fires on "sorry", "x"', "dogs"])
    assert frame["rationale"].tolist() == ['input: "sorry" (1 of 2 words)'] * 2 + ["", ""]
    assert frame.attrs["counts"] == {"read": 1, "without_words": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEAD, "is empty"),
        ("word,side,behavior\nsorry,both,refusal\n", "lacks effect; allowed: word, side, behavior, effect"),
        (HEAD.replace("effect", "weight") + "a,both,refusal,1\n", "unknown column in .*'weight'"),
        (HEAD + "a,both,refusl,1\n", "unknown behavior in .*line 2: 'refusl'; .*did you mean 'refusal'"),
        (HEAD + "a,inside,refusal,1\n", "unknown side in .*line 2: 'inside'; allowed: both, input, output"),
        (HEAD + "a,both,refusal,2\n", "line 2: effect '2'; allowed: a number from -1 to 1"),
        (HEAD + "a,both,refusal,\n", "line 2: effect ''"),
        (HEAD + "...,both,refusal,1\n", r"line 2: word '\.\.\.'; allowed: one or more words"),
        (HEAD + ",both,refusal,1\n", "line 2: word ''"),
        (HEAD + "a* b,both,refusal,1\n", r"line 2: word 'a\* b'"),
        (HEAD + "*,both,refusal,1\n", r"line 2: word '\*'"),
        (HEAD + "sorry,both,refusal,1\nSorry,input,refusal,0\n", "line 3 repeats the effect of 'sorry' on 'refusal'"),
        (HEAD + "zebra,both,refusal,1\n", "no explanation names a word of .*words.csv"),
    ],
)
def test_a_bad_list_is_an_error_that_says_where(tmp_path, content, message):
    with pytest.raises(InputError, match=message) as caught:
        judged(tmp_path, ["sorry"], content)
    assert len(str(caught.value)) < 1000


def test_a_path_is_needed_and_options_are_refused(tmp_path):
    explained = pd.DataFrame({"latent_index": [0], "explanation": ["a"], "side": "input", "url": ""})
    with pytest.raises(InputError, match="without a path"):
        judge_explanations("lexicon", Judge(), explained, BEHAVIORS, subject_dir=tmp_path)
    with pytest.raises(InputError, match="unknown option of a lexicon judge"):
        judged(tmp_path, ["sorry"], options={"x": 1})


def test_the_same_text_has_the_same_effect_at_every_latent_and_order_does_not_matter(tmp_path):
    texts = ["sorry", '"sorry", "x"', "refuses", "sorry"]
    first = effects(judged(tmp_path, texts))
    assert first[0] == first[3]
    np.testing.assert_array_equal(first[::-1], effects(judged(tmp_path, texts[::-1])))
