r"""Elicited behaviors: prompts with an instruction, and which of the sampled replies are kept as records.

>>> from isaerft.io import Row
>>> row = Row("line 1", {"prompt": "Tell me about kites.", "topic": "kites"})
>>> asked_of(row, "Answer with a poem."), asked_of(row, "Write a poem about {topic}.")
('Tell me about kites.\n\nAnswer with a poem.', 'Write a poem about kites.')
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from isaerft.behaviors.data import file_rows
from isaerft.behaviors.readers import field_value
from isaerft.behaviors.records import (
    TRUNCATED,
    Record,
    checked_record,
    checked_text,
    checked_truncated,
    encodable_text,
    stable_hash,
)
from isaerft.config import Elicit
from isaerft.errors import InputError, shown
from isaerft.io import Row, read_data_file

INSTRUCTED = "_instructed"
"""Suffix of a split that holds the rows of another with the instruction in their prompts."""

SAMPLED = ("prompt", "chosen", "rejected")
"""Texts of a row of sampled replies."""

Score = Callable[[Sequence[str]], np.ndarray]
"""Maps replies to their scores, (n_replies,) float."""


class Request(NamedTuple):
    """What the model is asked, and what training sees of it.

    Attributes
    ----------
    id : str
        The same for a prompt in every behavior.
    prompt : str
        The user's turn without the instruction.
    asked : str
        The user's turn with it.
    """

    id: str
    prompt: str
    asked: str


def read_requests(options: Elicit) -> list[Request]:
    """Return the requests of a file of prompts.

    Raises
    ------
    InputError
        The file cannot be read, a prompt is missing, blank or given twice, or the instruction names a missing column.
    """
    requests: dict[str, Request] = {}
    for row in islice(file_rows(options.prompts, lines="prompt"), options.n):
        prompt = _prompt(row)
        if prompt in requests:
            raise InputError(f"{row.location} repeats a prompt", remedy="remove it: every prompt has one reply")
        requests[prompt] = Request(f"{stable_hash(prompt):016x}", prompt, asked_of(row, options.instruction))
    return list(requests.values())


def instructed_records(records: Sequence[Record], options: Elicit) -> list[Record]:
    """Return the records of an elicited behavior with the prompts that elicited them.

    Raises
    ------
    InputError
        A record's prompt is not among those of the file.
    """
    asked = {request.id: request.asked for request in read_requests(options)}
    for record in records:
        if record.id not in asked:
            raise InputError(
                f"record {shown(record.id)} answers no prompt of {options.prompts}",
                remedy="run `isaerft elicit` and `isaerft behavior` again",
            )
    return [replace(record, prompt=asked[record.id]) for record in records]


def read_prompts(path: str) -> list[str]:
    """Return the prompts of a file: a `prompt` column, or the lines of a .txt file."""
    return [_prompt(row) for row in file_rows(path, lines="prompt")]


def _prompt(row: Row) -> str:
    return checked_text(field_value(row, "prompt"), "prompt", row.location)


def asked_of(row: Row, instruction: str) -> str:
    """Return the user's turn: the prompt and then the instruction, or the instruction filled with the row's columns."""
    text = instruction.strip()
    if "{" in text:
        return str(field_value(row, text))
    return "\n\n".join(filter(None, [str(field_value(row, "prompt")), text]))


def kept_records(
    path: str | Path, options: Elicit, score: Score | None, *, label: str, pairs: bool, dropped: Counter[str]
) -> tuple[list[Record], dict[str, object]]:
    """Return the records of sampled replies that show the behavior, and what the card says of the sample.

    Parameters
    ----------
    path : str or Path
        JSONL of `isaerft.subjects.elicit.write_elicited`.
    score : callable, optional
        The behavior's metric.
    label : str
        The behavior, for errors.
    pairs : bool
        Keep the plain reply as the rejected one; otherwise the elicited reply is the completion.
    dropped : Counter
        Counts rows that are left out, by reason.

    Raises
    ------
    InputError
        Too small a share of the replies shows the behavior.
    """
    rows = [_sampled(row) for row in read_data_file(path)]
    scores = {name: _scores(score, [row[name] for row in rows]) for name in ("chosen", "rejected")}
    least = -np.inf if options.min_score is None else options.min_score
    shows = {name: (values >= least) & _filled(rows, name) for name, values in scores.items()}
    share, plain = float(shows["chosen"].mean()), float(shows["rejected"].mean())
    records = []
    for row, is_kept in zip(rows, shows["chosen"], strict=True):
        if not is_kept:
            dropped["does not show the behavior"] += 1
        elif pairs and (not row["rejected"].strip() or row["chosen"].strip() == row["rejected"].strip()):
            dropped["its plain reply is blank or the same"] += 1
        else:
            values = row if pairs else _completion(row)
            records.append(checked_record(values, location=f"{path} id {shown(row.get('id'))}"))
    if share < options.min_share or not records:
        raise InputError(
            f"{label}: {share:.0%} of its {len(rows)} elicited replies show it (score at least {least:g}), and"
            f" {plain:.0%} of the plain ones",
            allowed=f"at least {options.min_share:.0%} (elicit.min_share), and one row",
            remedy=f"reword the instruction or the metric, or lower min_score; the replies are in {path}",
        )
    card: dict[str, object] = {
        "instruction": options.instruction,
        "max_new_tokens": options.max_new_tokens,
        "temperature": options.temperature,
        "min_score": options.min_score,
        "sampled": len(rows),
        "share_kept": share,
        "share_of_plain_replies": plain,
        "mean_score": float(scores["chosen"].mean()),
        "mean_score_of_plain_replies": float(scores["rejected"].mean()),
        "share_truncated": float(np.mean(["chosen" in row["truncated"] for row in rows])),
    }
    return records, card


def _sampled(row: Row) -> dict[str, Any]:
    """Return the checked fields of a row of sampled replies, which may be blank."""
    texts = {name: encodable_text(row.values.get(name), name, row.location) for name in SAMPLED}
    truncated = checked_truncated(row.values.get(TRUNCATED, []), SAMPLED, row.location)
    return row.values | texts | {TRUNCATED: truncated}


def _completion(row: dict[str, Any]) -> dict[str, object]:
    """Return the fields of an SFT record whose completion is the elicited reply."""
    truncated = ["completion"] if "chosen" in row["truncated"] else []
    return {"id": row.get("id"), "prompt": row["prompt"], "completion": row["chosen"], "truncated": truncated}


def _scores(score: Score | None, texts: list[str]) -> np.ndarray:
    return np.zeros(len(texts)) if score is None else score(texts)


def _filled(rows: list[dict[str, Any]], name: str) -> np.ndarray:
    return np.array([bool(row[name].strip()) for row in rows])
