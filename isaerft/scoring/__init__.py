"""Scores of the explanations themselves: does each fit what its latent does, where its explainer never looked?"""

from isaerft.scoring.base import DETECTION, FUZZING, OUTPUT, SCORES, Item, Matcher, Task, score_explanations
from isaerft.scoring.items import tasks_of
from isaerft.scoring.table import read_scores, write_scores

__all__ = [
    "DETECTION",
    "FUZZING",
    "OUTPUT",
    "SCORES",
    "Item",
    "Matcher",
    "Task",
    "read_scores",
    "score_explanations",
    "tasks_of",
    "write_scores",
]
