r"""Map the raw rows of a behavior to records.

A field is mapped to a column, to a dotted path into nested data, or to a template over columns:

>>> from isaerft.io import Row
>>> row = Row("row 1", {"instruction": "Fix it.", "instances": [{"input": "teh", "output": "the"}]})
>>> field_value(row, "instances.0.output"), field_value(row, "{instruction}\n\n{instances.0.input}")
('the', 'Fix it.\n\nteh')
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from isaerft.behaviors.conversations import (
    as_messages,
    dialogue_messages,
    lost_turns,
    split_off_replies,
    with_system,
)
from isaerft.behaviors.records import FIELDS, PROMPTS, REPLIES, Record, checked_record
from isaerft.config import Behavior
from isaerft.errors import InputError, printable, shown, unknown_name
from isaerft.io import Row, column_value

CONVERSATIONS = ("messages", "conversations")
"""Columns that hold a whole conversation by convention: OpenAI's fine-tuning files and TRL, ShareGPT's."""
_TURN_PATH = re.compile(r"(.+)\.(-?\d{1,9})\.\w+")
_TEMPLATE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")


def to_record(row: Row, behavior: Behavior) -> Record:
    """Return the checked record of a raw row.

    A field other than `rephrased` that `columns` does not map comes from the column of the same name. If `columns` maps
    any reply field, the other reply fields are not read. A row with `messages` (or `conversations`) in place of prompt
    and replies is an SFT record.

    Raises
    ------
    InputError
        A column is missing, a conversation cannot be split or would lose turns, or the record fails `checked_record`.
    """
    columns = field_columns(behavior.columns, row.values, dialogues=behavior.format == "hh")
    values = {field: field_value(row, column) for field, column in columns.items()}
    replies = [field for field in REPLIES if field in columns]
    for field in replies:
        required = field in behavior.columns or all(values[reply] is None for reply in replies)
        if values[field] is None and required:
            raise InputError(f"{row.location}: {field} is blank", remedy="fill it in or remove the row")
    if behavior.format == "hh":
        values |= {field: dialogue_messages(values[field], field, row.location) for field in replies}
    if "prompt" not in values and not any(isinstance(values[field], list) for field in replies):
        values["prompt"] = field_value(row, "prompt")
    if behavior.ids == "derived":
        values.pop("id", None)
    values = split_off_replies(values, row.location)
    for field in replies:
        _check_turns(row, field, columns[field], values["prompt"])
    for field in PROMPTS:
        if field in values:
            values[field] = with_system(values[field], behavior.system)
    return checked_record(values, location=row.location)


def _check_turns(row: Row, field: str, column: str, prompt: Any) -> None:
    """Refuse a reply that a path picks out of a conversation, if turns of it are neither the reply nor in the prompt.

    A template ('{messages.-1.content}') is not checked: who writes one wants this text and no other.
    """
    match = None if column in row.values or "{" in column else _TURN_PATH.fullmatch(column)
    if match is None:
        return
    lost = lost_turns(as_messages(column_value(row, match[1])), int(match[2]), prompt)
    if lost:
        raise InputError(
            f"{row.location}: {field} is {printable(column)}, and the prompt lacks {len(lost)} other turns of the"
            f" conversation ({', '.join(dict.fromkeys(lost))})",
            remedy=f"map `{field}: {printable(match[1])}`, which makes all turns before the last reply the prompt; to"
            f" leave turns out on purpose, map `{field}: '{{{printable(column)}}}'`",
        )


def check_fields(columns: Mapping[str, str]) -> None:
    """Raise `InputError` if `columns` maps a field that records do not have."""
    for field in columns:
        if field not in FIELDS:
            raise unknown_name("record field in `columns`:", field, FIELDS)


def field_columns(columns: Mapping[str, str], row: Mapping[str, object], *, dialogues: bool = False) -> dict[str, str]:
    """Return the mapping of record fields to columns for a row; see `to_record` for fields that are not mapped."""
    mapping = dict(columns)
    replies_named = any(field in columns for field in REPLIES)
    for field in ("id", "prompt", *REPLIES):
        by_default = field not in REPLIES or not replies_named
        if field not in mapping and by_default and field in row:
            mapping[field] = field
    if dialogues:
        mapping.pop("prompt", None)
    if not any(field in mapping for field in REPLIES):
        if dialogues:
            mapping |= {"chosen": "chosen", "rejected": "rejected"}
        else:
            named = [name for name in CONVERSATIONS if name in row and "prompt" not in mapping]
            mapping["completion"] = (named or ["completion"])[0]
    return mapping


def field_value(row: Row, column: str) -> Any:
    """Return the value of a column, dotted path or template in a row; numbers become text, missing values None.

    White space around a filled template is removed, so that an empty optional part leaves no blank lines.
    """
    if column in row.values or "{" not in column:
        return as_messages(_text(column_value(row, column)))

    def fill(match: re.Match[str]) -> str:
        if match.group(1) is None:
            return match.group()[0]
        value = _text(column_value(row, match.group(1)))
        if value is not None and not isinstance(value, str):
            raise InputError(
                f"{row.location}: {printable(match.group(1))} in a template is {shown(value)}",
                allowed="text",
                remedy="select the text with a dotted path",
            )
        return "" if value is None else value

    return _TEMPLATE.sub(fill, column).strip()


def _text(value: Any) -> Any:
    """Return numbers as text, NaN as None, and other values unchanged."""
    if isinstance(value, float) and math.isnan(value):
        return None
    return str(value) if isinstance(value, int | float) else value
