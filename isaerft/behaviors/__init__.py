"""Behaviors: raw data in, checked records out, split into train and held-out."""

from isaerft.behaviors.prepare import prepare_behavior, split_file
from isaerft.behaviors.readers import read_rows
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
    "Record",
    "is_heldout",
    "prepare_behavior",
    "prompt_messages",
    "prompt_text",
    "read_records",
    "read_rows",
    "split_file",
    "training_splits",
    "write_records",
]
