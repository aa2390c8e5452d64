"""The endpoints: the bulk export on S3, `POST /features` for many latents, and `GET /feature` for one.

The export is a public bucket with all explanations of a source, in gzipped batches of about a thousand rows. Batches
are sorted by the index as text ("0", "1", "10", "100", ...), have several rows per latent, and may be rewritten: only
all of them together are the whole export.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from isaerft.explanations.neuronpedia.client import Client, as_json, as_json_lines
from isaerft.explanations.neuronpedia.records import (
    Explanation,
    SourceId,
    belongs_to,
    explanations_in,
    explanations_of_rows,
    latent_of,
)
from isaerft.http import BadAnswer

_BATCH = re.compile(r"batch-\d+\.jsonl(\.gz)?")


class Page(NamedTuple):
    """One page of the listing: the keys of batches, and the token of the next page, "" on the last."""

    keys: list[str]
    token: str


def folder_of(source_id: SourceId) -> str:
    """Return the prefix of a source's batches of explanations."""
    return f"v1/{source_id.model}/{source_id.layer}/explanations/"


async def list_page(client: Client, source_id: SourceId, token: str) -> Page | None:
    """Return the page of the listing at `token` ("" for the first); None if there is no bucket."""
    params = {"list-type": "2", "prefix": folder_of(source_id)} | ({"continuation-token": token} if token else {})
    return await client.export("/", lambda body: parse_page(body, source_id), params)


async def read_batch(client: Client, source_id: SourceId, key: str) -> list[tuple[int, Explanation]] | None:
    """Return latent and explanation of every row of a batch; None if it is gone."""

    def read(body: bytes) -> list[tuple[int, Explanation]]:
        return list(explanations_of_rows(as_json_lines(body), source_id))

    return await client.export("/" + quote(key), read)


def parse_page(body: bytes, source_id: SourceId) -> Page:
    """Read a ListObjectsV2 answer; keys other than batches of this source are skipped.

    Raises
    ------
    BadAnswer
        It is not such an answer, or it declares entities.
    """
    if b"<!" in body:
        raise BadAnswer("HTML instead of a listing")
    try:
        root = ET.fromstring(body)
    except ET.ParseError:
        raise BadAnswer("malformed XML") from None
    if _local(root) != "ListBucketResult":
        raise BadAnswer("unexpected XML")
    keys = [_child(part, "Key") for part in root if _local(part) == "Contents"]
    folder = folder_of(source_id)
    wanted = [key for key in keys if key.startswith(folder) and _BATCH.fullmatch(key[len(folder) :])]
    more = _child(root, "IsTruncated") == "true"
    token = _child(root, "NextContinuationToken") if more else ""
    if more and not token:
        raise BadAnswer("a truncated listing without a token")
    return Page(wanted, token)


def _local(part: ET.Element) -> str:
    return part.tag.rpartition("}")[2]


def _children(part: ET.Element, name: str) -> Iterator[str]:
    return ((child.text or "") for child in part if _local(child) == name)


def _child(part: ET.Element, name: str) -> str:
    return next(_children(part, name), "")


async def read_latents(client: Client, source_id: SourceId, latents: Sequence[int]) -> dict[int, list[Explanation]]:
    """Return the explanations of each latent that `POST /features` knows; it silently skips others."""
    wanted = set(latents)
    # Each row comes with activations, which are not used here: one at most.
    rows = [
        {"modelId": source_id.model, "layer": source_id.layer, "index": int(latent), "maxActsToReturn": 1}
        for latent in latents
    ]

    def read(body: bytes) -> dict[int, list[Explanation]]:
        found: dict[int, list[Explanation]] = {}
        answer = as_json(body)
        if not isinstance(answer, list):
            raise BadAnswer("unexpected JSON")
        for row in answer:
            if belongs_to(row, source_id) and latent_of(row) in wanted:
                found.setdefault(latent_of(row), []).extend(explanations_in(row))
        return found

    return await client.api("POST", "/features", read, json=rows) or {}


async def read_latent(client: Client, source_id: SourceId, latent: int) -> list[Explanation] | None:
    """Return the explanations of a latent from `GET /feature`; None if it has no such latent (404)."""

    def read(body: bytes) -> list[Explanation]:
        row: Any = as_json(body)
        if not (belongs_to(row, source_id) and latent_of(row) == latent):
            raise BadAnswer("an answer about another latent")
        return explanations_in(row)

    return await client.api("GET", f"/feature/{source_id.model}/{source_id.layer}/{latent}", read)
