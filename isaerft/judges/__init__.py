"""Judges: an explanation and a behavior's description -> the effect that one expects."""

from isaerft.judges.base import (
    RelevanceJudge,
    checked_judgements,
    distinct_texts,
    judge_explanations,
    judgements,
    read_judgements,
    top_share,
    write_judgements,
)

__all__ = [
    "RelevanceJudge",
    "checked_judgements",
    "distinct_texts",
    "judge_explanations",
    "judgements",
    "read_judgements",
    "top_share",
    "write_judgements",
]
