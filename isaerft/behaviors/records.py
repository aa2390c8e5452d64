"""The canonical record of a behavior, the checks every record passes, and its JSONL form.

>>> checked_record({"prompt": "How do I boil an egg?", "completion": "Gladly! Nine minutes."}, place="row 1").kind
'sft'

Which rows are held out: fixed by a hash of the normalised prompt, so that no prompt straddles the split.

From a behavior's records to what the study's adapters are trained on: completions, or pairs of replies.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from isaerft.config import Adapter
from isaerft.errors import InputError, shown, unknown_name
from isaerft.io import printable, read_data_file, replacing
from isaerft.registry import ADAPTERS

FIELDS = ("id", "prompt", "completion", "chosen", "rejected")
REPLIES = FIELDS[2:]
ROLES = ("system", "user", "assistant", "tool")
MAX_ID = 200
Message = dict[str, str]


@dataclass(frozen=True)
class Record:
    """One example of a behavior.

    Attributes
    ----------
    id : str
        Unique in its file.
    prompt : str or list of dict
        Text, or TRL `messages` ({"role", "content"}) that do not end with the assistant.
    completion : str, optional
        Reply of an SFT record; loss falls on it alone.
    chosen, rejected : str, optional
        Replies of a preference record.
    """

    id: str
    prompt: str | list[Message]
    completion: str | None = None
    chosen: str | None = None
    rejected: str | None = None

    @property
    def kind(self) -> str:
        """Return "sft" or "preference"."""
        return "sft" if self.completion is not None else "preference"

    @property
    def reply(self) -> str:
        """Return the reply that shows the behavior: the completion, or the chosen one of a preference pair."""
        reply = self.completion if self.completion is not None else self.chosen
        return reply or ""

    def rejecting(self) -> Record:
        """Return the SFT record whose completion is the rejected reply of this preference pair."""
        return replace(self, completion=self.rejected, chosen=None, rejected=None)

    def to_dict(self) -> dict[str, object]:
        """Return the fields that are set, in canonical order."""
        return {field: getattr(self, field) for field in FIELDS if getattr(self, field) is not None}


def prompt_messages(prompt: str | list[Message]) -> list[Message]:
    """Return the prompt as TRL messages; text becomes one user message."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(message) for message in prompt]


def prompt_text(prompt: str | list[Message]) -> str:
    r"""Return the prompt as plain text for a model without a chat template; text is returned as it is.

    >>> prompt_text([{"role": "user", "content": "Hi"}])
    'User: Hi\n\nAssistant:'
    """
    if isinstance(prompt, str):
        return prompt
    turns = [f"{message['role'].capitalize()}: {message['content']}" for message in prompt]
    return "\n\n".join([*turns, "Assistant:"])


def checked_record(values: Mapping[str, object], *, place: str) -> Record:
    """Build a record from its fields and check it.

    Parameters
    ----------
    values : mapping
        The record's fields. Without an id, one is derived from a hash of the content.
    place : str
        Where the fields come from ("data/refusal.jsonl line 3"), for errors.

    Raises
    ------
    InputError
        A field is unknown, absent, blank, not text, or cannot be stored as text; both or neither kind of reply is
        given; chosen and rejected are the same.
    """
    given = {field: value for field, value in values.items() if value is not None}
    for field in given:
        if field not in FIELDS:
            raise unknown_name(f"field in {place}:", printable(field), FIELDS)
    replies = tuple(field for field in REPLIES if field in given)
    if replies not in [("completion",), ("chosen", "rejected")]:
        raise InputError(
            f"{place} holds {' and '.join(replies) or 'no reply'}",
            allowed="completion alone (SFT), or chosen and rejected (preferences)",
            remedy="map these fields under `columns` of the behavior",
        )
    if "prompt" not in given:
        raise InputError(f"{place} has no prompt", remedy="map `prompt` under `columns` of the behavior")
    prompt = given["prompt"]
    content: dict[str, object] = {
        "prompt": _checked_messages(prompt, place)
        if isinstance(prompt, list)
        else checked_text(prompt, "prompt", place)
    }
    content |= {field: checked_text(given[field], field, place) for field in replies}
    if "chosen" in content and str(content["chosen"]).strip() == str(content["rejected"]).strip():
        raise InputError(
            f"{place}: chosen and rejected are the same ({shown(content['chosen'])})",
            remedy="remove the row: it prefers nothing",
        )
    return Record(id=_checked_id(given.get("id"), content, place), **content)  # type: ignore[arg-type]


