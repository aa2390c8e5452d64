"""Scorers: does an explanation fit what its latent does, in contexts held out from its explainer?"""

from isaerft.scorers.base import (
    AskingScorer,
    ScorerFunction,
    questions_of,
    read_scores,
    score_explanations,
    write_scores,
)
from isaerft.scorers.scores import Score
from isaerft.scorers.tasks import Item, Question, Task, tasks_of

__all__ = [
    "AskingScorer",
    "Item",
    "Question",
    "Score",
    "ScorerFunction",
    "Task",
    "questions_of",
    "read_scores",
    "score_explanations",
    "tasks_of",
    "write_scores",
]
