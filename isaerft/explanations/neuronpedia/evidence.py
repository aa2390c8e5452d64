"""Look up by what labels are recognized: what Neuronpedia says of a source's SAE, and lists of some of its latents.

A few requests per source, whose answers are kept with the explanations. Without an answer nothing is compared, and the
provenance of the labels is not proven; that stops nobody.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from isaerft.config import Neuronpedia
from isaerft.explanations.neuronpedia.client import Client, FailedRequest, as_json
from isaerft.explanations.neuronpedia.records import SourceId, belongs_to, latent_of
from isaerft.explanations.neuronpedia.store import Store
from isaerft.explanations.provenance import MAX_FIRES_ON, Evidence, Shown, shown_in, statements_in
from isaerft.http import BadAnswer
from isaerft.provenance import About

log = logging.getLogger(__name__)
_OF_SOURCE = ("hfRepoId", "hfFolderId", "saelensRelease", "saelensSaeId", "saelensConfig")


async def evidence_of(options: Neuronpedia, source_id: SourceId, store: Store, latents: Sequence[int]) -> Evidence:
    """Return what is known of a source; what `store` does not know is looked up for `latents` and stored."""
    missing = [latent for latent in latents if latent not in store.shown()]
    if missing:
        try:
            async with Client(options) as client:
                if store.described() is None:
                    store.add_description(await _describe(client, source_id, missing[0]))
                for start in range(0, len(missing), options.batch_size):
                    await _show(client, source_id, store, missing[start : start + options.batch_size])
        except FailedRequest as error:
            log.warning("%s/%s: what its latents do cannot be compared: %s", *source_id, error)
    said = (About("the source at Neuronpedia", source_id="/".join(source_id)),)
    found = [Shown(latent, *lists) for latent, lists in store.shown().items() if lists and latent in set(latents)]
    return Evidence((*said, *statements_in({"source": store.described() or {}})), tuple(found))


async def _describe(client: Client, source_id: SourceId, latent: int) -> dict[str, Any]:
    """Return what `GET /feature` says of the SAE of a latent; {} if it has no such latent."""

    def read(body: bytes) -> dict[str, Any]:
        row = as_json(body)
        source = row.get("source") if belongs_to(row, source_id) else None
        return {name: source[name] for name in _OF_SOURCE if name in source} if isinstance(source, dict) else {}

    return await client.api("GET", f"/feature/{source_id.model}/{source_id.layer}/{latent}", read) or {}


async def _show(client: Client, source_id: SourceId, store: Store, latents: Sequence[int]) -> None:
    """Look up what some latents do; those that Neuronpedia skips are stored as empty."""
    ids = {"modelId": source_id.model, "layer": source_id.layer, "maxActsToReturn": MAX_FIRES_ON}

    def read(body: bytes) -> list[Shown]:
        answer = as_json(body)
        if not isinstance(answer, list):
            raise BadAnswer("unexpected JSON")
        rows = [(row, latent_of(row)) for row in answer if belongs_to(row, source_id)]
        return [shown_in(row, latent) for row, latent in rows if latent in latents]

    found = await client.api("POST", "/features", read, json=[ids | {"index": int(latent)} for latent in latents]) or []
    lists = {one.latent: (one.promoted, one.fires_on) for one in found}
    store.add_shown({latent: lists.get(latent, ((), ())) for latent in latents})
