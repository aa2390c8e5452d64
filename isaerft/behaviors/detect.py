r"""Find out how the columns of a data file become records, by trying what people call them with the reader itself.

>>> rows = [Row("row 1", {"instruction": "Say hi.", "input": "", "output": "Hi."})]
>>> detect_columns("greeting", rows)["columns"]
{'prompt': '{instruction}\n\n{input}', 'completion': 'output'}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from isaerft.behaviors.conversations import as_messages
from isaerft.behaviors.data import Unusable, read_rows
from isaerft.behaviors.prepare import REPEATED
from isaerft.behaviors.readers import CONVERSATIONS, to_record
from isaerft.behaviors.records import Record, unique_records
from isaerft.config import Behavior
from isaerft.config.base import validated
from isaerft.errors import InputError, printable
from isaerft.io import Row

PROMPTS = ("prompt", "instruction", "question", "query", "input", "user", "request")
REPLIES = ("completion", "response", "output", "answer", "reply", "assistant", "answer_matching_behavior")
N_TRIED = 100
MAX_READ = 20_000
"""Rows that are read of one file to see what is in it."""
MAX_LABELS, MAX_LABEL = 8, 40

Options = dict[str, Any]


@dataclass(frozen=True)
class Understood:
    """What a behavior's data is taken for.

    Attributes
    ----------
    options : dict
        Options of the behavior that say how it is read: columns, format, ids.
    records : list of Record
        The records, of at most `MAX_READ` rows.
    n_rows : int
        Rows read.
    left_out : dict
        Reason -> rows that do not become records.
    labels : dict
        Further column -> its few values: what `where` could choose.
    is_whole : bool
        Whether all rows were read.
    """

    options: Options
    records: list[Record]
    n_rows: int
    left_out: dict[str, int]
    labels: dict[str, list[str]]
    is_whole: bool

    @property
    def reading(self) -> str:
        """How prompt and reply are read, in words."""
        columns = self.options.get("columns", {})
        reply = columns.get("completion", "")
        if reply in CONVERSATIONS or (reply and "prompt" not in columns):
            form = "flat dialogues" if self.options.get("format") == "hh" else "conversations"
            return f"`{printable(reply)}` holds {form}: the last reply is trained on, all before it is the prompt"
        return f"prompt is `{printable(columns.get('prompt', 'prompt'))}`, reply is `{printable(reply)}`"


def understand(name: str, options: Mapping[str, Any], *, detect: bool = True) -> Understood:
    """Read a behavior's data, find out its columns unless the options map them, and count what can be used.

    Parameters
    ----------
    name : str
        Name of the behavior, for errors.
    options : dict
        Options of the behavior: where the data is, and what the user has decided.
    detect : bool
        False reads the columns as a study with these options does, mapped or not.

    Raises
    ------
    InputError
        The data cannot be read, no known columns fit it, or more rows than allowed cannot be used.
    """
    found = list(islice(read_rows(_behavior(options), streaming=True), MAX_READ + 1))
    rows, is_whole = found[:MAX_READ], len(found) <= MAX_READ
    how = dict(options) if options.get("columns") or not detect else dict(options) | detect_columns(name, rows)
    records, left_out, how = _read(name, rows, how)
    decided = {key: how[key] for key in ("columns", "format", "ids") if how.get(key)}
    known = {"id", *options.get("where", {}), *decided.get("columns", {}).values()}
    return Understood(decided, records, len(rows), left_out, _labels(rows, known), is_whole)


def detect_columns(name: str, rows: Sequence[Row]) -> Options:
    """Return `columns` (and `format`) by which nearly all of the first rows become records.

    Raises
    ------
    InputError
        No known names do.
    """
    tried = rows[:N_TRIED]
    for options in _candidates(tried[0].values):
        behavior = _behavior(options)
        if sum(_is_record(row, behavior) for row in tried) >= (1 - behavior.max_unusable_share) * len(tried):
            return options
    columns = ", ".join(printable(column) for column in islice(tried[0].values, 30))
    raise InputError(
        f"behavior {name!r}: which columns hold prompt and reply is not clear: {columns}",
        allowed=f"a prompt ({', '.join(PROMPTS)}) and a reply ({', '.join(REPLIES)}, or chosen), or conversations"
        f" ({', '.join(CONVERSATIONS)})",
        remedy=f"say which: --columns {name}:prompt=COLUMN --columns {name}:completion=COLUMN",
    )


def _candidates(row: Mapping[str, Any]) -> Iterator[Options]:
    """Yield ways to read a row, the best first."""
    prompts = [column for column in PROMPTS if column in row]
    replies = [column for column in REPLIES if column in row]
    for prompt in prompts:
        template = "{instruction}\n\n{input}" if prompt == "instruction" and "input" in row else prompt
        for reply in replies:
            if reply != prompt:
                yield {"columns": {"prompt": template, "completion": reply}}
    if "instruction" in row and _is_list_of(row.get("instances"), "output"):
        template = "{instruction}\n\n{instances.0.input}"
        yield {"columns": {"prompt": template, "completion": "instances.0.output"}}
    if isinstance(row.get("chosen"), str) and row["chosen"].lstrip().startswith("Human:"):
        yield {"columns": {"completion": "chosen"}, "format": "hh"}
    if "chosen" in row:
        prompt_columns = {"prompt": prompts[0]} if prompts else {}
        yield {"columns": prompt_columns | {"completion": "chosen"}}
    for column in [*CONVERSATIONS, *row]:
        if _is_list_of(as_messages(row.get(column)), "role"):
            yield {"columns": {"completion": column}}


def _is_list_of(value: object, key: str) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and key in value[0]


def _is_record(row: Row, behavior: Behavior) -> bool:
    try:
        to_record(row, behavior)
    except InputError:
        return False
    return True


def _behavior(options: Mapping[str, Any]) -> Behavior:
    return validated(Behavior, {"description": "-", **options})


def _read(name: str, rows: Sequence[Row], options: Options) -> tuple[list[Record], dict[str, int], Options]:
    """Return the records, the rows left out by reason, and the options, with ids that repeat ignored."""
    behavior = _behavior(options)
    unusable = Unusable(
        f"behavior {name!r}", behavior.max_unusable_share, "clean the data, or choose rows with --where"
    )
    located = list(unusable.without(rows, lambda row: to_record(row, behavior)))
    try:
        records, repeats = unique_records(located)
    except InputError:
        if behavior.ids == "derived":
            raise
        return _read(name, rows, options | {"ids": "derived"})
    return records, dict(unusable.reasons + Counter({REPEATED: repeats})), options


def _labels(rows: Sequence[Row], known: Collection[str]) -> dict[str, list[str]]:
    """Return the columns with a few short values, most frequent first: what `where` could choose."""
    found: dict[str, Counter[str]] = {}
    for row in rows:
        for column, value in row.values.items():
            if column not in known and isinstance(value, str) and len(value) <= MAX_LABEL:
                found.setdefault(column, Counter())[value] += 1
    return {
        column: [value for value, _ in values.most_common()]
        for column, values in found.items()
        if 2 <= len(values) <= MAX_LABELS and values.total() > 0.9 * len(rows) and len(rows) >= 4 * len(values)
    }
