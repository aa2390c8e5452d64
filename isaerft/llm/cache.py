"""Every answer of every language model, by content, in one SQLite file that parallel jobs share.

Write-ahead logging lets jobs read while one writes, and every answer is committed as it comes, so a kill loses none.
The file also keeps the account of what each study has used: room is taken before a request is sent, in one
transaction, so that parallel jobs cannot pass the cap together. Keep it on a local disk: SQLite's locks need one.

From what a language model said to an answer in the form that was asked for, or to a failure with its reason.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from isaerft.config import Llm
from isaerft.errors import InputError
from isaerft.llm.prompts import canonical, digest

BUSY_SECONDS = 120
MAX_CONTENT = 200_000
_TABLES = """
CREATE TABLE IF NOT EXISTS responses (
    digest TEXT PRIMARY KEY, model TEXT NOT NULL, request TEXT NOT NULL, content TEXT NOT NULL, refusal TEXT NOT NULL,
    finish_reason TEXT NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS used (
    id INTEGER PRIMARY KEY, study TEXT NOT NULL, llm TEXT NOT NULL, tokens INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS used_by ON used (study, llm);
CREATE INDEX IF NOT EXISTS responses_of ON responses (model);
"""


@dataclass(frozen=True)
class Reply:
    """A language model's answer as it came: text from outside.

    Attributes
    ----------
    content, refusal : str
        What it said, and what it said in place of an answer.
    finish_reason : str
        Why it stopped, as the server says: "stop", "length", "content_filter", ...
    prompt_tokens, completion_tokens : int
        As the server counted them; 0 where it does not.
    """

    content: str
    refusal: str = ""
    finish_reason: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0


class ResponseCache:
    """Answers by the digest of what was asked.

    Parameters
    ----------
    path : path
        The SQLite file. Reading from one that is not there finds nothing and makes none.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._connection: sqlite3.Connection | None = None

    def close(self) -> None:
        """Close the file; the last job to do so folds the write-ahead log into it."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def get(self, body: dict[str, Any]) -> Reply | None:
        """Return the answer to a request's body, if it is known."""
        if self._connection is None and not self.path.exists():
            return None
        with self._opened() as connection:
            row = connection.execute(
                "SELECT content, refusal, finish_reason, prompt_tokens, completion_tokens FROM responses"
                " WHERE digest = ?",
                (digest(body),),
            ).fetchone()
        return None if row is None else Reply(*row)

    def put(self, body: dict[str, Any], reply: Reply) -> Reply:
        """Keep an answer and return the one that is kept: the first, where two jobs asked the same."""
        storable = [_storable(text) for text in (reply.content, reply.refusal, reply.finish_reason)]
        row = (digest(body), body["model"], canonical(body), *storable, reply.prompt_tokens, reply.completion_tokens)
        with self._opened() as connection:
            connection.execute("INSERT OR IGNORE INTO responses VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        kept = self.get(body)
        return reply if kept is None else kept

    def take(self, study: str, name: str, llm: Llm, tokens: int) -> int:
        """Enter a request of at most `tokens` tokens into the account before it is sent; return its entry.

        Raises
        ------
        InputError
            With it, the study would pass `max_calls` or `max_tokens`.
        """
        with self._opened() as connection:
            connection.execute("BEGIN IMMEDIATE")
            calls, used = self._used(connection, study, name)
            for what, after, cap, option in (
                ("requests", calls + 1, llm.max_calls, "max_calls"),
                ("tokens", used + tokens, llm.max_tokens, "max_tokens"),
            ):
                if after > cap:
                    raise InputError(
                        f"llm {name!r} has used {calls} requests, {used} tokens; one more would pass {option}: {cap}",
                        remedy=f"all answers so far are kept in {self.path}; allow more {what} under `llms` to go on",
                    )
            cursor = connection.execute("INSERT INTO used (study, llm, tokens) VALUES (?, ?, ?)", (study, name, tokens))
            return int(cursor.lastrowid or 0)

    def settle(self, entry: int, tokens: int | None) -> None:
        """Put what a request really used into its entry; None strikes it out: the server answered nothing."""
        with self._opened() as connection:
            if tokens is None:
                connection.execute("DELETE FROM used WHERE id = ?", (entry,))
            else:
                connection.execute("UPDATE used SET tokens = ? WHERE id = ?", (tokens, entry))

    def used(self, study: str, name: str) -> tuple[int, int]:
        """Return the requests and the tokens that a study has used of a model."""
        if self._connection is None and not self.path.exists():
            return 0, 0
        with self._opened() as connection:
            return self._used(connection, study, name)

    def mean_completion_tokens(self, model: str) -> float | None:
        """Return the mean length of a model's known answers in tokens; None where none is known or counted."""
        if self._connection is None and not self.path.exists():
            return None
        with self._opened() as connection:
            query = "SELECT AVG(completion_tokens) FROM responses WHERE model = ? AND completion_tokens > 0"
            return connection.execute(query, (model,)).fetchone()[0]

    @staticmethod
    def _used(connection: sqlite3.Connection, study: str, name: str) -> tuple[int, int]:
        query = "SELECT COUNT(*), COALESCE(SUM(tokens), 0) FROM used WHERE study = ? AND llm = ?"
        calls, tokens = connection.execute(query, (study, name)).fetchone()
        return int(calls), int(tokens)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """Give the connection for one transaction; what SQLite cannot do is an `InputError`."""
        try:
            if self._connection is None:
                self._connection = self._connect()
            with self._connection as connection:
                yield connection
        except sqlite3.Error as error:
            raise InputError(
                f"the cache of answers {str(self.path)!r} cannot be used ({error})",
                remedy="check that it is an SQLite file on a local disk with room, or name another as `llm_cache`",
            ) from None

    def _connect(self) -> sqlite3.Connection:
        if self.path.is_file() and not (os.access(self.path, os.W_OK) and os.access(self.path.parent, os.W_OK)):
            # A shipped file on a medium that cannot be written: nobody else writes to it either.
            return sqlite3.connect(f"{self.path.absolute().as_uri()}?immutable=1", uri=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS)
        # Taking the lock first makes jobs wait for each other here; the change of mode itself would not wait.
        connection.execute("BEGIN EXCLUSIVE")
        connection.commit()
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(_TABLES)
        return connection


def _storable(text: str) -> str:
    """Return text from outside as SQLite can keep it: UTF-8, no NUL, bounded."""
    return text[:MAX_CONTENT].encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")


MAX_OBJECTS = 20
Form = TypeVar("Form", bound=BaseModel)


@dataclass(frozen=True)
class Failure:
    """Why there is no answer: "refused", "truncated", "empty", "no_json" or "wrong_form"."""

    reason: str


def parsed(reply: Reply, form: type[Form]) -> Form | Failure:
    """Return a reply as its form; whatever does not fit it wholly is a `Failure`.

    A server without structured outputs may wrap the object in words or a code fence; then the one object in the text
    that fits is the answer, and two different ones are none.
    """
    if reply.refusal or reply.finish_reason == "content_filter":
        return Failure("refused")
    if reply.finish_reason == "length" or len(reply.content) >= MAX_CONTENT:
        return Failure("truncated")
    if not reply.content.strip():
        return Failure("empty")
    objects = _objects(reply.content)
    fitting = [value for value in (_fits(value, form) for value in objects) if value is not None]
    if not objects:
        return Failure("no_json")
    if not fitting or any(value != fitting[0] for value in fitting):
        return Failure("wrong_form")
    return fitting[0]


def _objects(text: str) -> list[dict[str, object]]:
    """Return the JSON objects that stand in a text side by side, the first `MAX_OBJECTS`."""
    decoder, found, position = json.JSONDecoder(), [], 0
    for _ in range(MAX_OBJECTS):
        position = text.find("{", position)
        if position < 0:
            break
        try:
            value, position = decoder.raw_decode(text, position)
            found.append(value)
        except (ValueError, RecursionError):
            position += 1
    return found


def _fits(value: dict[str, object], form: type[Form]) -> Form | None:
    try:
        return form.model_validate(value, strict=True)
    except ValidationError:
        return None
