"""Language models over HTTP: replies are cached by request, and costs are known in advance."""

from isaerft.llm.cache import ResponseCache
from isaerft.llm.client import LanguageModel, RequestPlan
from isaerft.llm.prompts import ASK_AGAIN, NO_ANSWER, Failure, Prompt, Reply, between_markers, marker_of, parsed

__all__ = [
    "ASK_AGAIN",
    "NO_ANSWER",
    "Failure",
    "LanguageModel",
    "Prompt",
    "Reply",
    "RequestPlan",
    "ResponseCache",
    "between_markers",
    "marker_of",
    "parsed",
]
