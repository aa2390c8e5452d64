"""Answered look-ups: one SQLite file in the subject's folder, not an output of any rule.

Each look-up is committed when it ends, so a killed run loses only what was under way. Delete the file to look
everything up again; ship it, and others reproduce the study without a network.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from isaerft.errors import InputError
from isaerft.explanations.base import names_of_maker
from isaerft.explanations.neuronpedia.api import Page
from isaerft.explanations.neuronpedia.records import Explanation, Score, SourceId

STORE = "neuronpedia.sqlite"
WAIT_SECONDS = 60.0
# Route of a latent that was looked up alone. Files from before scores were kept say `feature`: they lack them.
_SCORED = "scored"
# The names are the file's format: files that exist must stay readable.
_TABLES = """
CREATE TABLE IF NOT EXISTS said (model_id TEXT, layer TEXT, latent INTEGER, text TEXT, maker_model TEXT,
    maker_type TEXT, PRIMARY KEY (model_id, layer, latent, text, maker_model, maker_type)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS scores (model_id TEXT, layer TEXT, latent INTEGER, text TEXT, maker_model TEXT,
    maker_type TEXT, score_type TEXT, score_model TEXT, value REAL, PRIMARY KEY (model_id, layer, latent, text,
    maker_model, maker_type, score_type, score_model, value)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS asked (model_id TEXT, layer TEXT, latent INTEGER, route TEXT, known INTEGER, at TEXT,
    PRIMARY KEY (model_id, layer, latent)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pages (model_id TEXT, layer TEXT, token TEXT, next_token TEXT, at TEXT,
    PRIMARY KEY (model_id, layer, token)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batches (model_id TEXT, layer TEXT, key TEXT, n_rows INTEGER, at TEXT,
    PRIMARY KEY (model_id, layer, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS shown (model_id TEXT, layer TEXT, latent INTEGER, body TEXT, at TEXT,
    PRIMARY KEY (model_id, layer, latent)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sources (model_id TEXT, layer TEXT, body TEXT, at TEXT,
    PRIMARY KEY (model_id, layer)) WITHOUT ROWID;
"""


class Store:
    """The look-ups of one source that have an answer; use it as a context manager.

    Parameters
    ----------
    path : Path
        The SQLite file; created if it does not exist.
    source_id : SourceId
        The source at Neuronpedia; several may share a file.

    Raises
    ------
    InputError
        The file is not such a store, cannot be written, or the disk is full; in the context, too.
    """

    def __init__(self, path: Path, source_id: SourceId) -> None:
        self._path, self._source_id = path, source_id
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(path, timeout=WAIT_SECONDS)
        except (sqlite3.Error, OSError) as error:
            raise self._problem(error) from None
        try:
            self._base.execute("PRAGMA synchronous=NORMAL")
            self._base.executescript(_TABLES)
        except sqlite3.Error as error:
            self._base.close()
            raise self._problem(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._base.close()
        if isinstance(error, sqlite3.Error):
            raise self._problem(error) from None

    def _problem(self, error: Exception) -> InputError:
        return InputError(
            f"the file of look-ups {str(self._path)!r} cannot be used ({error})",
            remedy="check that it can be written and that the disk is not full; if it is damaged, delete it: what it"
            " held is looked up again",
        )

    def explanations(self) -> list[tuple[int, Explanation]]:
        """Return latent and explanation of every known explanation, sorted by latent, maker and text."""
        scores: dict[tuple[object, ...], list[Score]] = {}
        for row in self._rows(
            "SELECT latent, text, maker_model, maker_type, score_type, score_model, value FROM scores"
            " WHERE model_id = ? AND layer = ? ORDER BY score_type, score_model, value",
            (int, str, str, str, str, str, float),
        ):
            scores.setdefault(row[:4], []).append(Score(*row[4:]))
        rows = self._rows(
            "SELECT latent, text, maker_model, maker_type FROM said WHERE model_id = ? AND layer = ?"
            " ORDER BY latent, maker_model, maker_type, text",
            (int, str, str, str),
        )
        return [
            (latent, Explanation(text, model, kind, tuple(scores.get((latent, text, model, kind), ()))))
            for latent, text, model, kind in rows
        ]

    def finished(self, *, maker: str = "", scored: bool = False) -> set[int]:
        """Return the latents that need no look-up: explained, or known to have no explanation.

        Parameters
        ----------
        maker : str
            Where the bulk export has no explanation by this maker, the API must have been asked: it is the newer one.
        scored : bool
            Whether published scores are wanted; only answers about single latents have them.
        """
        asked = self._rows(
            "SELECT latent, route FROM asked WHERE model_id = ? AND layer = ? AND known IS NOT NULL", (int, str)
        )
        if scored:
            return {latent for latent, route in asked if route == _SCORED}
        said = self._rows(
            "SELECT latent, maker_model, maker_type FROM said WHERE model_id = ? AND layer = ?", (int, str, str)
        )
        skipped = self.skipped() if maker else set()
        explained = {
            latent
            for latent, model, kind in said
            if not maker or maker in names_of_maker(Explanation("", model, kind).maker) or latent in skipped
        }
        return explained | {latent for latent, _ in asked}

    def explained(self) -> set[int]:
        """Return the latents with any explanation."""
        return {latent for (latent,) in self._rows("SELECT latent FROM said WHERE model_id = ? AND layer = ?", (int,))}

    def skipped(self) -> set[int]:
        """Return the latents that answers about many latents skipped, explained elsewhere or not."""
        rows = self._rows("SELECT latent FROM asked WHERE model_id = ? AND layer = ? AND known IS NULL", (int,))
        return {latent for (latent,) in rows}

    def source_exists(self) -> bool:
        """Return whether any answer so far shows that Neuronpedia has this source."""
        rows = self._rows("SELECT max(known) FROM asked WHERE model_id = ? AND layer = ?", (int | None,))
        rows += self._rows("SELECT 1 FROM said WHERE model_id = ? AND layer = ? LIMIT 1", (int,))
        return any(known for (known,) in rows)

    def next_page(self) -> str | None:
        """Return the token of the first unknown page of the listing; None if all are known."""
        query = "SELECT token, next_token FROM pages WHERE model_id = ? AND layer = ?"
        following = dict(self._rows(query, (str, str)))
        token = ""
        while token in following:
            token = following.pop(token)
            if not token:
                return None
        return token

    def batches(self) -> dict[str, bool]:
        """Return the listed batches, and whether each was read."""
        query = "SELECT key, n_rows FROM batches WHERE model_id = ? AND layer = ? ORDER BY key"
        rows = self._rows(query, (str, int | None))
        return {key: n_rows is not None for key, n_rows in rows}

    def add_page(self, token: str, page: Page) -> None:
        """Keep a page of the listing."""
        with self._base:
            self._put("pages", [(token, page.token, _now())])
            self._put("batches", [(key, None, _now()) for key in page.keys], "IGNORE")

    def add_batch(self, key: str, rows: Sequence[tuple[int, Explanation]]) -> None:
        """Store the content of a batch of the export."""
        with self._base:
            self._put_explanations(rows)
            self._put("batches", [(key, len(rows), _now())])

    def add_many(self, found: dict[int, list[Explanation]], skipped: Iterable[int]) -> None:
        """Store an answer about many latents; those it skipped must still be looked up one by one."""
        with self._base:
            self._put_explanations((latent, one) for latent, explanations in found.items() for one in explanations)
            self._put("asked", [(latent, "features", 1, _now()) for latent in found])
            self._put("asked", [(latent, "features", None, _now()) for latent in skipped])

    def add_one(self, latent: int, found: list[Explanation] | None) -> None:
        """Keep an answer about one latent; None if Neuronpedia does not have it."""
        with self._base:
            self._put_explanations((latent, explanation) for explanation in found or [])
            self._put("asked", [(latent, _SCORED, int(found is not None), _now())])

    def shown(self) -> dict[int, tuple[tuple[str, ...], tuple[str, ...]]]:
        """Return, for each latent that was asked about, the tokens that it promotes and on which it fires."""
        rows = self._rows("SELECT latent, body FROM shown WHERE model_id = ? AND layer = ?", (int, str))
        return {latent: _two_lists(body) for latent, body in rows}

    def described(self) -> dict[str, Any] | None:
        """Return what Neuronpedia says of the source's SAE; None if it was not asked."""
        rows = self._rows("SELECT body FROM sources WHERE model_id = ? AND layer = ?", (str,))
        found = _json(rows[0][0]) if rows else None
        return found if isinstance(found, dict) else None

    def add_shown(self, found: Mapping[int, tuple[tuple[str, ...], tuple[str, ...]]]) -> None:
        """Store what latents promote and fire on."""
        with self._base:
            self._put("shown", [(latent, json.dumps(lists), _now()) for latent, lists in found.items()])

    def add_description(self, description: Mapping[str, Any]) -> None:
        """Store what Neuronpedia says of the source's SAE."""
        with self._base:
            self._put("sources", [(json.dumps(description), _now())])

    def _put_explanations(self, rows: Iterable[tuple[int, Explanation]]) -> None:
        rows = list(rows)
        self._put("said", [(latent, *one[:3]) for latent, one in rows], "IGNORE")
        self._put("scores", [(latent, *one[:3], *score) for latent, one in rows for score in one.scores], "IGNORE")

    def _rows(self, query: str, kinds: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Return the rows that a query finds; SQLite's own types bind nobody who writes the file."""
        rows = self._base.execute(query, self._source_id).fetchall()
        if not all(isinstance(cell, kind) for row in rows for cell, kind in zip(row, kinds, strict=True)):
            raise sqlite3.DataError("a value is of the wrong type")
        return rows

    def _put(self, table: str, rows: Sequence[tuple[object, ...]], otherwise: str = "REPLACE") -> None:
        if rows:
            marks = ", ".join("?" * (len(self._source_id) + len(rows[0])))
            self._base.executemany(
                f"INSERT OR {otherwise} INTO {table} VALUES ({marks})", [(*self._source_id, *row) for row in rows]
            )


def _two_lists(body: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    found = _json(body)
    lists = found if isinstance(found, list) else []
    if len(lists) != 2 or not all(
        isinstance(part, list) and all(isinstance(one, str) for one in part) for part in lists
    ):
        raise sqlite3.DataError("a value is no pair of lists")
    return tuple(lists[0]), tuple(lists[1])


def _json(body: str) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise sqlite3.DataError("a value is no JSON") from None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
