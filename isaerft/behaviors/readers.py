r"""Read a behavior's raw data from a local file or the Hugging Face hub, and map its rows to records.

A field is mapped to a column, to a dotted path into nested data, or to a template over columns:

>>> from isaerft.io import Row
>>> row = Row("row 1", {"instruction": "Fix it.", "instances": [{"input": "teh", "output": "the"}]})
>>> field_value(row, "instances.0.output"), field_value(row, "{instruction}\n\n{instances.0.input}")
('the', 'Fix it.\n\nteh')

With `format: hh`, fields are flat dialogues as in Anthropic's HH data (Bai et al. 2022, "Training a Helpful and
Harmless Assistant with Reinforcement Learning from Human Feedback"), split into prompt messages and a last reply:

>>> split_replies({"completion": "\n\nHuman: Hi\n\nAssistant: Hello!"}, "row 1")
{'completion': 'Hello!', 'prompt': [{'role': 'user', 'content': 'Hi'}]}
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from isaerft.behaviors.records import FIELDS, REPLIES, Record, checked_record
from isaerft.config import Behavior
from isaerft.errors import InputError, printable, shown, unknown_name
from isaerft.io import Row, column_value, read_data_file

MAX_VALUES_SHOWN = 10
_TEMPLATE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")
_TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def read_rows(behavior: Behavior) -> Iterator[Row]:
    """Yield the raw rows of a behavior that pass its `where` filter.

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
            raise InputError(f"dataset {origin!r} is empty: it has no rows", remedy="check its subset and split")
        found = "; ".join(f"{column} is one of {', '.join(map(printable, values))}" for column, values in seen.items())
        raise InputError(f"where {shown(behavior.where)} matches no row of {origin!r}", allowed=found)


def _hub_rows(behavior: Behavior) -> Iterator[Row]:
    """Yield the rows of a Hugging Face data set at its pinned revision."""
    import datasets

    try:
        data = datasets.load_dataset(
            behavior.dataset,
            behavior.subset,
            data_dir=behavior.data_dir,
            split=behavior.split,
            revision=behavior.revision,
        )
    except Exception as error:  # the library raises many unrelated types when data cannot be loaded
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"dataset {behavior.dataset!r} (subset {behavior.subset!r}, split {behavior.split!r}, revision "
            f"{behavior.revision!r}) cannot be loaded: {type(error).__name__}: {reason}",
            remedy="check the names and the network, or give a local `path`",
        ) from error
    for number, values in enumerate(data, 1):
        yield Row(f"{behavior.dataset} row {number}", dict(values))


class UnusableDialogue(Exception):
    """Dialogues that cannot become a record.

    A few rows of the published HH data differ before the last reply or end in a blank one, so `prepare_behavior` counts
    such rows by message instead of stopping.
    """


def to_record(row: Row, behavior: Behavior) -> Record:
    """Return the checked record of a raw row.

    A field that `columns` does not map comes from the column of the same name. If `columns` maps any reply field, the
    other reply fields are not read.

    Raises
    ------
    InputError
        A column is missing, or the record fails `checked_record`.
    UnusableDialogue
        With `format: hh`, the row's dialogues cannot be split.
    """
    columns = field_columns(behavior.columns, row.values, dialogues=behavior.format == "hh")
    values = {field: field_value(row, column) for field, column in columns.items()}
    if behavior.format == "hh":
        values = split_replies(values, row.location)
    replies = [field for field in REPLIES if field in columns]
    for field in replies:
        required = field in behavior.columns or all(values[reply] is None for reply in replies)
        if values[field] is None and required:
            raise InputError(f"{row.location}: {field} is blank", remedy="fill it in or remove the row")
    return checked_record(values, location=row.location)


def field_columns(columns: Mapping[str, str], row: Mapping[str, object], *, dialogues: bool = False) -> dict[str, str]:
    """Return the mapping of record fields to columns for a row; see `to_record` for fields that are not mapped."""
    for field in columns:
        if field not in FIELDS:
            raise unknown_name("record field in `columns`:", field, FIELDS)
    mapping = dict(columns)
    replies_named = any(field in columns for field in REPLIES)
    for field in FIELDS:
        by_default = field not in REPLIES or not replies_named
        if field not in mapping and by_default and field in row:
            mapping[field] = field
    if dialogues:
        mapping.pop("prompt", None)
    elif "prompt" not in mapping:
        mapping["prompt"] = "prompt"
    if not any(field in mapping for field in REPLIES):
        mapping |= {"chosen": "chosen", "rejected": "rejected"} if dialogues else {"completion": "completion"}
    return mapping


def field_value(row: Row, column: str) -> Any:
    """Return the value of a column, dotted path or template in a row; numbers become text, missing values None.

    White space around a filled template is removed, so that an empty optional part leaves no blank lines.
    """
    if column in row.values or "{" not in column:
        return _text(column_value(row, column))

    def fill(match: re.Match[str]) -> str:
        if match.group(1) is None:
            return match.group()[0]
        value = _text(column_value(row, match.group(1)))
        if isinstance(value, list | dict):
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


def _filter_text(value: object) -> str:
    """Return a value as the text that `where` compares; booleans as in YAML."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def split_replies(values: dict[str, Any], location: str) -> dict[str, Any]:
    """Return the last replies of flat dialogues and the prompt that they share.

    Parameters
    ----------
    values : dict
        `completion`, or `chosen` and `rejected`, as flat dialogues; an `id` is kept.
    location : str
        Where the row comes from, for errors.

    Raises
    ------
    UnusableDialogue
        A text is not a dialogue, its last turn is not a reply, or the dialogues differ before the last reply.
    InputError
        A dialogue is not text.
    """
    result = {"id": values["id"]} if "id" in values else {}
    prompts = []
    for field in REPLIES:
        if field not in values:
            continue
        if not isinstance(values[field], str):
            raise InputError(
                f"{location}: {field} is {shown(values[field])}", allowed="a dialogue as text (format: hh)"
            )
        prompt, result[field] = _split_dialogue(values[field])
        prompts.append(prompt)
    if any(prompt != prompts[0] for prompt in prompts):
        raise UnusableDialogue("the dialogues differ before the last reply")
    if len(prompts) == 2 and result["chosen"] == result["rejected"]:
        raise UnusableDialogue("chosen and rejected are the same")
    return result | {"prompt": prompts[0]}


def _split_dialogue(dialogue: str) -> tuple[list[dict[str, str]], str]:
    """Return a dialogue's prompt messages and last reply; consecutive turns of one speaker become one message."""
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
