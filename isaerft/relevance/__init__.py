"""Judges: an explanation and a behavior's description -> the effect that one expects."""

from isaerft.relevance.base import (
    RelevanceJudge,
    checked_relevance,
    distinct_texts,
    judge_relevance,
    judgements,
    read_relevance,
    top_share,
    write_relevance,
)

__all__ = [
    "RelevanceJudge",
    "checked_relevance",
    "distinct_texts",
    "judge_relevance",
    "judgements",
    "read_relevance",
    "top_share",
    "write_relevance",
]
