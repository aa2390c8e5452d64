"""Writing files so that nothing half-written ever stands under its final name, and reading text strictly.

Rows of a local data file, one at a time, each knowing its place: JSONL, JSON array, CSV or Parquet, also gzipped.

Nothing here knows what the rows mean; the explanations floor reads its files with it too.

>>> for row in read_data_file("data/refusal.jsonl.gz"):   # doctest: +SKIP
...     row.place, row.values
('data/refusal.jsonl.gz line 1', {'prompt': ...})
"""

from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
import io
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from isaerft.errors import InputError, shown, unknown_name

if TYPE_CHECKING:
    import pandas as pd


CHUNK_BYTES = 1 << 20


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` when the block ends well, remove it when not.

    Works for files and folders (make the folder yourself inside the block). The rename is atomic for files; a folder
    that already stands under `path` is moved away whole first: a kill between the two leaves none, never half of one.

    >>> with replacing("tables/training.csv") as temporary:   # doctest: +SKIP
    ...     frame.to_csv(temporary)
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    temporary = scratch / final.name
    try:
        yield temporary
        if temporary.is_dir() and final.is_dir():
            os.replace(final, scratch / f"{final.name}.replaced")
        os.replace(temporary, final)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8 under `path`, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: object) -> None:
    """Write `value` as indented JSON with a final newline, atomically; NaN is refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> object:
    """Read a JSON file; a missing or malformed one is an `InputError`."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not valid JSON ({error})", remedy="make the file again") from None


def read_text(path: str | Path) -> str:
    """Read a UTF-8 file (with or without byte-order mark); missing or undecodable is an `InputError`."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"file {str(path)!r} does not exist", remedy="check the path in the config")
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path} line {line} holds bytes that are not UTF-8 (0x{data[error.start]:02x} at byte {error.start})",
            allowed="UTF-8 text",
            remedy="save the file as UTF-8",
        ) from None


def read_parquet(path: str | Path, *, missing: str, remedy: str) -> pd.DataFrame:
    """Read a Parquet file that a rule made; `missing` and `remedy` are the error where it is not there.

    Raises
    ------
    InputError
        The file does not exist or is not whole.
    """
    import pandas as pd  # the command line starts without it

    if not Path(path).is_file():
        raise InputError(missing, remedy=remedy)
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a whole Parquet file ({str(error)[:200]})", remedy="make it again") from None


def sha256(path: str | Path) -> str:
    """Return the hex SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
MAX_NAME = 60
BATCH_ROWS = 1024


class Row(NamedTuple):
    """One row of raw data and its place in words ("data/refusal.csv line 7")."""

    place: str
    values: dict[str, Any]


def read_data_file(path: str | Path, *, inside: str = "") -> Iterator[Row]:
    """Give the rows of a local file.

    Parameters
    ----------
    path : str or Path
        A .jsonl, .json, .csv or .parquet file, each also with .gz behind it.
    inside : str, optional
        Key under which a .json file that is one object may hold its array of rows.

    Raises
    ------
    InputError
        The file is missing, empty, of another kind, damaged, not UTF-8, or holds no rows; with the line at fault.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"file {str(path)!r} does not exist", remedy="check the path in the config")
    suffix = Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"file {str(path)!r}", allowed=", ".join(SUFFIXES) + ", each also with .gz")
    empty = True
    with _opened(path) as stream:
        rows = _array(path, stream, inside) if suffix == ".json" else _READERS[suffix](path, stream)
        for row in rows:
            empty = False
            yield row
    if empty:
        raise InputError(f"file {str(path)!r} is empty: it holds no rows", remedy="check the path in the config")


def column_value(row: Row, column: str) -> Any:
    """Return what stands under a column, or under a dotted path into nested data (`instances.0.output`).

    A column whose own name holds dots is found first. A negative number counts from a list's end (`chosen.-1.content`).

    Raises
    ------
    InputError
        There is no such column; the nearest one is named.
    """
    if column in row.values:
        return row.values[column]
    node: Any = row.values
    for part in column.split("."):
        if isinstance(node, dict) and part in node:
            node = node[part]
        elif isinstance(node, list) and _is_index(part, len(node)):
            node = node[int(part)]
        else:
            raise _no_column(row, column, node, part)
    return node


def printable(name: object) -> str:
    """Return a name from outside, fit to be listed in an error: control characters escaped, length bounded."""
    text = str(name)[: MAX_NAME + 1]
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= MAX_NAME else text[:MAX_NAME] + "..."


def _is_index(part: str, length: int) -> bool:
    """Tell whether a path part is a valid position in a list."""
    digits = part.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 10 and -length <= int(part) < length


def _no_column(row: Row, column: str, node: object, part: str) -> InputError:
    """Build the error for a column or path part that is not there."""
    if isinstance(node, dict):
        of = "" if node is row.values else f" of {printable(column)}"
        return unknown_name(f"column{of} in {row.place}:", part, [printable(name) for name in node])
    found = f"a list of {len(node)}" if isinstance(node, list) else shown(node)
    return InputError(
        f"column {printable(column)} in {row.place}: nothing under {part!r}",
        allowed=f"a path into what is there, {found}",
    )


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file as bytes, through gzip where its name says so; damage is an `InputError`."""
    try:
        with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else open(path, "rb") as stream:
            yield stream
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path} is not a whole gzip file ({error})", remedy="fetch it again") from None


def _lines(path: Path, stream: Iterable[bytes]) -> Iterator[tuple[int, str]]:
    """Decode a file line by line, strictly, with line numbers from 1."""
    for number, raw in enumerate(stream, 1):
        data = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
        try:
            yield number, data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path} line {number} holds bytes that are not UTF-8 (0x{data[error.start]:02x})",
                allowed="UTF-8 text",
                remedy="save the file as UTF-8",
            ) from None


def _parsed(text: str, place: str, remedy: str) -> Any:
    """Parse JSON; every way in which it can fail is an `InputError`."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place} is not valid JSON ({str(error)[:200]})", remedy=remedy) from None


def _object(value: object, place: str) -> Row:
    """Refuse a row that is not an object."""
    if not isinstance(value, dict):
        raise InputError(f"{place} holds {shown(value)}", allowed="one JSON object per row")
    return Row(place, value)


def _jsonl(path: Path, stream: IO[bytes]) -> Iterator[Row]:
    for number, text in _lines(path, stream):
        if text.strip():
            place = f"{path} line {number}"
            yield _object(_parsed(text, place, "write one JSON object a line"), place)


def _array(path: Path, stream: IO[bytes], inside: str) -> Iterator[Row]:
    text = "".join(line for _, line in _lines(path, stream))
    value = _parsed(text, str(path), "if it holds one object a line, name it .jsonl") if text.strip() else []
    if inside and isinstance(value, dict) and inside in value:
        value = value[inside]
    if not isinstance(value, list):
        raise InputError(f"{path} holds {shown(value)}", allowed="an array of objects")
    for number, item in enumerate(value, 1):
        yield _object(item, f"{path} row {number}")


def _csv(path: Path, stream: IO[bytes]) -> Iterator[Row]:
    reader = csv.reader((text for _, text in _lines(path, stream)), strict=True)
    try:
        header = next(reader, [])
        repeated = sorted({printable(name) for name in header if header.count(name) > 1})
        if repeated:
            raise InputError(f"{path} has columns with one name: {', '.join(repeated[:10])}", remedy="rename them")
        line = reader.line_num + 1
        for fields in reader:
            if fields and len(fields) != len(header):
                raise InputError(
                    f"{path} line {line} has {len(fields)} fields", allowed=f"{len(header)}, as the header"
                )
            if fields:
                yield Row(f"{path} line {line}", dict(zip(header, fields, strict=True)))
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(
            f"{path} line {reader.line_num} is not valid CSV ({error})", remedy="quote its fields"
        ) from None


def _parquet(path: Path, stream: IO[bytes]) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    source = io.BytesIO(stream.read()) if isinstance(stream, gzip.GzipFile) else stream
    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(source).iter_batches(batch_size=BATCH_ROWS):
            for values in batch.to_pylist():
                number += 1
                yield Row(f"{path} row {number}", values)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a whole Parquet file ({str(error)[:200]})", remedy="fetch it again") from None


_READERS = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
