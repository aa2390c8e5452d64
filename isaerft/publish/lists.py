"""Verdicts as lists at Neuronpedia, one for each verdict, or several where a list would be long.

Explanations cannot be written at Neuronpedia, lists can. `POST /list/new-with-features` makes one, `POST /list/list`
names the user's own, and `POST /list/get` reads one. Making one is not repeatable, so it is tried once, and a list is
known by its name: one that is there is not made again, and one that holds something else is left alone.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import partial
from math import ceil
from typing import Any, NamedTuple

from isaerft.config import Neuronpedia
from isaerft.errors import InputError, shown
from isaerft.explanations.base import clean_text
from isaerft.explanations.neuronpedia.client import KEY, Client, FailedRequest, as_json, read_key
from isaerft.explanations.neuronpedia.records import SourceId, belongs_to, latent_of
from isaerft.http import BadAnswer
from isaerft.publish.verdicts import PUBLISHED, Verdicts
from isaerft.version import VERSION

LONGEST = 100
"""Latents of a list: Neuronpedia looks each up before it answers, and takes 100 at most when they are added later."""
MAX_SAID = 1000
MEANING = {
    "supported": "Training on behaviors moved these latents as their explanations predict.",
    "contradicted": "Training on behaviors did not move these latents as their explanations predict, though it should.",
    "absorbed": "Training moved latents that can have absorbed these, where these explanations predict a change.",
}
_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")


class LatentList(NamedTuple):
    """A list: its name and description, and what it says of each latent, the most certain verdict first."""

    name: str
    description: str
    latents: dict[int, str]

    def body(self, source_id: SourceId) -> dict[str, Any]:
        """Return the body of the request that makes it."""
        model, layer = source_id
        features = [
            {"modelId": model, "layer": layer, "index": latent, "description": said}
            for latent, said in self.latents.items()
        ]
        return {"name": self.name, "description": self.description, "features": features}

    def n_bytes(self, source_id: SourceId) -> int:
        """Return the size of that request."""
        return len(json.dumps(self.body(source_id)).encode())


class Sent(NamedTuple):
    """A list as it is at Neuronpedia: whether it was made now, its address, and what it says of each latent."""

    wanted: LatentList
    is_new: bool
    url: str
    latents: dict[int, str]

    @property
    def unknown(self) -> list[int]:
        """Latents that Neuronpedia does not have, which it leaves out without a word."""
        return sorted(set(self.wanted.latents) - set(self.latents))


def lists_of(verdicts: Verdicts) -> list[LatentList]:
    """Return the lists of a study's verdicts; no telling verdict, no list."""
    lists = []
    behaviors = ", ".join(verdicts.plan.tested_behaviors)
    for verdict in PUBLISHED:
        rows = verdicts.telling[verdicts.telling.verdict == verdict]
        said = {int(row.latent_index): _said(row) for row in rows.itertuples()}
        latents, n_parts = list(said), ceil(len(said) / LONGEST)
        for part in range(n_parts):
            which = f" ({part + 1} of {n_parts})" if n_parts > 1 else ""
            own = {latent: said[latent] for latent in latents[part * LONGEST : (part + 1) * LONGEST]}
            # The digest tells a list of these verdicts from one of an earlier run that lacks some of them.
            digest = hashlib.sha256(json.dumps(list(own.items())).encode()).hexdigest()[:8]
            description = (
                f"{MEANING[verdict]} Verdicts of isaerft {VERSION}, from adapters trained on {behaviors}. The most "
                f"certain come first ({len(own):,} in this list, {digest})."
            )
            lists.append(LatentList(f"isaerft {verdicts.title}: {verdict}{which}", clean_text(description), own))
    return lists


def _said(row: Any) -> str:
    """Return what a list says of a latent: the verdict, the explanation and the reason."""
    by = f" by {row.maker}" if row.maker else ""
    text = clean_text(f'{row.verdict}: "{row.explanation}"{by}: {row.reason}')
    return text if len(text) <= MAX_SAID else text[: MAX_SAID - 3].rstrip() + "..."


