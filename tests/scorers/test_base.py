"""What a score is: right explanations near 1, foreign ones near a half, and a floor that is measured."""

import numpy as np
import pandas as pd
import pytest

from isaerft.config import Scorer
from isaerft.errors import InputError
from isaerft.llm import Failure
from isaerft.registry import SCORERS, SCORES
from isaerft.scorers import Item, Task, read_scores, score_explanations, write_scores
from isaerft.scorers.base import exchange_explanations, value_of
from isaerft.scorers.tasks import MARKED_TOKENS, TOKEN_LISTS, WINDOWS

WORDS = ["violin", "glacier", "tractor", "cinnamon", "lawyer", "dolphin", "pyramid", "blanket", "chess", "volcano"]
WORDS += ["ballet", "cheese", "submarine", "cactus", "dentist", "wedding", "helicopter", "spider", "library", "bicycle"]
WORDS += ["thunder", "robot", "harvest", "castle"]


def windows(rng, word, holds):
    others = [other for other in WORDS if other != word]
    texts = [" ".join(rng.permutation([*rng.choice(others, 4, replace=False), *([word] if h else [])])) for h in holds]
    return tuple(Item(text, text, float(h)) for text, h in zip(texts, holds, strict=True))


def world(explain=lambda word: f"fires on {word}", questions=(WINDOWS,), n_items=8):
    """One latent per word, whose windows hold the word or do not."""
    rng = np.random.default_rng(0)
    holds = [True, False] * (n_items // 2)
    return [
        Task(latent, question, explain(word), "input", windows(rng, word, holds))
        for latent, word in enumerate(WORDS)
        for question in questions
    ]


@pytest.fixture
def answering(monkeypatch):
    """Register a scorer for the length of a test."""

    def register(function):
        monkeypatch.setitem(SCORERS._parts, "testing", function)
        return Scorer(kind="testing", scores=["detection"])

    return register


@pytest.mark.parametrize("kind", ["lexical", "embedding"])
def test_right_explanations_score_near_one_and_exchanged_ones_near_a_half(kind):
    frame = score_explanations(kind, Scorer(), world(), seed=0)
    assert len(frame) == len(WORDS)
    assert frame["value"].mean() > 0.9
    assert abs(frame["floor"].mean() - 0.5) < 0.1


def test_a_foreign_explanation_scores_near_a_half():
    foreign = dict(zip(WORDS, np.roll(WORDS, 1), strict=True))
    frame = score_explanations("lexical", Scorer(), world(lambda word: f"fires on {foreign[word]}"), seed=0)
    assert abs(frame["value"].mean() - 0.5) < 0.1


def test_an_explanation_that_fits_all_items_alike_scores_exactly_a_half():
    frame = score_explanations("lexical", Scorer(), world(lambda word: "wwww"), seed=0)
    assert (frame["value"] == 0.5).all()
    assert frame["floor"].isna().all()  # nobody says anything else


def test_the_floor_shows_items_that_betray_themselves(answering):
    betrayed = answering(lambda tasks, scorer: [np.array([item.holds for item in task.items], float) for task in tasks])
    frame = score_explanations("x", betrayed, world(), seed=0)
    assert (frame["value"] == 1).all()
    assert (frame["floor"] == 1).all()


def test_for_yes_and_no_the_value_is_balanced_accuracy_whatever_the_leaning():
    items = tuple(Item("t", "t", holds) for holds in [1.0] * 2 + [0.0] * 6)
    task = Task(0, TOKEN_LISTS, "e", "input", items)
    assert value_of(SCORES["output"], task, np.ones(8)) == 0.5
    assert value_of(SCORES["output"], task, np.zeros(8)) == 0.5
    said = np.array([1, 0, 1, 0, 0, 0, 0, 0], float)
    assert value_of(SCORES["output"], task, said) == pytest.approx((1 / 2 + 5 / 6) / 2)


def test_the_last_bits_of_a_fit_decide_nothing():
    task = Task(0, TOKEN_LISTS, "e", "input", (Item("a", "a", 1), Item("b", "b", 0)))
    assert value_of(SCORES["output"], task, np.array([0.3, 0.1 + 0.2])) == 0.5


def test_every_latent_gets_anothers_explanation_of_other_words_on_its_own_items():
    tasks = world(lambda word: f"says {word[:3]}", (WINDOWS, MARKED_TOKENS, TOKEN_LISTS))
    exchanged = exchange_explanations(tasks, 0)
    for task, other in zip(tasks, exchanged, strict=True):
        assert other.explanation != task.explanation
        assert (other.items, other.latent, other.question) == (task.items, task.latent, task.question)
    assert exchange_explanations(tasks, 0) == exchanged
    assert exchange_explanations(tasks, 1) != exchanged


def test_failures_are_counted_and_never_a_score(answering):
    def sometimes(tasks, scorer):
        return [
            Failure("refused") if task.latent % 3 == 0 else np.array([item.holds for item in task.items], float)
            for task in tasks
        ]

    frame = score_explanations("x", answering(sometimes), world(), seed=0)
    failed = frame["latent_index"] % 3 == 0
    assert frame.loc[failed, "value"].isna().all()
    assert (frame.loc[~failed, "value"] == 1).all()
    assert frame.attrs["counts"] == {"tasks": 2 * len(WORDS), "failed": {"refused": 2 * int(failed.sum())}}


def test_nothing_to_score_and_nothing_scored_are_refused(answering):
    with pytest.raises(InputError, match="nothing to score"):
        score_explanations("lexical", Scorer(), [], seed=0)
    broken = answering(lambda tasks, scorer: [Failure("no_json") for _ in tasks])
    with pytest.raises(InputError, match=r"scored none of 24 tasks; failures: \{'no_json': 48\}"):
        score_explanations("x", broken, world(), seed=0)


def test_scores_survive_their_file_and_other_columns_are_refused(tmp_path):
    frame = score_explanations("lexical", Scorer(), world(), seed=0)
    write_scores(frame, tmp_path / "a.parquet")
    write_scores(score_explanations("lexical", Scorer(), world(), seed=0), tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    pd.testing.assert_frame_equal(read_scores(tmp_path / "a.parquet"), frame, check_dtype=False)
    frame.drop(columns="floor").to_parquet(tmp_path / "c.parquet")
    with pytest.raises(InputError, match="allowed: score, latent_index"):
        read_scores(tmp_path / "c.parquet")
    with pytest.raises(InputError, match="do not exist"):
        read_scores(tmp_path / "d.parquet")
