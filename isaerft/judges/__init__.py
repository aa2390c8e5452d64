"""Judges: from an explanation and a behavior's description to the effect expected of training."""

from isaerft.judges.base import (
    AskingJudge,
    JudgeFunction,
    checked_judgements,
    distinct_texts,
    judge_explanations,
    judgements,
    read_judgements,
    top_share,
    write_judgements,
)

__all__ = [
    "AskingJudge",
    "JudgeFunction",
    "checked_judgements",
    "distinct_texts",
    "judge_explanations",
    "judgements",
    "read_judgements",
    "top_share",
    "write_judgements",
]