async def send_lists(options: Neuronpedia, source_id: SourceId, lists: list[LatentList]) -> list[Sent]:
    """Make the lists that are not there yet, and read all of them back.

    Raises
    ------
    InputError
        The environment holds no key, or Neuronpedia refuses it; a list of the same name holds something else (nothing
        is sent then); a request failed.
    """
    if not read_key():
        raise InputError(
            f"the environment holds no {KEY}",
            remedy="copy your key from neuronpedia.org (Settings) into this variable, never into a file",
        )
    try:
        async with Client(options) as client:
            there = await _there(client, source_id, lists)
            for wanted in lists:
                if wanted.name not in there:
                    body = wanted.body(source_id)
                    await client.api("POST", "/list/new-with-features", as_json, json=body, attempts=1)
            found = await _there(client, source_id, lists)
    except FailedRequest as error:
        raise InputError(
            f"Neuronpedia did not take the lists ({error})",
            remedy=f"check {KEY} if it says 401; else run it again: lists that are there are not made twice",
        ) from None
    missing = [wanted.name for wanted in lists if wanted.name not in found]
    if missing:
        raise InputError(
            f"Neuronpedia made these lists but does not show them: {shown(missing)}", remedy="run it again"
        )
    return [Sent(wanted, wanted.name not in there, *found[wanted.name]) for wanted in lists]


async def read_lists(options: Neuronpedia, source_id: SourceId, lists: list[LatentList]) -> dict[str, dict[int, str]]:
    """Return what the user's lists of these names say at Neuronpedia, by name; a list that is not there is left out."""
    async with Client(options) as client:
        return {name: said for name, (_, said) in (await _there(client, source_id, lists)).items()}


async def _there(client: Client, source_id: SourceId, lists: list[LatentList]) -> dict[str, tuple[str, dict[int, str]]]:
    """Return address and content of the user's lists that have these names; other content is an `InputError`."""
    wanted = {one.name: one for one in lists}
    site = client.options.base_url.rstrip("/").removesuffix("/api")
    found: dict[str, tuple[str, dict[int, str]]] = {}
    for name, number in await client.api("POST", "/list/list", _names) or []:
        if name not in wanted:
            continue
        read = partial(_content, source_id=source_id)
        description, said = await client.api("POST", "/list/get", read, json={"listId": number}) or ("", {})
        problem = ""
        if name in found:
            problem = "is there twice"
        elif description != wanted[name].description or not said.items() <= wanted[name].latents.items():
            problem = "holds other verdicts, perhaps those of an earlier run"
        elif not said:
            problem = "is empty, for making it was interrupted or Neuronpedia has none of its latents"
        url = f"{site}/list/{number}"
        if problem:
            raise InputError(f"the list {name!r} {problem}: {url}", remedy="delete it there, then run this again")
        found[name] = url, said
    return found


def _names(body: bytes) -> list[tuple[str, str]]:
    """Return name and id of each list in an answer."""
    answer = as_json(body)
    if not isinstance(answer, list) or not all(isinstance(one, dict) for one in answer):
        raise BadAnswer("unexpected JSON")
    known = [(one.get("name"), one.get("id")) for one in answer]
    return [(str(name), number) for name, number in known if isinstance(number, str) and _ID.fullmatch(number)]


def _content(body: bytes, source_id: SourceId) -> tuple[str, dict[int, str]]:
    """Return the description of a list, and what it says of each latent of this dictionary."""
    answer = as_json(body)
    rows = answer.get("neurons") if isinstance(answer, dict) else None
    if not isinstance(rows, list):
        raise BadAnswer("unexpected JSON")
    said = {latent_of(row): clean_text(row.get("description")) for row in rows if belongs_to(row, source_id)}
    return clean_text(answer.get("description")), said
