"""Files: written atomically, read strictly.

A file gets its final name only when it is complete. Input that cannot be read is an `InputError` with the file and line
at fault.

>>> for row in read_data_file("data/refusal.jsonl.gz"):   # doctest: +SKIP
...     row.location, row.values
('data/refusal.jsonl.gz line 1', {'prompt': ...})
"""

from __future__ import annotations

import codecs
import csv
import errno
import fcntl
import gzip
import io
import json
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

from isaerft import ledger
from isaerft.errors import InputError, from_here, printable, shown, unknown_name
from isaerft.outside import lfs_pointer, loading

if TYPE_CHECKING:
    import pandas as pd


SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
PARQUET_BATCH_ROWS = 1024
PARQUET_PART_ROWS = 2**18
_SCRATCH = ".tmp"
_FULL, _DENIED, _IN_THE_WAY = "free some space", "check the permissions", "move away what is in its place"
# What a disk or a folder refuses, and what to do; other errors of the system are mistakes of ours.
_DISK = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EIO: "check the disk",
    errno.EROFS: _DENIED,
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EEXIST: _IN_THE_WAY,
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EISDIR: _IN_THE_WAY,
    errno.ELOOP: _IN_THE_WAY,
    errno.ENAMETOOLONG: "choose a shorter name or folder",
}
_TOLD = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
# Characters; Python's own limit, 131,072, is below the length of a pasted document.
MAX_CELL = 10**8


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`; rename it to `path` if the block succeeds, otherwise delete it.

    Works for files and folders (the block creates the folder). The rename is atomic for files. A folder that already
    exists at `path` is first moved away as a whole: a kill in between leaves no folder, never half of one. What killed
    processes left of earlier attempts at the same path is removed. A full disk or a folder that cannot be written is an
    `InputError`.

    >>> with replacing("tables/training.csv") as temporary:   # doctest: +SKIP
    ...     frame.to_csv(temporary)
    """
    final = Path(path)
    scratch, lock = None, None
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        scratch, lock = _make_scratch(final)
        temporary = scratch / final.name
        yield temporary
        ledger.sync(temporary)
        # Before the rename: after a kill in between, the file is missing, and not one that nobody knows.
        ledger.note(temporary, final)
        if temporary.is_dir() and final.is_dir():
            os.replace(final, scratch / f"{final.name}.replaced")
        os.replace(temporary, final)
    except Exception as error:
        problem = disk_problem(error, final)
        if problem is None:
            raise
        raise problem from None
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _make_scratch(final: Path) -> tuple[Path, int | None]:
    """Make the temporary folder of a path; return it with its lock, which `os.close` releases (None: no locks here).

    The system releases the lock when the process is killed. A process number in the folder's name would not do: it may
    be that of a later process, or of one on another machine.
    """
    _remove_leftovers(final)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=_SCRATCH, dir=final.parent))
        try:
            return folder, _lock(folder)
        except (BlockingIOError, FileNotFoundError):
            continue  # a process that started meanwhile took it for a leftover
        except OSError:
            return folder, None


def _lock(folder: Path) -> int:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.stat(folder)  # it may have been removed before it was locked
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _remove_leftovers(final: Path) -> None:
    """Remove the temporary folders of a path whose processes were killed."""
    scratch = re.compile(re.escape(f".{final.name}.") + "[a-z0-9_]{8}" + re.escape(_SCRATCH))
    names: list[str] = []
    with suppress(OSError):
        names = os.listdir(final.parent)
    for name in filter(scratch.fullmatch, names):
        folder = final.parent / name
        with suppress(OSError):  # it is in use, or its file system has no locks
            lock = _lock(folder)
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def disk_problem(error: Exception, path: str | Path = "") -> InputError | None:
    """Return what a disk or folder refused (it is full, read-only, a file, ...) as a user's error.

    Libraries that write files raise types of their own; the system's words in them tell.

    Parameters
    ----------
    error : Exception
        Any error.
    path : path
        The file that was being written, if known.

    Returns
    -------
    InputError or None
        None for an error of another kind.
    """
    if isinstance(error, InputError):
        return None
    number = error.errno if isinstance(error, OSError) else None
    if number not in _DISK:
        number = next((number for number in _TOLD if os.strerror(number) in str(error)), None)
    if number is None:
        return None
    where = path or (error.filename if isinstance(error, OSError) else None) or "a file"
    return InputError(f"{where} cannot be written ({os.strerror(number)})", remedy=f"{_DISK[number]}, then run again")


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: object) -> None:
    """Write indented JSON with a final newline, atomically; NaN is a ValueError."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    InputError
        The file does not exist, or is not valid JSON in UTF-8.
    """
    return _parse(read_text(path), str(path), "correct the file, or make it again")


def read_text(path: str | Path) -> str:
    """Read a UTF-8 file, with or without a byte-order mark.

    Raises
    ------
    InputError
        The file does not exist, or is not UTF-8.
    """
    path = _existing(path)
    with open(path, "rb") as stream:
        return "".join(text for _, text in _lines(path, stream))


def read_parquet(path: str | Path, *, missing: str, remedy: str) -> pd.DataFrame:
    """Read a Parquet file that a rule of the workflow made.

    Parameters
    ----------
    missing, remedy : str
        The error if the file does not exist.

    Raises
    ------
    InputError
        The file does not exist, or is not a complete Parquet file.
    """
    import pandas as pd  # not needed to start the command line
    import pyarrow

    if not os.path.isfile(path):
        raise InputError(missing, remedy=remedy)
    with loading(f"Parquet file {path}", path, remedy="make it again"):
        frame = pd.read_parquet(path)
        # Text that is not UTF-8 would be found only where a cell is read.
        pyarrow.Table.from_pandas(frame.select_dtypes("str"), preserve_index=False).validate(full=True)
        return frame


def write_parquet(parts: Iterable[pd.DataFrame], path: str | Path) -> None:
    """Write the rows of `parts` one after the other to one Parquet file, atomically, holding one part at a time.

    All parts have the columns and dtypes of the first; without any there is nothing to write, a ValueError.
    """
    import pyarrow as pa
    from pyarrow import parquet

    with replacing(path) as temporary, ExitStack() as stack:
        writer = None
        for part in parts:
            table = pa.Table.from_pandas(part, schema=writer and writer.schema, preserve_index=False)
            if writer is None:
                writer = stack.enter_context(parquet.ParquetWriter(temporary, table.schema))
            writer.write_table(table)
        if writer is None:
            raise ValueError(f"no part to write to {path}")


def parquet_parts(path: str | Path, columns: Sequence[str], **equal: str) -> Iterator[pd.DataFrame]:
    """Yield some columns of a Parquet file, a bounded number of rows at a time.

    Only rows in which the columns `equal` have these values; parts of the file without any are not read.

    Raises
    ------
    InputError
        The file does not exist, or is not a complete Parquet file with these columns.
    """
    from pyarrow import Table, dataset

    with loading(f"Parquet file {path}", path, remedy="make it again"):
        rows = dataset.dataset(os.fspath(path), format="parquet")
        kept = None
        for name, value in equal.items():
            kept = (dataset.field(name) == value) if kept is None else kept & (dataset.field(name) == value)
        options = {"batch_size": PARQUET_PART_ROWS, "batch_readahead": 1, "fragment_readahead": 1}
        held, n_rows = [], 0
        # Batches end where row groups do, and a table of changes has thousands of small ones.
        for batch in rows.to_batches(columns=list(columns), filter=kept, **options):
            held.append(batch)
            n_rows += batch.num_rows
            if n_rows >= PARQUET_PART_ROWS:
                yield Table.from_batches(held).to_pandas()
                held, n_rows = [], 0
        if n_rows:
            yield Table.from_batches(held).to_pandas()


def typed(frame: pd.DataFrame, dtypes: Mapping[str, str], what: str) -> pd.DataFrame:
    """Return the named columns of a table in their dtypes; a value that does not fit is an `InputError`."""
    import pandas as pd

    columns = {}
    for name, dtype in dtypes.items():
        try:
            columns[name] = frame[name].astype(dtype)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{what}: column {name} is not {dtype} ({error})") from None
    return pd.DataFrame(columns)


class Row(NamedTuple):
    """A row of a data file.

    Attributes
    ----------
    location : str
        Where it comes from, for errors ("data/refusal.csv line 7").
    values : dict
        Column -> value.
    """

    location: str
    values: dict[str, Any]


def read_data_file(path: str | Path, *, inside: str = "") -> Iterator[Row]:
    """Yield the rows of a local data file.

    Parameters
    ----------
    path : str or Path
        A .jsonl, .json, .csv or .parquet file, or one of these with .gz appended.
    inside : str, optional
        Key of the array of rows, for a .json file that may be one object.

    Raises
    ------
    InputError
        The file does not exist, is of another type, damaged or not UTF-8, or has no rows.
    """
    path = _existing(path)
    suffix = Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"file {str(path)!r}", allowed=", ".join(SUFFIXES) + ", each also with .gz appended")
    empty = True
    with _opened(path) as stream:
        rows = _array(path, stream, inside) if suffix == ".json" else _READERS[suffix](path, stream)
        for row in rows:
            empty = False
            yield row
    if empty:
        raise InputError(f"file {str(path)!r} is empty: it has no rows", remedy="check the path in the config")


def column_value(row: Row, column: str) -> Any:
    """Return the value of a column, or of a dotted path into nested data (`instances.0.output`).

    A column whose own name contains dots takes precedence. A negative number counts from the end of a list
    (`chosen.-1.content`).

    Raises
    ------
    InputError
        There is no such column or path.
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


def _is_index(part: str, length: int) -> bool:
    """Tell whether part of a path is a valid position in a list."""
    digits = part.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 10 and -length <= int(part) < length


def _no_column(row: Row, column: str, node: object, part: str) -> InputError:
    """Return the error for a column, or part of a path, that does not exist."""
    if isinstance(node, dict):
        of = "" if node is row.values else f" of {printable(column)}"
        return unknown_name(f"column{of} in {row.location}:", part, [printable(name) for name in node])
    found = f"a list of {len(node)}" if isinstance(node, list) else shown(node)
    return InputError(
        f"column {printable(column)} in {row.location}: nothing under {part!r}",
        allowed=f"a path into {found}",
    )


def _existing(path: str | Path) -> Path:
    """Return the path of a file that exists, and is not a git-lfs pointer to one; otherwise raise `InputError`."""
    if not os.path.isfile(path):
        remedy = f"check the path in the config{from_here(path)}"
        raise InputError(f"file {str(path)!r} does not exist", remedy=remedy)
    if found := lfs_pointer(path):
        raise InputError(f"file {found.reason}", remedy=found.remedy)
    return Path(path)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file as bytes, through gzip if its name ends in .gz."""
    try:
        with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else open(path, "rb") as stream:
            yield cast(IO[bytes], stream)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path} is not a complete gzip file ({error})", remedy="download it again") from None


def _lines(path: Path, stream: Iterable[bytes]) -> Iterator[tuple[int, str]]:
    """Yield the lines of a UTF-8 file with their numbers, from 1."""
    for number, raw in enumerate(stream, 1):
        data = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
        try:
            yield number, data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path} line {number} is not UTF-8 (byte 0x{data[error.start]:02x})",
                allowed="UTF-8 text",
                remedy="save the file as UTF-8",
            ) from None


def _parse(text: str, location: str, remedy: str) -> Any:
    """Parse JSON; any failure is an `InputError`."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{location} is not valid JSON ({str(error)[:200]})", remedy=remedy) from None


def _as_row(value: object, location: str) -> Row:
    """Return a row, which must be a JSON object."""
    if not isinstance(value, dict):
        raise InputError(f"{location} is {shown(value)}", allowed="one JSON object per row")
    return Row(location, value)


def _jsonl(path: Path, stream: IO[bytes]) -> Iterator[Row]:
    for number, text in _lines(path, stream):
        if text.strip():
            location = f"{path} line {number}"
            yield _as_row(_parse(text, location, "write one JSON object per line"), location)


def _array(path: Path, stream: IO[bytes], inside: str) -> Iterator[Row]:
    text = "".join(line for _, line in _lines(path, stream))
    value = _parse(text, str(path), "if it has one object per line, name it .jsonl") if text.strip() else []
    if inside and isinstance(value, dict) and inside in value:
        value = value[inside]
    if not isinstance(value, list):
        raise InputError(f"{path} is {shown(value)}", allowed="an array of objects")
    for number, item in enumerate(value, 1):
        yield _as_row(item, f"{path} row {number}")


def _csv(path: Path, stream: IO[bytes]) -> Iterator[Row]:
    csv.field_size_limit(MAX_CELL)
    reader = csv.reader((text for _, text in _lines(path, stream)), strict=True)
    try:
        header = next(reader, [])
        repeated = sorted({printable(name) for name in header if header.count(name) > 1})
        if repeated:
            raise InputError(f"{path} has repeated column names: {', '.join(repeated[:10])}", remedy="rename them")
        line = reader.line_num + 1
        for fields in reader:
            if fields and len(fields) != len(header):
                raise InputError(
                    f"{path} line {line} has {len(fields)} fields", allowed=f"{len(header)}, as in the header"
                )
            if fields:
                yield Row(f"{path} line {line}", dict(zip(header, fields, strict=True)))
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(
            f"{path} line {reader.line_num} is not valid CSV ({error})", remedy="quote the fields of this line"
        ) from None


def _parquet(path: Path, stream: IO[bytes]) -> Iterator[Row]:
    import pyarrow.parquet

    source = io.BytesIO(stream.read()) if isinstance(stream, gzip.GzipFile) else stream
    number = 0
    with loading(f"Parquet file {path}", path, remedy="download it again"):
        for batch in pyarrow.parquet.ParquetFile(source).iter_batches(batch_size=PARQUET_BATCH_ROWS):
            for values in batch.to_pylist():
                number += 1
                yield Row(f"{path} row {number}", values)


_READERS = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
