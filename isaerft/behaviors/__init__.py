"""Behaviors: raw data in, checked records out, split into train and held-out."""

from isaerft.behaviors.data import read_rows
from isaerft.behaviors.elicited import read_prompts, read_requests
from isaerft.behaviors.prepare import Elicited, prepare_behavior, split_file
from isaerft.behaviors.records import (
    Record,
    is_heldout,
    prompt_messages,
    prompt_text,
    read_records,
    training_splits,
    write_records,
)

__all__ = [
    "Elicited",
    "Record",
    "is_heldout",
    "prepare_behavior",
    "prompt_messages",
    "prompt_text",
    "read_prompts",
    "read_records",
    "read_requests",
    "read_rows",
    "split_file",
    "training_splits",
    "write_records",
]
