"""Where explanations come from, in one table: latent_index, explanation, side, url."""

from isaerft.explanations.base import (
    ExplanationSource,
    checked_explanations,
    clean_text,
    explain,
    read_explanations,
    write_explanations,
)

__all__ = [
    "ExplanationSource",
    "checked_explanations",
    "clean_text",
    "explain",
    "read_explanations",
    "write_explanations",
]
