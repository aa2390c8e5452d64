"""Which source at Neuronpedia holds the explanations of an SAE.

>>> place = parse_place("gemma-2-2b/20-gemmascope-res-16k")
>>> page_url(place, 353, "https://www.neuronpedia.org/api")
'https://www.neuronpedia.org/gemma-2-2b/20-gemmascope-res-16k/353'

Rows as Neuronpedia gives them, in exports and answers alike, reduced to what a study needs of them.

One explanation of a latent's several, by a stated order that does not depend on how they came.

1. the makers that `prefer` lists, in its order, before all others;
2. those for the very side that is asked for before those for both sides;
3. by maker (explanationModelName/typeName), then by text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from isaerft.errors import InputError, shown
from isaerft.explanations.base import clean_text, ranks_of_makers
from isaerft.explanations.neuronpedia.client import BadBody
from isaerft.io import read_json

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


MAX_DIGITS = 18


class Said(NamedTuple):
    """One explanation of a latent: its text and who made it ("" where not told), all cleaned and bounded."""

    text: str
    model: str
    type: str

    @property
    def maker(self) -> str:
        """explanationModelName/typeName, or the one of them that is known."""
        return "/".join(part for part in (self.model, self.type) if part)


def said_of(row: dict[str, Any]) -> Said:
    """Return the explanation in a row of JSON."""
    return Said(*(clean_text(row.get(name)) for name in ("description", "explanationModelName", "typeName")))


def is_of(row: Any, place: Place) -> bool:
    """Return whether a row is an object that speaks of this source.

    Raises
    ------
    BadBody
        It is no object at all.
    """
    if not isinstance(row, dict):
        raise BadBody("JSON of another shape")
    return row.get("modelId") == place.model and row.get("layer") == place.layer


def index_of(row: dict[str, Any]) -> int:
    """Return a row's latent, which comes as text or as a number.

    Raises
    ------
    BadBody
        It is neither.
    """
    index = row.get("index")
    text = str(index).strip() if isinstance(index, int | str) and not isinstance(index, bool) else ""
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
        raise BadBody("a row without the index of a latent")
    return int(text)


def said_in(row: dict[str, Any]) -> list[Said]:
    """Return the explanations, those with text, that a latent's row holds.

    Raises
    ------
    BadBody
        They are of another shape.
    """
    rows = row.get("explanations")
    if not isinstance(rows, list) or not all(isinstance(one, dict) for one in rows):
        raise BadBody("a latent without a list of explanations")
    return [said for said in map(said_of, rows) if said.text]


def of_rows(rows: Iterable[Any], place: Place) -> Iterator[tuple[int, Said]]:
    """Yield latent and explanation for every row of an export that has text and speaks of this source."""
    for row in rows:
        if is_of(row, place):
            said = said_of(row)
            if said.text:
                yield index_of(row), said


# What a method of explaining reads: where a latent fires, or that and what it promotes. Others: as the config says.
SIDE_OF = {
    "oai_token-act-pair": "input",
    "oai_attention-head": "input",
    "np_max-act": "input",
    "eleuther_acts_top20": "input",
    "np_max-act-logits": "both",
    "np_acts-logits-general": "both",
}


def chosen(said: Iterable[tuple[int, Said]], *, side: str, prefer: Sequence[str]) -> pd.DataFrame:
    """Return latent_index, explanation and side of one explanation for each latent that has one for the side.

    `attrs["counts"]` says how many explanations there were (rows), and how many were for the other side alone
    (other_side) or not chosen (not_chosen).

    Raises
    ------
    InputError
        `prefer` lists no maker that explained any of the latents.
    """
    all_said = list(said)
    frame = pd.DataFrame(
        {
            "latent_index": pd.Series([latent for latent, _ in all_said], dtype="int64"),
            "explanation": [one.text for _, one in all_said],
            "side": [SIDE_OF.get(one.type, side) for _, one in all_said],
            "maker": [one.maker for _, one in all_said],
        }
    )
    frame["rank"] = ranks_of_makers(list(frame["maker"]), prefer)
    fitting = frame[frame["side"].isin([side, "both"]) | (side == "both")]
    best = (
        fitting.assign(other=fitting["side"] != side)
        .sort_values(["latent_index", "rank", "other", "maker", "explanation"], kind="stable")
        .drop_duplicates("latent_index")
    )
    result = best[["latent_index", "explanation", "side"]].reset_index(drop=True)
    result.attrs["counts"] = {
        "rows": len(frame),
        "other_side": len(frame) - len(fitting),
        "not_chosen": len(fitting) - len(best),
    }
    return result
