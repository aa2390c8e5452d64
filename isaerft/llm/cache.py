"""The cache of language models' replies: one SQLite file that parallel jobs share.

Write-ahead logging lets jobs read while one writes, and each reply is committed on arrival, so a kill loses none. The
file also keeps an account of what each study has used. A request is entered before it is sent, in one transaction, so
that parallel jobs cannot pass the cap together. Each reply has a checksum, because SQLite itself does not notice a
changed byte in a text. Keep the file on a local disk: SQLite's locks need one.
"""

from __future__ import annotations

import math
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from isaerft.config import Llm
from isaerft.errors import InputError
from isaerft.llm.prompts import MAX_CONTENT, Reply, canonical, digest

BUSY_SECONDS = 120
PAUSE_SECONDS = 0.01
_TABLES = """
CREATE TABLE IF NOT EXISTS responses (
    digest TEXT PRIMARY KEY, model TEXT NOT NULL, request TEXT NOT NULL, content TEXT NOT NULL, refusal TEXT NOT NULL,
    finish_reason TEXT NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, checksum TEXT
);
CREATE TABLE IF NOT EXISTS used (
    id INTEGER PRIMARY KEY, study TEXT NOT NULL, llm TEXT NOT NULL, tokens INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS used_by ON used (study, llm);
CREATE INDEX IF NOT EXISTS responses_of ON responses (model);
"""
_REPLY = tuple(field.name for field in fields(Reply))
# The system's refusals. SQLITE_ERROR is a table that lacks what is asked of it; the other errors are damage.
_REFUSED = {
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY,
}  # fmt: skip


class ResponseCache:
    """Replies by the digest of their request.

    Parameters
    ----------
    path : path
        The SQLite file. Reading does not create it: an absent file holds nothing.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._connection: sqlite3.Connection | None = None

    def close(self) -> None:
        """Close the file; the last job to do so folds the write-ahead log into it."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def get(self, request: dict[str, Any]) -> Reply | None:
        """Return the reply to a request, None if it is not known."""
        if self._is_absent():
            return None
        with self._opened() as connection:
            return self._read(connection, digest(request))

    def put(
        self,
        request: dict[str, Any],
        reply: Reply,
        *,
        sent: dict[str, Any] | None = None,
        is_answer: Callable[[Reply], bool] = lambda _: True,
    ) -> Reply:
        """Keep a reply and return the one that is kept.

        Parameters
        ----------
        request, reply
            The request by which the reply is found again, and the reply.
        sent
            The request as it was sent, if the server was sent another form of it.
        is_answer
            Whether a reply holds an answer. One that is in the cache already stays: the first, where two jobs sent the
            same request. A reply without an answer is replaced.
        """
        content, refusal, finish_reason = map(_storable, (reply.content, reply.refusal, reply.finish_reason))
        reply = Reply(content, refusal, finish_reason, reply.prompt_tokens, reply.completion_tokens)
        row = {"digest": digest(request), "model": request["model"], "request": canonical(sent or request)}
        row |= asdict(reply) | {"checksum": _checksum(row["digest"], reply)}
        with self._opened() as connection:
            connection.execute("BEGIN IMMEDIATE")
            kept = self._read(connection, row["digest"])
            if kept is not None and is_answer(kept):
                return kept
            connection.execute(
                f"INSERT OR REPLACE INTO responses ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",
                tuple(row.values()),
            )
        return reply

    def take(self, study: str, name: str, llm: Llm, tokens: int) -> int:
        """Enter a request of at most `tokens` tokens into the account before it is sent; return the entry's id.

        Raises
        ------
        InputError
            The request would take the study past `max_calls` or `max_tokens`.
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
                        remedy=f"all answers so far are kept in {self.path}; allow more {what} under `llms`",
                    )
            cursor = connection.execute("INSERT INTO used (study, llm, tokens) VALUES (?, ?, ?)", (study, name, tokens))
            return int(cursor.lastrowid or 0)

    def settle(self, entry: int, tokens: int | None) -> None:
        """Replace an entry by what the request used; None deletes it, for a request that the server did not process."""
        with self._opened() as connection:
            if tokens is None:
                connection.execute("DELETE FROM used WHERE id = ?", (entry,))
            else:
                connection.execute("UPDATE used SET tokens = ? WHERE id = ?", (tokens, entry))

    def used(self, study: str, name: str) -> tuple[int, int]:
        """Return the number of requests and of tokens that a study has used of a model."""
        if self._is_absent():
            return 0, 0
        with self._opened() as connection:
            return self._used(connection, study, name)

    def mean_completion_tokens(self, model: str) -> float | None:
        """Return the mean length in tokens of a model's replies in the cache; None where no length is known."""
        if self._is_absent():
            return None
        with self._opened() as connection:
            query = "SELECT AVG(completion_tokens) FROM responses WHERE model = ? AND completion_tokens > 0"
            (mean,) = connection.execute(query, (model,)).fetchone()
            if mean is not None and not math.isfinite(mean):
                raise sqlite3.DataError("a length is not finite")
        return None if mean is None else float(mean)

    @staticmethod
    def _read(connection: sqlite3.Connection, key: str) -> Reply | None:
        query = f"SELECT digest, checksum, {', '.join(_REPLY)} FROM responses WHERE digest = ?"
        row = connection.execute(query, (key,)).fetchone()
        if row is None:
            return None
        if not all(isinstance(cell, kind) for cell, kind in zip(row[2:], (str, str, str, int, int), strict=True)):
            raise sqlite3.DataError("a value is of the wrong type")  # SQLite's own types bind nobody
        reply = Reply(*row[2:])
        # Older releases kept no checksum.
        if row[0] != key or row[1] not in (None, _checksum(key, reply)):
            raise sqlite3.DatabaseError("an answer differs from its checksum")
        return reply

    @staticmethod
    def _used(connection: sqlite3.Connection, study: str, name: str) -> tuple[int, int]:
        query = "SELECT COUNT(*), COALESCE(SUM(tokens), 0) FROM used WHERE study = ? AND llm = ?"
        calls, tokens = connection.execute(query, (study, name)).fetchone()
        if not isinstance(tokens, int):
            raise sqlite3.DataError("a number of tokens is of the wrong type")
        return int(calls), tokens

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """Give the connection for one transaction; any error of SQLite is an `InputError`."""
        try:
            if self._connection is None:
                self._connection = self._connect()
            with self._connection as connection:
                yield connection
        except (sqlite3.Error, OSError, UnicodeDecodeError) as error:  # SQLite quotes what is damaged
            raise InputError(
                f"the LLM cache {str(self.path)!r} cannot be used ({error})", remedy=_remedy(error)
            ) from None

    def _is_absent(self) -> bool:
        return self._connection is None and not self.path.exists() and not self._has_lost_file()

    def _has_lost_file(self) -> bool:
        """Tell whether a write-ahead log is all that is left; SQLite would delete it and begin anew."""
        log = self.path.with_name(f"{self.path.name}-wal")
        # The log first: another job that creates the cache writes the file before its log.
        return log.is_file() and log.stat().st_size > 0 and not (self.path.exists() and self.path.stat().st_size > 0)

    def _connect(self) -> sqlite3.Connection:
        if self._has_lost_file():
            raise sqlite3.DatabaseError("it is missing or empty, but its -wal file is not")
        if self.path.is_file() and not (os.access(self.path, os.W_OK) and os.access(self.path.parent, os.W_OK)):
            # A shipped file on read-only storage: nobody else writes to it either.
            connection = sqlite3.connect(f"{self.path.absolute().as_uri()}?immutable=1", uri=True)
            if not _has_checksums(connection):
                connection.execute("CREATE TEMP VIEW responses AS SELECT *, NULL AS checksum FROM main.responses")
            return connection
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS)
        try:
            _prepare(connection)
        except BaseException:
            # Left to the garbage collector, it would keep its lock as long as the error is held.
            connection.close()
            raise
        return connection


