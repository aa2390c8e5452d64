"""Scorers: does an explanation fit what its latent does, in contexts held out from its explainer?"""

from isaerft.scorers.base import (
    AskingScorer,
    ScorerFunction,
    read_scores,
    score_explanations,
    write_scores,
)
from isaerft.scorers.tasks import DETECTION, FUZZING, OUTPUT, SCORES, Item, Task, tasks_of

__all__ = [
    "DETECTION",
    "FUZZING",
    "OUTPUT",
    "SCORES",
    "AskingScorer",
    "Item",
    "ScorerFunction",
    "Task",
    "read_scores",
    "score_explanations",
    "tasks_of",
    "write_scores",
]
