"""The lexicon scorer: which words an explanation speaks of, and the mean weight of a text's words."""

import numpy as np
import pytest

from isaerft.config import Scorer
from isaerft.errors import InputError
from isaerft.judges.phrases import Phrases
from isaerft.registry import SCORERS
from isaerft.scorers import Item, Task
from isaerft.scorers.lexicon import read_phrases, words_spoken_of
from isaerft.scorers.tasks import WINDOWS

HEAD = "phrase,word,weight\n"
LIST = HEAD + "sad words,gloom,1\nsad words,rain,0.5\nwords,the,0.25\nrain*,rain,0.75\nSad,TEAR,0.125\n"


def spoken(tmp_path, text, content=LIST):
    (tmp_path / "phrases.csv").write_text(content, encoding="utf-8")
    return words_spoken_of(text, Phrases(read_phrases(tmp_path / "phrases.csv").items()))


def fits(explanation, texts, path=None):
    items = tuple(Item(text, text, 0.0) for text in texts)
    (found,) = SCORERS["lexicon"]([Task(0, WINDOWS, explanation, "input", items)], Scorer(kind="lexicon", path=path))
    return found.tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fires on sad words", {"gloom": 1, "rain": 0.5}),
        ("fires on words that are sad", {"the": 0.25, "tear": 0.125}),
        ("SAD WORDS, and raining", {"gloom": 1, "rain": 0.75}),
        ('fires on "Rain", "."', {"rain": 1, ".": 1}),
        ('the word "sad words"', {"sad": 1, "words": 1}),
        ("fires on cats", {}),
        ("", {}),
    ],
)
def test_an_explanation_speaks_of_the_words_of_its_phrases_and_of_what_it_quotes(tmp_path, text, expected):
    assert spoken(tmp_path, text) == expected


def test_a_text_fits_by_the_mean_weight_of_its_words(tmp_path):
    (tmp_path / "phrases.csv").write_text(LIST)
    found = fits(
        "sad words", ["gloom", "Gloom, rain!", "sun and sun", "", "gloom gloom sun"], str(tmp_path / "phrases.csv")
    )
    assert found == pytest.approx([1, 1.5 / 4, 0, 0, 2 / 3])


def test_without_a_list_only_quoted_words_count():
    assert fits('sad words, such as "rain"', ["rain", "sad words", "rain rain sun"]) == pytest.approx([1, 0, 2 / 3])


def test_explanations_do_not_leak_into_each_other():
    items = tuple(Item(text, text, 0.0) for text in ("rain", "sun"))
    tasks = [Task(n, WINDOWS, text, "input", items) for n, text in enumerate(('"sun"', '"rain"', "none", '"sun"'))]
    found = SCORERS["lexicon"](tasks, Scorer(kind="lexicon"))
    assert np.array(found).tolist() == [[0, 1], [1, 0], [0, 0], [0, 1]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEAD + "a,b,1.5\n", r"phrases\.csv line 2: weight '1.5'; allowed: a number from 0 to 1"),
        (HEAD + "a,b,-0.5\n", "weight"),
        (HEAD + "a,b,\n", "weight"),
        (HEAD + "...,b,1\n", r"line 2: phrase '\.\.\.'"),
        (HEAD + "two words*,b,1\n", "phrase"),
        (HEAD + "a,two words,1\n", "one word or punctuation mark"),
        (HEAD + "a,,1\n", "one word"),
        (HEAD + 'a b,c,1\n"A, b",C,0.5\n', r"line 3 repeats the weight of 'C'"),
        ("phrase,word\na,b\n", "lacks weight"),
        (HEAD.replace("weight", "wieght") + "a,b,1\n", "unknown column"),
    ],
)
def test_a_malformed_list_is_refused_with_its_line(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        spoken(tmp_path, "a", content)
    with pytest.raises(InputError, match="absent"):
        read_phrases(tmp_path / "absent.csv")


HOSTILE = 'x" "\u202e\ud800\x1b[2J' + '"' * 999 + "(" * 999 + "*" * 999 + "\\" * 9


def test_hostile_texts_are_read_as_any_other(tmp_path):
    (tmp_path / "phrases.csv").write_text(LIST)
    found = fits(HOSTILE + "sad words", [HOSTILE, "gloom", "x"], str(tmp_path / "phrases.csv"))
    assert np.isfinite(found).all()
    assert found[1] == 1
