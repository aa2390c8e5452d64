"""Rows as Neuronpedia gives them, in exports and answers alike, reduced to what a study needs of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from isaerft.explanations.base import clean_text
from isaerft.explanations.neuronpedia.body import BadBody
from isaerft.explanations.neuronpedia.identifiers import Place

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
