"""Vectors of windows: kept ones give the same scores, cover what sources ask for, and are not made again."""

import numpy as np
import pytest

from isaerft.config import Scorer
from isaerft.errors import InputError
from isaerft.scorers import questions_of, read_windows, score_explanations, tasks_of, texts_of, write_windows
from isaerft.scorers.similarity import Embedding, embedding

SCORES = ["detection", "output", "intruder"]


@pytest.fixture(scope="module")
def tasks(language_world):
    """Tasks of two sources on the same windows."""
    asked = questions_of(SCORES)
    return [tasks_of(language_world.contexts, language_world.explained(shift), asked, seed=0) for shift in (0, 3)]


@pytest.fixture(scope="module")
def texts(language_world):
    """The texts that these sources need, and no more."""
    latents = np.arange(len(language_world.concepts))
    return texts_of(language_world.contexts, latents, questions_of(SCORES), seed=0)


def test_texts_are_those_of_every_source(tasks, texts):
    for own in tasks:
        assert {item.focus for task in own for item in task.items} == set(texts)


@pytest.mark.slow
@pytest.mark.parametrize("query", ["", "query: "])
def test_kept_vectors_give_the_same_scores_and_only_explanations_are_embedded(
    tasks, texts, query, tmp_path, monkeypatch
):
    write_windows(texts, embedding.embed(texts, Scorer()), tmp_path / "windows.parquet")
    windows, scorer = read_windows(tmp_path / "windows.parquet"), Scorer(scores=SCORES, query=query)
    asked = []
    monkeypatch.setattr(
        Embedding, "embed", lambda self, new, scorer, own=Embedding.embed: asked.extend(new) or own(self, new, scorer)
    )
    for own in tasks:
        expected = score_explanations("embedding", scorer, own, seed=0)
        asked.clear()
        found = score_explanations("embedding", scorer, own, seed=0, windows=windows)
        assert found.equals(expected)
        explained = {query + task.explanation for task in own if task.question.answer != "odd"}
        compared = {query + item.focus for task in own if task.question.answer == "odd" for item in task.items}
        assert set(asked) == (explained | compared) - set(texts)


def test_the_vector_of_a_text_is_its_own(texts, tmp_path):
    # With vectors of other texts, scores of right explanations would be those of wrong ones.
    path = tmp_path / "windows.parquet"
    write_windows(texts, np.arange(2.0 * len(texts)).reshape(-1, 2), path)
    windows = read_windows(path)
    vectors = windows.vectors_of([texts[5], "unknown", texts[2]], lambda new: np.full((len(new), 2), -1.0))
    assert vectors.tolist() == [[10.0, 11.0], [-1.0, -1.0], [4.0, 5.0]]
    assert windows.vectors_of(texts[:2], lambda new: 1 / 0).tolist() == [[0.0, 1.0], [2.0, 3.0]]


def test_missing_windows_are_told(tmp_path):
    with pytest.raises(InputError, match="run the rule `embed_windows`"):
        read_windows(tmp_path / "none.parquet")