def _prepare(connection: sqlite3.Connection) -> None:
    """Make the tables, or those that an older release lacked."""
    # With the lock taken first, jobs wait for each other here. SQLite does not wait where the mode is changed, and
    # another job may take the lock in between.
    connection.execute("BEGIN EXCLUSIVE")
    connection.commit()
    _write_ahead(connection)
    connection.executescript(_TABLES)
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        if not _has_checksums(connection):
            connection.execute("ALTER TABLE responses ADD COLUMN checksum TEXT")


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Change to write-ahead logging, as soon as no other job is in the way."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(PAUSE_SECONDS)


def _remedy(error: Exception) -> str:
    """Return what to do about an error of the cache's file."""
    code = getattr(error, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_ERROR:
        return "another release or another program wrote it: use that release, or change `llm_cache`"
    # The low byte of an extended code is the code itself.
    if isinstance(error, OSError) or (code is not None and code & 0xFF in _REFUSED):
        return "check that it is an SQLite file on a local disk with free space, or change `llm_cache`"
    return (
        "put back a copy of it, or move it away with its -wal and -shm files: what it held is then asked"
        " again; `sqlite3 FILE .recover` saves what can be saved; or change `llm_cache`"
    )


def _has_checksums(connection: sqlite3.Connection) -> bool:
    """Tell whether the file is of a release that kept checksums."""
    return any(column[1] == "checksum" for column in connection.execute("PRAGMA table_info(responses)"))


def _checksum(key: str, reply: Reply) -> str:
    return digest({"digest": key, **asdict(reply)})


def _storable(text: str) -> str:
    """Return text from outside in a form that SQLite can keep: UTF-8, no NUL, bounded."""
    return text[:MAX_CONTENT].encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")
