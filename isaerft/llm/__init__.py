"""Asking language models over HTTP: every answer kept by content, every cost known before it is made.

An answer is text from outside. It becomes data only through `parsed`, and what does not fit its form is a `Failure`,
which is counted and never taken for an answer.
"""

from isaerft.llm.cache import Failure, Reply, ResponseCache, parsed
from isaerft.llm.client import LanguageModel, Plan, plan_of, price
from isaerft.llm.prompts import Prompt, between_markers, marker_of

__all__ = [
    "Failure",
    "LanguageModel",
    "Plan",
    "Prompt",
    "Reply",
    "ResponseCache",
    "between_markers",
    "marker_of",
    "parsed",
    "plan_of",
    "price",
]