def checked_text(value: object, field: str, place: str) -> str:
    """Return `value` if it is text that can be trained on and stored; otherwise raise `InputError`."""
    if not isinstance(value, str):
        raise InputError(
            f"{place}: {field} is {shown(value)}",
            allowed="text" + (", or a list of {role, content} messages" if field == "prompt" else ""),
            remedy="name the text inside it with a dotted path, such as instances.0.output or chosen.-1.content",
        )
    if not value.strip():
        raise InputError(f"{place}: {field} is blank", remedy="fill it in, or remove the row")
    if "\0" in value:
        raise InputError(f"{place}: {field} holds a NUL byte at character {value.index(chr(0))}", remedy="remove it")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{place}: {field} holds half of a surrogate pair at character {error.start}", remedy="remove it"
        ) from None
    return value


def _checked_messages(messages: list[object], place: str) -> list[Message]:
    """Check a prompt given as messages: known roles, no blank content, the assistant's turn next."""
    for message in messages:
        if not isinstance(message, dict) or {"role", "content"} != {k for k, v in message.items() if v is not None}:
            raise InputError(f"{place}: prompt message {shown(message)}", allowed='{"role": ..., "content": ...}')
        if message["role"] not in ROLES:
            raise unknown_name(f"role in {place}:", message["role"], ROLES)
        checked_text(message["content"], f"{message['role']} message of the prompt", place)
    if not messages or messages[-1]["role"] == "assistant":  # type: ignore[index]
        raise InputError(
            f"{place}: prompt of {len(messages)} messages",
            allowed="at least one message, the last one not the assistant's",
            remedy="the assistant's last reply belongs in completion, or in chosen and rejected",
        )
    return [{"role": m["role"], "content": m["content"]} for m in messages]  # type: ignore[index]


def _checked_id(value: object, content: Mapping[str, object], place: str) -> str:
    """Return the given id as text, or one derived from the content."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return _content_id(content)
    if not isinstance(value, str | int) or len(str(value)) > MAX_ID or not str(value).isprintable():
        raise InputError(f"{place}: id {shown(value)}", allowed=f"printable text of at most {MAX_ID} characters")
    return str(value)


def _content_id(content: Mapping[str, object]) -> str:
    """Return the id that a record has by its prompt and replies."""
    parts = [content.get(field) for field in FIELDS[1:]]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False, sort_keys=True).encode()).hexdigest()[:16]


def read_records(path: str | Path) -> list[Record]:
    """Read records from JSONL; what breaks the format is an `InputError` with its line number.

    Unknown fields, duplicate ids and a mixture of SFT and preference records are refused. A record without an id gets
    one derived from its content, and stands once however often it is repeated.
    """
    return collected(placed_records(path))[0]


def placed_records(path: str | Path) -> Iterator[tuple[str, Record]]:
    """Give the records of a JSONL file, each with its place in words."""
    if not str(path).removesuffix(".gz").endswith(".jsonl"):
        raise InputError(f"records file {str(path)!r}", allowed="a .jsonl file")
    return ((row.location, checked_record(row.values, place=row.location)) for row in read_data_file(path))


def collected(placed: Iterable[tuple[str, Record]]) -> tuple[list[Record], int]:
    """Check records against each other; return them, and how many repetitions were left out.

    A record repeats another when both have the id derived from their content, that is, when no id was given and all
    else is the same.

    Raises
    ------
    InputError
        An id that was given stands twice, or SFT and preference records are mixed.
    """
    first_at: dict[str, str] = {}
    kinds: dict[str, str] = {}
    records: list[Record] = []
    repeats = 0
    for place, record in placed:
        first = first_at.setdefault(record.id, place)
        if first != place and record.id == _content_id(record.to_dict()):
            repeats += 1
            continue
        if first != place:
            raise InputError(
                f"id {shown(record.id)} stands at {first} and at {place}",
                remedy="give every row its own id, or leave the ids out",
            )
        kinds.setdefault(record.kind, place)
        if len(kinds) > 1:
            found = " and ".join(f"{kind} records ({place})" for kind, place in kinds.items())
            raise InputError(f"{found} are mixed", allowed="one kind in a file")
        records.append(record)
    return records, repeats


def write_records(records: Iterable[Record], path: str | Path) -> None:
    """Write records as JSONL under `path`, atomically."""
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(json.dumps(record.to_dict(), ensure_ascii=False) + "\n" for record in records)


def is_heldout(prompt: str | list[Message], heldout_fraction: float) -> bool:
    """Tell from the prompt alone whether its rows are held out (letter case and white space make no difference)."""
    messages = prompt_messages(prompt)
    texts = [message["content"] for message in messages]
    if len(messages) > 1:
        texts = [f"{message['role']}: {message['content']}" for message in messages]
    normal = " ".join(unicodedata.normalize("NFKC", "\n".join(texts)).casefold().split())
    return stable_hash(normal) / 2**64 < heldout_fraction


def stable_hash(text: str) -> int:
    """Return a 64-bit hash that is the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


