"""Asking language models over HTTP: every reply is cached by its request, every cost known before it is incurred."""

from isaerft.llm.cache import ResponseCache
from isaerft.llm.client import LanguageModel, RequestPlan
from isaerft.llm.prompts import Failure, Prompt, Reply, between_markers, marker_of, parsed

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
]
