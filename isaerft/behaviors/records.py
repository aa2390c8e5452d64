"""Records of a behavior: their checks, their JSONL files, their split, and what adapters are trained on.

>>> checked_record({"prompt": "How do I boil an egg?", "completion": "Gladly! Nine minutes."}, location="row 1").kind
'sft'
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from isaerft.config import Adapter
from isaerft.errors import InputError, printable, shown, unknown_name
from isaerft.io import read_data_file, replacing
from isaerft.registry import ADAPTERS, OBJECTIVES

REPLIES = ("completion", "chosen", "rejected")
REPHRASED = "rephrased"
PROMPTS = ("prompt", REPHRASED)
FIELDS = ("id", "prompt", *REPLIES, REPHRASED)
"""What columns can be mapped to, in the order of a record's file."""
TRUNCATED = "truncated"
ROLES = ("system", "user", "assistant", "tool")
MAX_ID = 200
REJECTED = "_rejected"
"""Suffix of a split that holds the rejected replies of another."""
HELDOUT_REPHRASED = "heldout_rephrased"
"""Split of the held-out replies under prompts of another phrasing."""

Message = dict[str, str]


@dataclass(frozen=True)
class Record:
    """One example of a behavior.

    Attributes
    ----------
    id : str
        Unique in its file.
    prompt : str or list of dict
        Text, or TRL `messages` ({"role", "content"}) of which the last is not the assistant's.
    completion : str, optional
        Reply of an SFT record; the loss falls on it alone.
    chosen, rejected : str, optional
        Replies of a preference record.
    truncated : tuple of str
        Which of these replies were cut: the text goes on, so no EOS is trained on behind them.
    rephrased : str or list of dict, optional
        The prompt in other words. Nothing is trained on it; it shows whether what was found depends on the phrasing.
    """

    id: str
    prompt: str | list[Message]
    completion: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    truncated: tuple[str, ...] = ()
    rephrased: str | list[Message] | None = None

    @property
    def kind(self) -> str:
        """Kind of record: "sft" or "preference"."""
        return "sft" if self.completion is not None else "preference"

    @property
    def reply(self) -> str:
        """Reply that shows the behavior: the completion, or the chosen reply of a preference pair."""
        reply = self.completion if self.completion is not None else self.chosen
        return reply or ""

    @property
    def is_truncated(self) -> bool:
        """Whether `reply` was cut."""
        return ("completion" if self.kind == "sft" else "chosen") in self.truncated

    def with_rejected_reply(self) -> Record:
        """Return the SFT record whose completion is the rejected reply of this preference pair."""
        truncated = ("completion",) if "rejected" in self.truncated else ()
        return replace(self, completion=self.rejected, chosen=None, rejected=None, truncated=truncated)

    def to_dict(self) -> dict[str, object]:
        """Return the fields that are set, in canonical order."""
        fields = {name: getattr(self, name) for name in FIELDS if getattr(self, name) is not None}
        return fields | ({TRUNCATED: list(self.truncated)} if self.truncated else {})


def prompt_messages(prompt: str | list[Message]) -> list[Message]:
    """Return the prompt as TRL messages; text becomes one user message."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(message) for message in prompt]


def prompt_text(prompt: str | list[Message]) -> str:
    r"""Return the prompt as plain text, for a model without a chat template.

    >>> prompt_text([{"role": "user", "content": "Hi"}])
    'User: Hi\n\nAssistant:'
    """
    if isinstance(prompt, str):
        return prompt
    turns = [f"{message['role'].capitalize()}: {message['content']}" for message in prompt]
    return "\n\n".join([*turns, "Assistant:"])


def checked_record(values: Mapping[str, object], *, location: str) -> Record:
    """Return a record of checked fields.

    Parameters
    ----------
    values : mapping
        Fields of the record. A missing id becomes a hash of the other fields.
    location : str
        Where the fields come from, for errors ("data/refusal.jsonl line 3").

    Raises
    ------
    InputError
        A field is unknown, missing, blank, or not text that can be stored; there are both kinds of reply or neither; or
        chosen and rejected are the same.
    """
    fields = {field: value for field, value in values.items() if value is not None}
    known = (*FIELDS, TRUNCATED)
    for field in fields:
        if field not in known:
            raise unknown_name(f"field in {location}:", printable(field), known)
    replies = tuple(field for field in REPLIES if field in fields)
    if replies not in [("completion",), ("chosen", "rejected")]:
        raise InputError(
            f"{location} has {' and '.join(replies) or 'no reply'}",
            allowed="completion alone (SFT), or chosen and rejected (preferences)",
            remedy="map these fields in the behavior's `columns`",
        )
    if "prompt" not in fields:
        raise InputError(f"{location} has no prompt", remedy="map `prompt` in the behavior's `columns`")
    content: dict[str, object] = {
        name: _checked_prompt(fields[name], name, location) for name in PROMPTS if name in fields
    }
    content |= {field: checked_text(fields[field], field, location) for field in replies}
    if "chosen" in content and str(content["chosen"]).strip() == str(content["rejected"]).strip():
        raise InputError(f"{location}: chosen and rejected are the same", remedy="remove the row: it has no preference")
    content[TRUNCATED] = checked_truncated(fields.get(TRUNCATED, []), replies, location)
    return Record(id=_checked_id(fields.get("id"), content, location), **content)  # type: ignore[arg-type]


def checked_truncated(value: object, replies: tuple[str, ...], location: str) -> tuple[str, ...]:
    """Return the names of the replies that were cut, in order."""
    if not isinstance(value, list | tuple) or not set(map(str, value)) <= set(replies):
        raise InputError(f"{location}: truncated is {shown(value)}", allowed=f"a list of {', '.join(replies)}")
    return tuple(name for name in replies if name in value)


def checked_text(value: object, field: str, location: str) -> str:
    """Return a field's value if it is text that can be trained on and stored; otherwise raise `InputError`."""
    text = encodable_text(value, field, location)
    if not text.strip():
        raise InputError(f"{location}: {field} is blank", remedy="fill it in or remove the row")
    if "\0" in text:
        raise InputError(f"{location}: {field} has a NUL byte at character {text.index(chr(0))}", remedy="remove it")
    return text


