"""Which source at Neuronpedia holds the explanations of an SAE.

>>> place = parse_place("gemma-2-2b/20-gemmascope-res-16k")
>>> page_url(place, 353, "https://www.neuronpedia.org/api")
'https://www.neuronpedia.org/gemma-2-2b/20-gemmascope-res-16k/353'
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from isaerft.errors import InputError, shown
from isaerft.files import read_json

# SAELens' directory gives the embedding layer of pythia-70m-deduped-res-sm a source that does not exist.
MENDED = {"pythia-70m-deduped/e-att-sm": "pythia-70m-deduped/e-res-sm"}
_ID = re.compile(r"(?P<model>[A-Za-z0-9][A-Za-z0-9._-]*)/(?P<layer>[A-Za-z0-9][A-Za-z0-9._-]*)")


class Place(NamedTuple):
    """A source at Neuronpedia: the model's id, and the SAE's, which Neuronpedia's JSON calls `layer`."""

    model: str
    layer: str


def parse_place(source_id: str) -> Place:
    """Split `{model}/{layer}`; what is neither is an `InputError`."""
    match = _ID.fullmatch(MENDED.get(source_id, source_id))
    if match is None:
        raise InputError(
            f"Neuronpedia source {shown(source_id)}",
            allowed="{model}/{layer}, such as gemma-2-2b/20-gemmascope-res-16k",
        )
    return Place(match["model"], match["layer"])


def place_of(source_id: str | None, subject_dir: Path) -> Place:
    """Return the source that the config names or, where it names none, the one in the metadata of the subject's SAE.

    Raises
    ------
    InputError
        Neither names one, or the name is malformed.
    """
    if source_id is None:
        card = read_json(subject_dir / "sae" / "cfg.json")
        metadata = card.get("metadata") if isinstance(card, dict) else None
        source_id = metadata.get("neuronpedia_id") if isinstance(metadata, dict) else None
    if not isinstance(source_id, str) or not source_id:
        raise InputError(
            f"the SAE in {str(subject_dir)!r} does not say which source at Neuronpedia explains it",
            remedy="add `neuronpedia: {source_id: MODEL/LAYER}` to the explanation source",
        )
    return parse_place(source_id)


def page_url(place: Place, latent: int, base_url: str) -> str:
    """Return the address of a latent's page, which stands beside the API."""
    return f"{base_url.rstrip('/').removesuffix('/api')}/{place.model}/{place.layer}/{latent}"
