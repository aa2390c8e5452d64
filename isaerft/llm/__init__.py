"""Asking language models over HTTP: every answer kept by content, every cost known before it is made.

An answer is text from outside. It becomes data only through `parsed`, and what does not fit its form is a `Failure`,
which is counted and never taken for an answer.
"""

from isaerft.llm.cache import Failure, Reply, ResponseCache, parsed
from isaerft.llm.client import LanguageModel, RequestPlan, price, request_plan
from isaerft.llm.prompts import Prompt, between_markers, marker_of

__all__ = [
    "Failure",
    "LanguageModel",
    "Prompt",
    "Reply",
    "RequestPlan",
    "ResponseCache",
    "between_markers",
    "marker_of",
    "parsed",
    "price",
    "request_plan",
]
