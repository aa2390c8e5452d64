r"""Flat dialogues of Anthropic's HH data, split into prompt messages and last replies.

>>> split_replies({"completion": "\n\nHuman: Hi\n\nAssistant: Hello!"}, "row 1")
{'completion': 'Hello!', 'prompt': [{'role': 'user', 'content': 'Hi'}]}

The data is described in Bai et al. 2022, "Training a Helpful and Harmless Assistant with Reinforcement Learning from
Human Feedback". It holds a few rows whose dialogues part before the last reply, or whose last reply is blank; nobody
can mend a published data set, so these raise `UnusableDialogue` and `prepare_behavior` counts them.

Raw data of a behavior, from a local file or the Hugging Face hub, and the mapping of its columns to record fields.

A field is mapped by the name of a column, by a dotted path into nested data, or by a template over columns:

>>> from isaerft.behaviors.rows import Row
>>> row = Row("row 1", {"instruction": "Fix it.", "instances": [{"input": "teh", "output": "the"}]})
>>> field_value(row, "instances.0.output"), field_value(row, "{instruction}\n\n{instances.0.input}")
('the', 'Fix it.\n\nteh')
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from isaerft.behaviors.records import FIELDS, REPLIES, Record, checked_record
from isaerft.config import Behavior
from isaerft.errors import InputError, shown, unknown_name
from isaerft.io import Row, column_value, printable, read_data_file

_TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


class UnusableDialogue(Exception):
    """A row of dialogues that cannot become a record; the message says why, in words that can be counted."""


def split_replies(values: dict[str, Any], place: str) -> dict[str, Any]:
    """Replace the dialogues in `values` by their last replies, and add the prompt that they share.

    Parameters
    ----------
    values : dict
        `completion`, or `chosen` and `rejected`, as flat dialogues; an `id` is kept.
    place : str
        Where the row stands, for errors.

    Raises
    ------
    UnusableDialogue
        The text is no dialogue, its last turn is not a reply, or the two dialogues differ before their last replies.
    InputError
        A dialogue is not text.
    """
    result = {key: value for key, value in values.items() if key in ("id",)}
    prompts = []
    for field in ("completion", "chosen", "rejected"):
        if field not in values:
            continue
        if not isinstance(values[field], str):
            raise InputError(f"{place}: {field} is {shown(values[field])}", allowed="a dialogue as text (format: hh)")
        prompt, result[field] = _split(values[field])
        prompts.append(prompt)
    if any(prompt != prompts[0] for prompt in prompts):
        raise UnusableDialogue("the dialogues differ before their last replies")
    if len(prompts) == 2 and result["chosen"] == result["rejected"]:
        raise UnusableDialogue("chosen and rejected are the same")
    return result | {"prompt": prompts[0]}


def _split(dialogue: str) -> tuple[list[dict[str, str]], str]:
    """Return a dialogue's prompt messages and its last reply; turns of one speaker in a row become one message."""
    before, *parts = _TURN.split(dialogue.strip())
    if before.strip() or not parts:
        raise UnusableDialogue("the text does not begin with 'Human:' or 'Assistant:'")
    messages: list[dict[str, str]] = []
    for speaker, text in zip(parts[::2], parts[1::2], strict=True):
        role, content = _ROLES[speaker], text.strip()
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] = f"{messages[-1]['content']}\n\n{content}".strip()
        else:
            messages.append({"role": role, "content": content})
    *prompt, last = messages
    if last["role"] != "assistant" or not last["content"]:
        raise UnusableDialogue("the last reply is blank or missing")
    if not prompt or any(not message["content"] for message in prompt):
        raise UnusableDialogue("a turn before the last reply is blank or missing")
    return prompt, last["content"]


MAX_VALUES_SHOWN = 10
_TEMPLATE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")


