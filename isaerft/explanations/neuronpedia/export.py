"""The bulk export: a public S3 bucket with all explanations of a source, in gzipped batches of about a thousand rows.

Batches are sorted by the index as text ("0", "1", "10", "100", ...), hold several rows per latent, and may be written
again: only all of them together say what the export holds.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import quote

from isaerft.explanations.neuronpedia.body import BadBody, as_json_lines
from isaerft.explanations.neuronpedia.client import Client
from isaerft.explanations.neuronpedia.entries import Said, of_rows
from isaerft.explanations.neuronpedia.identifiers import Place

_BATCH = re.compile(r"batch-\d+\.jsonl(\.gz)?")


class Page(NamedTuple):
    """One page of the listing: keys of batches, and the token of the next page, "" on the last."""

    keys: list[str]
    token: str


def folder_of(place: Place) -> str:
    """Return the prefix of a source's batches of explanations."""
    return f"v1/{place.model}/{place.layer}/explanations/"


async def list_page(client: Client, place: Place, token: str) -> Page | None:
    """Return the page of the listing that `token` begins ("" for the first); None where there is no bucket."""
    params = {"list-type": "2", "prefix": folder_of(place)} | ({"continuation-token": token} if token else {})
    return await client.export("/", lambda body: parse_page(body, place), params)


async def read_batch(client: Client, place: Place, key: str) -> list[tuple[int, Said]] | None:
    """Return latent and explanation for every row of a batch; None where it is gone."""
    return await client.export("/" + quote(key), lambda body: list(of_rows(as_json_lines(body), place)))


def parse_page(body: bytes, place: Place) -> Page:
    """Read a ListObjectsV2 answer; keys that are no batches of this source are left out.

    Raises
    ------
    BadBody
        It is not such an answer, or it declares entities of its own.
    """
    if b"<!" in body:
        raise BadBody("HTML in place of a listing")
    try:
        root = ET.fromstring(body)
    except ET.ParseError:
        raise BadBody("malformed XML") from None
    if _local(root) != "ListBucketResult":
        raise BadBody("XML of another kind")
    keys = [_child(part, "Key") for part in root if _local(part) == "Contents"]
    folder = folder_of(place)
    wanted = [key for key in keys if key.startswith(folder) and _BATCH.fullmatch(key[len(folder) :])]
    more = _child(root, "IsTruncated") == "true"
    token = _child(root, "NextContinuationToken") if more else ""
    if more and not token:
        raise BadBody("a listing that goes on without saying where")
    return Page(wanted, token)


def _local(part: ET.Element) -> str:
    return part.tag.rpartition("}")[2]


def _children(part: ET.Element, name: str) -> Iterator[str]:
    return ((child.text or "") for child in part if _local(child) == name)


def _child(part: ET.Element, name: str) -> str:
    return next(_children(part, name), "")
