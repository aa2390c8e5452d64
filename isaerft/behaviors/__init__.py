"""Behavior data sets -> one canonical record format, split into train and held-out."""

from isaerft.behaviors.prepare import is_heldout, prepare_behavior, split_file
from isaerft.behaviors.readers import read_rows
from isaerft.behaviors.records import Record, prompt_messages, prompt_text, read_records, write_records
from isaerft.behaviors.training_splits import training_splits

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