def read_rows(behavior: Behavior) -> Iterator[Row]:
    """Give the raw rows of a behavior that pass its `where` filter.

    Raises
    ------
    InputError
        The data cannot be read, a filter's column is missing, or no row passes.
    """
    rows = read_data_file(behavior.path) if behavior.path is not None else _hub_rows(behavior)
    seen: dict[str, Counter[str]] = {column: Counter() for column in behavior.where}
    kept = 0
    for row in rows:
        passes = True
        for column, wanted in behavior.where.items():
            value = _filter_text(column_value(row, column))
            if value in seen[column] or len(seen[column]) < MAX_VALUES_SHOWN:
                seen[column][value] += 1
            passes &= value in ([wanted] if isinstance(wanted, str) else wanted)
        if passes:
            kept += 1
            yield row
    if not kept:
        origin = behavior.path or behavior.dataset
        if not behavior.where:
            raise InputError(f"dataset {origin!r} is empty: it holds no rows", remedy="check its subset and split")
        found = "; ".join(f"{column} is one of {', '.join(map(printable, values))}" for column, values in seen.items())
        raise InputError(f"where {shown(behavior.where)} matches no row of {origin!r}", allowed=found)


def to_record(row: Row, behavior: Behavior) -> Record:
    """Map a raw row to a checked record.

    A field that `columns` does not name is taken from the column of its own name, except that naming one reply field
    leaves out the other kinds of reply.

    Raises
    ------
    InputError
        A column is missing or the record breaks a rule of `checked_record`.
    UnusableDialogue
        With `format: hh`, the row's dialogues cannot be split.
    """
    columns = field_columns(behavior.columns, row.values, dialogues=behavior.format == "hh")
    values = {field: field_value(row, column) for field, column in columns.items()}
    if behavior.format == "hh":
        values = split_replies(values, row.location)
    replies = [field for field in REPLIES if field in columns]
    for field in replies:
        must_be_there = field in behavior.columns or all(values[reply] is None for reply in replies)
        if values[field] is None and must_be_there:
            raise InputError(f"{row.location}: {field} is blank", remedy="fill it in, or remove the row")
    return checked_record(values, place=row.location)


def field_columns(columns: Mapping[str, str], row: Mapping[str, object], *, dialogues: bool = False) -> dict[str, str]:
    """Return record field -> column for a row, with fields that are not mapped taken from columns of their own name."""
    for field in columns:
        if field not in FIELDS:
            raise unknown_name("record field under `columns`:", field, FIELDS)
    taken = dict(columns)
    replies_named = any(field in columns for field in REPLIES)
    for field in FIELDS:
        by_default = field not in REPLIES or not replies_named
        if field not in taken and by_default and field in row:
            taken[field] = field
    if dialogues:
        taken.pop("prompt", None)
    elif "prompt" not in taken:
        taken["prompt"] = "prompt"
    if not any(field in taken for field in REPLIES):
        taken |= {"chosen": "chosen", "rejected": "rejected"} if dialogues else {"completion": "completion"}
    return taken


def field_value(row: Row, column: str) -> Any:
    """Return what a column, dotted path or template gives for a row; numbers become text, absent values None.

    A template's outer white space is removed, so that an empty optional part leaves no blank lines behind.
    """
    if column in row.values or "{" not in column:
        return _text(column_value(row, column))

    def fill(match: re.Match[str]) -> str:
        if match.group(1) is None:
            return match.group()[0]
        value = _text(column_value(row, match.group(1)))
        if isinstance(value, list | dict):
            raise InputError(
                f"{row.location}: {printable(match.group(1))} in a template holds {shown(value)}",
                allowed="text",
                remedy="name the text inside it with a dotted path",
            )
        return "" if value is None else value

    return _TEMPLATE.sub(fill, column).strip()


def _text(value: Any) -> Any:
    """Return numbers as text and NaN as None; text, lists and objects as they are."""
    if isinstance(value, float) and math.isnan(value):
        return None
    return str(value) if isinstance(value, int | float) else value


def _filter_text(value: object) -> str:
    """Return a value as the text that `where` compares: true and false as YAML writes them."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _hub_rows(behavior: Behavior) -> Iterator[Row]:
    """Give the rows of a Hugging Face dataset at its pinned revision."""
    import datasets

    try:
        data = datasets.load_dataset(
            behavior.dataset,
            behavior.subset,
            data_dir=behavior.data_dir,
            split=behavior.split,
            revision=behavior.revision,
        )
    except Exception as error:  # the library raises many unrelated types for one cause: the data cannot be had
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"dataset {behavior.dataset!r} (subset {behavior.subset!r}, split {behavior.split!r}, revision "
            f"{behavior.revision!r}) cannot be loaded: {type(error).__name__}: {reason}",
            remedy="check the names and the network, or give a local `path`",
        ) from error
    for number, values in enumerate(data, 1):
        yield Row(f"{behavior.dataset} row {number}", dict(values))
