"""The bulk export: a public S3 bucket with all explanations of a source, in gzipped batches of about a thousand rows.

Batches are sorted by the index as text ("0", "1", "10", "100", ...), hold several rows per latent, and may be written
again: only all of them together say what the export holds.

Look-ups of latents through the API: many at once, or one.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from isaerft.explanations.neuronpedia.client import BadBody, Client, as_json, as_json_lines
from isaerft.explanations.neuronpedia.entries import Place, Said, index_of, is_of, of_rows, said_in

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


async def ask_many(client: Client, place: Place, latents: Sequence[int]) -> dict[int, list[Said]]:
    """Return the explanations of each latent that `POST /features` answers; it silently leaves out those it lacks."""
    asked = set(latents)
    # Each row comes with activations, which nobody reads here: one at most.
    rows = [
        {"modelId": place.model, "layer": place.layer, "index": int(latent), "maxActsToReturn": 1} for latent in latents
    ]

    def read(body: bytes) -> dict[int, list[Said]]:
        found: dict[int, list[Said]] = {}
        answer = as_json(body)
        if not isinstance(answer, list):
            raise BadBody("JSON of another shape")
        for row in answer:
            if is_of(row, place) and index_of(row) in asked:
                found.setdefault(index_of(row), []).extend(said_in(row))
        return found

    return await client.api("POST", "/features", read, json=rows) or {}


async def ask_one(client: Client, place: Place, latent: int) -> list[Said] | None:
    """Return the explanations that `GET /feature` knows of a latent; None where it has no such latent (404)."""

    def read(body: bytes) -> list[Said]:
        row: Any = as_json(body)
        if not (is_of(row, place) and index_of(row) == latent):
            raise BadBody("another latent than the one asked for")
        return said_in(row)

    return await client.api("GET", f"/feature/{place.model}/{place.layer}/{latent}", read)
