"""Writing files so that nothing half-written ever stands under its final name, and reading text strictly."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from isaerft.errors import InputError

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
