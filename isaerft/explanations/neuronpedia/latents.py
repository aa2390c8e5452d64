"""Look-ups of latents through the API: many at once, or one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isaerft.explanations.neuronpedia.body import BadBody, as_json
from isaerft.explanations.neuronpedia.client import Client
from isaerft.explanations.neuronpedia.entries import Said, index_of, is_of, said_in
from isaerft.explanations.neuronpedia.identifiers import Place


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
