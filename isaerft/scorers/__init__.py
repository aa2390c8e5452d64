"""Scorers: does an explanation fit what its latent does, in contexts held out from its explainer?"""

from isaerft.scorers.base import (
    AskingScorer,
    EmbeddingScorer,
    ScorerFunction,
    questions_of,
    read_scores,
    score_explanations,
    write_scores,
)
from isaerft.scorers.scores import Score
from isaerft.scorers.tasks import Item, Question, Task, tasks_of
from isaerft.scorers.windows import Windows, read_windows, texts_of, write_windows

__all__ = [
    "AskingScorer",
    "EmbeddingScorer",
    "Item",
    "Question",
    "Score",
    "ScorerFunction",
    "Task",
    "Windows",
    "questions_of",
    "read_scores",
    "read_windows",
    "score_explanations",
    "tasks_of",
    "texts_of",
    "write_scores",
    "write_windows",
]
