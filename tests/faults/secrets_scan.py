"""Look for secrets of the environment in every file of a study, without showing them.

$ python tests/faults/secrets_scan.py results .snakemake                     what looks like a key in the environment
$ python tests/faults/secrets_scan.py results --value-of NEURONPEDIA_API_KEY

A value is looked for as it is, URL-encoded, in base64 and in hex: in the bytes of each file, and in what gzip, bzip2,
xz, zip, tar, Parquet and SQLite files hold, in each other, too. Every finding is a line: file, byte and the variable's
name. Status 1 means that there was one, 2 that nothing was looked for, or that a file could not be read whole.
"""

import argparse
import base64
import bz2
import gzip
import io
import lzma
import mmap
import os
import re
import sqlite3
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

KEY_LIKE = re.compile(r"(?i)(key|token|secret|passw|credential)")
MIN_LENGTH = 8
MAX_DEPTH = 4
UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    sqlite3.Error,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    tarfile.TarError,
)


def forms(value: str) -> list[bytes]:
    """Return the byte sequences by which a value is known: as it is, URL-encoded, base64 at each offset, hex."""
    raw = value.encode()
    encoded = quote(value, safe="")
    lower = re.sub("%..", lambda match: match[0].lower(), encoded)
    found = {raw, encoded.encode(), lower.encode(), raw.hex().encode(), raw.hex().upper().encode()}
    for shift in range(3):
        text = base64.b64encode(bytes(shift) + raw)
        # The characters at either end also hold bits of what stands around the value.
        inner = text[(0, 2, 3)[shift] : len(text) - (0, 3, 2)[(shift + len(raw)) % 3]]
        found |= {inner, inner.translate(bytes.maketrans(b"+/", b"-_"))}
    return sorted(form for form in found if len(form) >= MIN_LENGTH)


def unpacked(data: bytes | mmap.mmap) -> Iterator[tuple[str, bytes]]:
    """Yield the name and bytes of what an archive, a compressed file or a database holds; nothing of other files."""
    head = data[:16]
    if head.startswith(b"\x1f\x8b"):
        yield "gzip", gzip.decompress(data)
    elif head.startswith(b"BZh"):
        yield "bzip2", bz2.decompress(data)
    elif head.startswith(b"\xfd7zXZ"):
        yield "xz", lzma.decompress(data)
    elif head.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.infolist():
                yield member.filename, archive.read(member)
    elif data[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for part in archive:
                if part.isfile() and (stream := archive.extractfile(part)):
                    yield part.name, stream.read()
    elif head.startswith(b"PAR1"):
        yield "columns", columns(data)
    elif head.startswith(b"SQLite format 3\0"):
        yield "rows", rows(data)


def rows(data: bytes | mmap.mmap) -> bytes:
    """Return all rows of an SQLite file as text; in the file, a long one is split over pages."""
    with closing(sqlite3.connect(":memory:")) as base:
        base.deserialize(data[:18] + b"\1\1" + data[20:])  # as if it had no write-ahead log, which is a file too
        base.text_factory = bytes
        names = [name.decode() for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = (value for name in names for row in base.execute(f'SELECT * FROM "{name}"') for value in row)
        return b"\n".join(value for value in found if isinstance(value, bytes))


def columns(data: bytes | mmap.mmap) -> bytes:
    """Return the values of a Parquet file as text."""
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(io.BytesIO(data))
    return "\n".join(str(value) for column in table.columns for value in column.to_pylist()).encode("utf-8", "replace")


def findings(
    where: str, data: bytes | mmap.mmap, known: dict[bytes, str], depth: int = 0
) -> Iterator[tuple[str, int, str]]:
    """Yield place, byte and variable of every form of a value in a file's bytes and what they hold."""
    for form, name in known.items():
        at = data.find(form)
        while at >= 0:
            yield where, at, name
            at = data.find(form, at + 1)
    if depth < MAX_DEPTH:
        for member, inner in unpacked(data):
            yield from findings(f"{where}!{member}", inner, known, depth + 1)


def scanned(path: Path, known: dict[bytes, str]) -> Iterator[tuple[str, int, str]]:
    """Yield the findings in a file, which may be larger than the memory."""
    if path.stat().st_size:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield from findings(str(path), data, known)


def files(folders: list[Path]) -> Iterator[Path]:
    """Yield every file below the folders; links are followed to files and not to folders."""
    for folder in folders:
        yield from ([folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file()))


def secrets(names: list[str]) -> dict[bytes, str]:
    """Return the forms of the values of these variables, or of all whose names look like a key's; form -> variable."""
    chosen = names or [name for name in os.environ if KEY_LIKE.search(name)]
    values = {name: os.environ.get(name, "").strip() for name in chosen}
    return {form: name for name, value in values.items() if len(value) >= MIN_LENGTH for form in forms(value)}


def main(arguments: list[str] | None = None) -> int:
    """Scan the folders, print the findings, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--value-of", nargs="+", default=[], metavar="NAME", help="variables, whatever their names")
    options = parser.parse_args(arguments)
    known = secrets(options.value_of)
    missing = [str(folder) for folder in options.folders if not folder.exists()]
    if not known or missing:
        print(f"nothing to look in: {missing}" if missing else "no value of eight characters or more to look for")
        return 2
    count = n_files = unread = 0
    for path in files(options.folders):
        n_files += 1
        try:
            for where, at, name in scanned(path, known):
                count += 1
                print(f"{where}: byte {at}: the value of {name}")
        except UNREADABLE as error:
            unread += 1
            print(f"{path}: cannot be read whole ({type(error).__name__})")
    print(f"{n_files} files, {len(set(known.values()))} secrets: {count} findings, {unread} files not read whole")
    return 1 if count else 2 if unread else 0


if __name__ == "__main__":
    sys.exit(main())