def encodable_text(value: object, field: str, location: str) -> str:
    """Return a field's value if it is text that can be written as UTF-8, blank or not; else raise `InputError`."""
    if not isinstance(value, str):
        raise InputError(
            f"{location}: {field} is {shown(value)}",
            allowed="text" + (", or a list of {role, content} messages" if field in PROMPTS else ""),
            remedy="select the text with a dotted path, such as instances.0.output or chosen.-1.content",
        )
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{location}: {field} has half of a surrogate pair at character {error.start}", remedy="remove it"
        ) from None
    return value


def _checked_prompt(prompt: object, field: str, location: str) -> str | list[Message]:
    """Return a checked prompt: text, or messages."""
    return _checked_messages(prompt, location) if isinstance(prompt, list) else checked_text(prompt, field, location)


def _checked_messages(messages: list[object], location: str) -> list[Message]:
    """Return checked messages of a prompt, of which the last is not the assistant's."""
    checked = [checked_message(message, location) for message in messages]
    if not checked or checked[-1]["role"] == "assistant":
        raise InputError(
            f"{location}: prompt of {len(messages)} messages",
            allowed="at least one message, the last one not the assistant's",
            remedy="the assistant's last reply belongs in completion, or in chosen and rejected",
        )
    return checked


def checked_message(message: object, location: str) -> Message:
    """Return a message with a known role and content that is not blank; otherwise raise `InputError`."""
    if not isinstance(message, dict) or {"role", "content"} != {k for k, v in message.items() if v is not None}:
        raise InputError(f"{location}: prompt message {shown(message)}", allowed='{"role": ..., "content": ...}')
    role = message["role"]
    if role not in ROLES:
        raise unknown_name(f"role in {location}:", role, ROLES)
    return {"role": role, "content": checked_text(message["content"], f"{role} message of the prompt", location)}


def _checked_id(value: object, content: Mapping[str, object], location: str) -> str:
    """Return the id as text; a missing one is derived from the content."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return _content_id(content)
    if not isinstance(value, str | int) or len(str(value)) > MAX_ID or not str(value).isprintable():
        raise InputError(f"{location}: id {shown(value)}", allowed=f"printable text of at most {MAX_ID} characters")
    return str(value)


def _content_id(content: Mapping[str, object]) -> str:
    """Return the id that is derived from a record's prompt and replies."""
    parts = [content.get(field) for field in ("prompt", *REPLIES)]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False, sort_keys=True).encode()).hexdigest()[:16]


def read_records(path: str | Path) -> list[Record]:
    """Read records from a JSONL file.

    A record without an id gets one derived from its content; repeats of it are dropped.

    Raises
    ------
    InputError
        A record fails `checked_record`, an id occurs twice, or SFT and preference records are mixed.
    """
    return unique_records(located_records(path))[0]


def located_records(path: str | Path) -> Iterator[tuple[str, Record]]:
    """Yield the records of a JSONL file, each with its location for errors."""
    if not str(path).removesuffix(".gz").endswith(".jsonl"):
        raise InputError(f"records file {str(path)!r}", allowed="a .jsonl file")
    return ((row.location, checked_record(row.values, location=row.location)) for row in read_data_file(path))


