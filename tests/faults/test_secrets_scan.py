"""A planted secret is found in every form that a study could keep it in, and never printed."""

import base64
import gzip
import io
import runpy
import sqlite3
import tarfile
import zipfile
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pandas as pd
import pytest

SCAN = runpy.run_path(str(Path(__file__).parent / "secrets_scan.py"))["main"]
SECRET = "sk-x/Y+9=3f&é0123456789"


def zipped(data):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner.txt", data)
    return stream.getvalue()


def tarred(data):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo("inner.txt")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def parquet(data):
    stream = io.BytesIO()
    # Half of the secret stands in the file once, and then as a reference to it.
    texts = [SECRET[:12], SECRET[8:], data.decode()]
    pd.DataFrame({"text": texts}).to_parquet(stream, compression="zstd")
    return stream.getvalue()


def database():
    """Return an SQLite file in which the secret stands on two pages, in part on each."""
    for length in range(4000, 8200, 16):
        with closing(sqlite3.connect(":memory:")) as base:
            base.execute("CREATE TABLE said (text TEXT)")
            base.execute("INSERT INTO said VALUES (?)", ("x" * length + SECRET + "y" * (13000 - length),))
            base.commit()
            data = base.serialize()
        if SECRET.encode() not in data:
            return data
    raise AssertionError("it is always on one page")


RAW = f"Authorization: Bearer {SECRET}\n".encode()
PLANTED = {
    "plain": RAW,
    "url": f"?key={quote(SECRET, safe='')}&x".encode(),
    **{f"base64_{shift}": base64.b64encode(b"u:1"[:shift] + SECRET.encode() + b":p") for shift in range(4)},
    "base64_url": base64.urlsafe_b64encode(SECRET.encode()),
    "url_lower": quote(SECRET, safe="").lower().encode().replace(b"sk-x%2fy", b"sk-x%2fY"),
    "hex": SECRET.encode().hex().encode(),
    "gzip": gzip.compress(RAW),
    "zip": zipped(RAW),
    "tar_gz": gzip.compress(tarred(RAW)),
    "gzip_in_zip": zipped(gzip.compress(RAW)),
    "parquet": parquet(RAW),
    "sqlite": database(),
}


@pytest.mark.parametrize("form", PLANTED)
def test_a_planted_secret_is_found_and_not_shown(form, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MY_API_KEY", SECRET)
    hidden = tmp_path / ".snakemake/log"
    hidden.mkdir(parents=True)
    (hidden / "file").write_bytes(PLANTED[form])
    assert SCAN([str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert ".snakemake/log/file" in said
    assert "MY_API_KEY" in said
    assert SECRET[:6] not in said


def test_clean_folders_pass_and_what_cannot_be_looked_for_is_no_pass(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_bytes(zipped(b"nothing"))
    monkeypatch.setenv("PLAIN", SECRET)
    assert SCAN([str(tmp_path), "--value-of", "PLAIN"]) == 0
    (tmp_path / "file").write_bytes(gzip.compress(b"cut")[:-9])
    assert SCAN([str(tmp_path), "--value-of", "PLAIN"]) == 2
    assert SCAN([str(tmp_path), "--value-of", "NOT_SET"]) == 2
    assert SCAN([str(tmp_path / "none"), "--value-of", "PLAIN"]) == 2
    (tmp_path / "file").write_text(SECRET)
    assert SCAN([str(tmp_path), "--value-of", "PLAIN"]) == 1
    assert SECRET not in capsys.readouterr().out