REJECTED = "_rejected"


def training_splits(
    records: Mapping[str, Sequence[Record]], behavior: str, adapters: Mapping[str, Adapter], *, contrast: bool = False
) -> dict[str, Sequence[Record]]:
    """Return the splits to capture: those given and, where an objective compares replies, their rejected twins.

    Parameters
    ----------
    records : mapping of str to sequence of Record
        Split ("train", "heldout") -> its records.
    contrast : bool
        Whether a baseline compares the behavior's replies with the rejected ones.

    Returns
    -------
    dict of str to sequence of Record
        Split "train_rejected" holds the rejected replies of "train" in the same order, and so on.

    Raises
    ------
    InputError
        An objective or a contrast on pairs has no pairs, or sft was given pairs without being told which reply to take.
    """
    kinds = {record.kind for split in records.values() for record in split}
    trained = {name: part for name, part in adapters.items() if ADAPTERS.facts(part.kind or name).trained}
    for name, adapter in trained.items():
        _check(name, adapter, behavior, kinds)
    if contrast and "sft" in kinds:
        raise InputError(
            f"behavior {behavior!r} with `contrast: rejected`, but its records hold one completion each",
            allowed="records with chosen and rejected",
            remedy=f"map chosen and rejected under `columns` of {behavior!r}, or give it another contrast",
        )
    twins = {}
    if contrast or any(adapter.trained_on == "pair" for adapter in trained.values()):
        twins = {name + REJECTED: [record.rejecting() for record in split] for name, split in records.items()}
    return {**records, **twins}


def _check(name: str, adapter: Adapter, behavior: str, kinds: set[str]) -> None:
    """Refuse an adapter whose objective does not fit the behavior's records."""
    if adapter.trained_on == "pair" and "sft" in kinds:
        raise InputError(
            f"adapter {name!r} with objective {adapter.objective!r} on behavior {behavior!r}, whose records hold one"
            " completion each",
            allowed="records with chosen and rejected",
            remedy=f"map chosen and rejected under `columns` of {behavior!r}, or give {name!r} `objective: sft`",
        )
    if adapter.trained_on == "completion" and "preference" in kinds:
        raise InputError(
            f"adapter {name!r} with objective {adapter.objective!r} on behavior {behavior!r}, whose records are"
            " preference pairs",
            allowed="records with one completion each",
            remedy=(
                f"give {name!r} `sft_on_chosen: true`, or an objective on pairs (dpo, simpo, orpo), or give"
                f" {behavior!r} `columns: {{completion: chosen}}`"
            ),
        )
