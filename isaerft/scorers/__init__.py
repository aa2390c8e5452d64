"""Scores of the explanations themselves: does each fit what its latent does, where its explainer never looked?"""

from isaerft.scorers.base import (
    DETECTION,
    FUZZING,
    OUTPUT,
    SCORES,
    Item,
    Matcher,
    Task,
    read_scores,
    score_explanations,
    tasks_of,
    write_scores,
)

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
