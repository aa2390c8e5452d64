"""Where explanations come from: sources and the one table that they return."""

from isaerft.explanations.base import (
    AskingSource,
    SourceFunction,
    checked_explanations,
    clean_text,
    read_explanations,
    write_explanations,
)
from isaerft.explanations.sample import (
    CASE_ROLE,
    CONTROL_ROLE,
    latents_to_explain,
    read_sample,
    sample_path,
    write_sample,
)
from isaerft.explanations.sources import explain

__all__ = [
    "CASE_ROLE",
    "CONTROL_ROLE",
    "AskingSource",
    "SourceFunction",
    "checked_explanations",
    "clean_text",
    "explain",
    "latents_to_explain",
    "read_explanations",
    "read_sample",
    "sample_path",
    "write_explanations",
    "write_sample",
]
