"""Annotation sheets: blind questions for readers, people or models, and their answers as sources and judges."""

from isaerft.annotation.answers import PERSON_OR_MODEL, read_annotations
from isaerft.annotation.files import read_sheet, write_sheet
from isaerft.annotation.sheet import chosen_latents, explain_sheet, judge_sheet

__all__ = [
    "PERSON_OR_MODEL",
    "chosen_latents",
    "explain_sheet",
    "judge_sheet",
    "read_annotations",
    "read_sheet",
    "write_sheet",
]
