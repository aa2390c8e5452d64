"""Checksums of a study's finished files, so that files cut by a crash are found and made again.

Verbs that open a study note here whatever gets its final name below the study's results. Snakemake, before it
plans, compares sizes; `isaerft verify` compares contents and removes what is damaged.

>>> keep("results/testbed")                               # doctest: +SKIP
>>> [found.path for found in damaged("results/testbed")]  # doctest: +SKIP
[PosixPath('results/testbed/tables/training.csv')]
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

NAME = ".checksums.jsonl"
_root: Path | None = None


class Damaged(NamedTuple):
    """A finished file or folder that is not what was written: what Snakemake must make again.

    Attributes
    ----------
    path : Path
        The file, or the folder that was written as a whole.
    why : str
        What differs, in words.
    """

    path: Path
    why: str


def keep(root: str | Path | None) -> None:
    """From now on note the finished files below a results folder; None: no longer."""
    global _root
    _root = None if root is None else Path(root).absolute()


def note(written: Path, final: Path) -> None:
    """Note the size and checksum of a file, or of every file of a folder, that is about to get its final name."""
    if _root is None or not final.absolute().is_relative_to(_root):
        return
    name = final.absolute().relative_to(_root)
    # A name with a dot is scratch, which becomes part of a folder that is noted later.
    if any(part.startswith(".") for part in name.parts):
        return
    entry = json.dumps({"path": name.as_posix(), "files": {part: _facts(file) for part, file in _files(written)}})
    # It begins a line of its own, also behind one that a full disk or a crash cut.
    line = f"\n{entry}\n".encode()
    # One write of a file that is only appended to: jobs that end together do not mix their lines. On a network file
    # system appending is no single step, so jobs of several nodes take turns.
    with open(_root / NAME, "ab", buffering=0, opener=_not_through_a_link) as stream:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(stream, fcntl.LOCK_EX)
        if stream.write(line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def sha256(path: str | Path) -> str:
    """Return the hex SHA-256 of a file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Wait until the disk has a file, or every file of a folder, so that no power loss cuts it under its final name."""
    for _, file in _files(path):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def damaged(root: str | Path, *, contents: bool = True) -> list[Damaged]:
    """Return the finished files and folders that have changed since they were written; missing ones are not counted.

    Parameters
    ----------
    root : path
        Results folder of a study.
    contents : bool
        Compare checksums as well, which reads every file; False compares sizes alone.
    """
    found = []
    for name, files in _noted(Path(root)).items():
        path = Path(root, name)
        # A stranger's ledger may name files elsewhere, and `verify` removes what is damaged.
        if not path.exists() or Path(root).resolve() not in path.resolve().parents:
            continue
        now = dict(_files(path))
        for part, (size, checksum) in files.items():
            shown = path / part
            if part not in now:
                why = f"{shown} is missing"
            elif now[part].stat().st_size != size:
                why = f"{shown} has {now[part].stat().st_size:,} bytes; {size:,} were written"
            elif contents and sha256(now[part]) != checksum:
                why = f"{shown} has other contents than were written"
            else:
                continue
            found.append(Damaged(path, why))
            break
    return found


def n_noted(root: str | Path) -> int:
    """Return how many files are noted below a results folder."""
    return sum(len(files) for files in _noted(Path(root)).values())


def _noted(root: Path) -> dict[str, dict[str, tuple[int, str]]]:
    """Return what was noted last of each file or folder; a line that was cut tells nothing."""
    noted: dict[str, dict[str, tuple[int, str]]] = {}
    ledger = root / NAME
    for line in ledger.read_bytes().splitlines() if ledger.is_file() else []:
        try:
            entry = json.loads(line)
            name, files = (
                str(entry["path"]),
                {part: (int(size), str(key)) for part, (size, key) in entry["files"].items()},
            )
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
        noted = {other: facts for other, facts in noted.items() if not other.startswith(f"{name}/")} | {name: files}
        for other in noted:
            if name.startswith(f"{other}/"):
                # A file that was written anew inside a folder that was noted as a whole.
                inside = name.removeprefix(f"{other}/")
                noted[other] |= {f"{inside}/{part}".rstrip("/"): facts for part, facts in files.items()}
    return noted


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of a folder by their relative names, but no hidden ones; a file is its own only one, named ''."""
    if path.is_file():
        yield "", path
        return
    for file in sorted(path.rglob("*")):
        if file.is_file() and not file.name.startswith("."):
            yield file.relative_to(path).as_posix(), file


def _not_through_a_link(path: str, flags: int) -> int:
    """Open a file of a results folder that may be a stranger's: its ledger could be a link to a file elsewhere."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def _facts(file: Path) -> tuple[int, str]:
    return file.stat().st_size, sha256(file)