def unique_records(located: Iterable[tuple[str, Record]]) -> tuple[list[Record], int]:
    """Return the records without repeats, and the number of repeats.

    A record is a repeat if its id, derived from its content, has occurred before.

    Raises
    ------
    InputError
        An explicit id occurs twice, or SFT and preference records are mixed.
    """
    first_at: dict[str, str] = {}
    kinds: dict[str, str] = {}
    records: list[Record] = []
    repeats = 0
    for location, record in located:
        first = first_at.setdefault(record.id, location)
        if first != location and record.id == _content_id(record.to_dict()):
            repeats += 1
            continue
        if first != location:
            raise InputError(
                f"id {shown(record.id)} occurs at {first} and at {location}",
                remedy="make the ids unique or leave them out; `ids: derived` ignores those of a behavior's data",
            )
        kinds.setdefault(record.kind, location)
        if len(kinds) > 1:
            found = " and ".join(f"{kind} records ({at})" for kind, at in kinds.items())
            raise InputError(f"{found} are mixed", allowed="one kind per file")
        records.append(record)
    return records, repeats


def rephrased_records(records: Sequence[Record], behavior: str) -> list[Record]:
    """Return the records that have a prompt of another phrasing, with that prompt.

    Raises
    ------
    InputError
        None has one.
    """
    rephrased = [replace(record, prompt=record.rephrased) for record in records if record.rephrased is not None]
    if not rephrased:
        raise InputError(
            f"none of the {len(records)} held-out records of behavior {behavior!r} has a prompt of another phrasing",
            remedy=f"map `{REPHRASED}` in the `columns` of {behavior!r} to a column with such prompts, or leave"
            " `rephrased_prompts` out",
        )
    return rephrased


def write_records(records: Iterable[Record], path: str | Path) -> None:
    """Write records to a JSONL file, atomically."""
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(json.dumps(record.to_dict(), ensure_ascii=False) + "\n" for record in records)


def is_heldout(prompt: str | list[Message], heldout_fraction: float) -> bool:
    """Tell whether the rows of a prompt are held out.

    A hash of the prompt, normalized for letter case and white space, decides: rows with the same prompt stay together,
    and a row never moves when others are added.
    """
    messages = prompt_messages(prompt)
    texts = [message["content"] for message in messages]
    if len(messages) > 1:
        texts = [f"{message['role']}: {message['content']}" for message in messages]
    normal = " ".join(unicodedata.normalize("NFKC", "\n".join(texts)).casefold().split())
    return stable_hash(normal) / 2**64 < heldout_fraction


def stable_hash(text: str) -> int:
    """Return a 64-bit hash that is the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def training_splits(
    records: Mapping[str, Sequence[Record]], behavior: str, adapters: Mapping[str, Adapter], *, contrast: bool = False
) -> dict[str, Sequence[Record]]:
    """Return the splits to capture: `records` and, if anything compares replies, their rejected replies.

    Parameters
    ----------
    records : mapping of str to sequence of Record
        Split ("train", "heldout") -> its records.
    behavior : str
        Name of the behavior, for errors.
    adapters : mapping of str to Adapter
        The study's adapters; their objectives decide which replies they need.
    contrast : bool
        Whether a baseline compares the behavior's replies with the rejected ones.

    Returns
    -------
    dict of str to sequence of Record
        Split "train_rejected" has the rejected replies of "train" in the same order, and so on.

    Raises
    ------
    InputError
        An objective or a contrast needs pairs but the records are completions, or `sft` meets pairs without
        `sft_on_chosen`.
    """
    kinds = {record.kind for split in records.values() for record in split}
    trained = {name: part for name, part in adapters.items() if ADAPTERS.facts(part.kind or name).trained}
    for name, adapter in trained.items():
        _check_objective(name, adapter, behavior, kinds)
    if contrast and "sft" in kinds:
        raise InputError(
            f"behavior {behavior!r} with `contrast: rejected`, but its records have one completion each",
            allowed="records with chosen and rejected",
            remedy=f"map chosen and rejected in the `columns` of {behavior!r}, or use another contrast",
        )
    rejected = {}
    if contrast or any(adapter.trained_on == "pair" for adapter in trained.values()):
        rejected = {
            name + REJECTED: [record.with_rejected_reply() for record in split] for name, split in records.items()
        }
    return {**records, **rejected}


def _check_objective(name: str, adapter: Adapter, behavior: str, kinds: set[str]) -> None:
    """Raise `InputError` if an adapter's objective does not fit the behavior's records."""
    if adapter.trained_on == "pair" and "sft" in kinds:
        raise InputError(
            f"adapter {name!r} with objective {adapter.objective!r} on behavior {behavior!r}, whose records have one"
            " completion each",
            allowed="records with chosen and rejected",
            remedy=f"map chosen and rejected in the `columns` of {behavior!r}, or set `objective: sft` for {name!r}",
        )
    if adapter.trained_on == "completion" and "preference" in kinds:
        on_pairs = ", ".join(objective for objective in OBJECTIVES if OBJECTIVES.facts(objective).pairs)
        raise InputError(
            f"adapter {name!r} with objective {adapter.objective!r} on behavior {behavior!r}, whose records are"
            " preference pairs",
            allowed="records with one completion each",
            remedy=(
                f"set `sft_on_chosen: true` or an objective on pairs ({on_pairs}) for {name!r}, or"
                f" `columns: {{completion: chosen}}` for {behavior!r}"
            ),
        )
