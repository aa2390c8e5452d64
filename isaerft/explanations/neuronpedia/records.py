"""Parse Neuronpedia's JSON: the source that explains an SAE, a row's explanations, and the choice of one.

>>> source_id = parse_source_id("gemma-2-2b/20-gemmascope-res-16k")
>>> page_url(source_id, 353, "https://www.neuronpedia.org/api")
'https://www.neuronpedia.org/gemma-2-2b/20-gemmascope-res-16k/353'

Rows are the same in exports and in answers of the API. Only the answer about a single latent has the scores that
Neuronpedia publishes for its explanations. Of a latent's several explanations, or those of one `maker`, one is chosen
in a fixed order, independent of the order in which they came:

1. makers listed in `prefer`, in its order, before all others;
2. explanations of the requested side before those of both sides;
3. by maker (explanationModelName/typeName), then by text.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from isaerft.directory import corrected
from isaerft.errors import InputError, printable, shown, unknown_name
from isaerft.explanations.base import clean_text, names_of_maker, ranks_of_makers, sae_metadata
from isaerft.http import BadAnswer

MAX_DIGITS = 18
MAX_SCORE = 1e9
log = logging.getLogger(__name__)
_ID = re.compile(r"(?P<model>[A-Za-z0-9][A-Za-z0-9._-]*)/(?P<layer>[A-Za-z0-9][A-Za-z0-9._-]*)")


class SourceId(NamedTuple):
    """A source at Neuronpedia: ids of the model and of the SAE, which Neuronpedia's JSON calls `layer`."""

    model: str
    layer: str


def parse_source_id(text: str) -> SourceId:
    """Split `{model}/{layer}`; anything else is an `InputError`."""
    match = _ID.fullmatch(corrected(text))
    if match is None:
        raise InputError(
            f"Neuronpedia source {shown(text)}",
            allowed="{model}/{layer}, such as gemma-2-2b/20-gemmascope-res-16k",
        )
    return SourceId(match["model"], match["layer"])


def source_id_of(configured: str | None, subject_dir: Path) -> SourceId:
    """Return the source that the config names or, without one, that in the metadata of the subject's SAE.

    Raises
    ------
    InputError
        Neither names one, or the name is malformed.
    """
    own = sae_metadata(subject_dir).get("neuronpedia_id")
    source_id = own if configured is None else configured
    if not isinstance(source_id, str) or not source_id:
        raise InputError(
            f"the SAE in {str(subject_dir)!r} does not name its source at Neuronpedia",
            remedy="add `neuronpedia: {source_id: MODEL/LAYER}` to the explanation source",
        )
    return parse_source_id(source_id)


def page_url(source_id: SourceId, latent: int, base_url: str) -> str:
    """Return the address of a latent's page, on the site of the API."""
    return f"{base_url.rstrip('/').removesuffix('/api')}/{source_id.model}/{source_id.layer}/{latent}"


class Score(NamedTuple):
    """A score that Neuronpedia publishes: its kind (eleuther_fuzz, ...), the model that gave it, and its value."""

    type: str
    model: str
    value: float


class Explanation(NamedTuple):
    """An explanation: its text and its maker ("" where unknown), cleaned and bounded, and its published scores."""

    text: str
    model: str
    type: str
    scores: tuple[Score, ...] = ()

    @property
    def maker(self) -> str:
        """explanationModelName/typeName, or the known one of them."""
        return "/".join(part for part in (self.model, self.type) if part)


def explanation_of(row: dict[str, Any]) -> Explanation:
    """Return the explanation in a row of JSON, with the scores in it."""
    text, model, kind = (clean_text(row.get(name)) for name in ("description", "explanationModelName", "typeName"))
    return Explanation(text, model, kind, _scores_in(row))


def _scores_in(row: dict[str, Any]) -> tuple[Score, ...]:
    """Return the published scores of an explanation, sorted; what has no name or is no number is left out."""
    given = row.get("scores")
    found = set()
    for one in given if isinstance(given, list) else ():
        if not isinstance(one, dict):
            continue
        kind, model = (clean_text(one.get(f"explanationScore{name}")) for name in ("TypeName", "ModelName"))
        value = one.get("value")
        # NaN and infinity are not below any bound.
        if kind and isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MAX_SCORE:
            found.add(Score(kind, model, float(value)))
    return tuple(sorted(found))


def belongs_to(row: Any, source_id: SourceId) -> bool:
    """Return whether a row is about this source.

    Raises
    ------
    BadAnswer
        It is not an object.
    """
    if not isinstance(row, dict):
        raise BadAnswer("unexpected JSON")
    return row.get("modelId") == source_id.model and row.get("layer") == source_id.layer


def latent_of(row: dict[str, Any]) -> int:
    """Return the latent that a row is about; its index may be text or a number.

    Raises
    ------
    BadAnswer
        There is no valid index.
    """
    index = row.get("index")
    text = str(index).strip() if isinstance(index, int | str) and not isinstance(index, bool) else ""
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
        raise BadAnswer("a row without the index of a latent")
    return int(text)


def explanations_in(row: dict[str, Any]) -> list[Explanation]:
    """Return the explanations with text in a latent's row.

    Raises
    ------
    BadAnswer
        The row has no list of explanations.
    """
    rows = row.get("explanations")
    if not isinstance(rows, list) or not all(isinstance(one, dict) for one in rows):
        raise BadAnswer("a latent without a list of explanations")
    return [explanation for explanation in map(explanation_of, rows) if explanation.text]


def explanations_of_rows(rows: Iterable[Any], source_id: SourceId) -> Iterator[tuple[int, Explanation]]:
    """Yield latent and explanation of every row of an export that has text and is about this source."""
    for row in rows:
        if belongs_to(row, source_id):
            explanation = explanation_of(row)
            if explanation.text:
                yield latent_of(row), explanation


# What each method of explaining reads: where a latent fires, or also what it promotes. Python code predicts
# activations; people see a latent's page, which shows both.
SIDE_OF = {
    "oai_token-act-pair": "input",
    "oai_attention-head": "input",
    "np_max-act": "input",
    "eleuther_acts_top20": "input",
    "python-code": "input",
    "np_max-act-logits": "both",
    "np_moe-max-act-logits": "both",
    "np_acts-logits-general": "both",
    "human": "both",
}


def side_of(explanation: Explanation, sides: Mapping[str, str] = {}) -> str:
    """Return the side that an explanation is about, by `sides` (maker -> side) or `SIDE_OF`; "" if neither says."""
    names = names_of_maker(explanation.maker)
    return next((known[name] for known in (sides, SIDE_OF) for name in names if name in known), "")


def choose(
    explanations: Iterable[tuple[int, Explanation]],
    *,
    side: str,
    prefer: Sequence[str],
    maker: str | None = None,
    sides: Mapping[str, str] = {},
) -> pd.DataFrame:
    """Return one explanation per latent that has any of the side: latent_index, explanation, side, maker.

    Parameters
    ----------
    explanations : iterable of (int, Explanation)
        Latent and explanation.
    side : {"input", "output", "both"}
        The side asked for. It is also assumed of makers whose side nobody knows.
    prefer : sequence of str
        Makers, the best first.
    maker : str, optional
        Take the explanations of this maker only.
    sides : mapping of str to str
        Sides of makers, before what is known of their types.

    Returns
    -------
    DataFrame
        `attrs["counts"]` has the number of explanations (rows), of those by other makers (other_maker), of those only
        about the other side (other_side), of those whose side was assumed (side_assumed), and of those not chosen.

    Raises
    ------
    InputError
        None of these explanations is by `maker`, or by one in `prefer`.
    """
    every = list(explanations)
    rows = [row for row in every if maker is None or maker in names_of_maker(row[1].maker)]
    if every and not rows:
        raise unknown_name("maker of explanations:", maker, {printable(one.maker) for _, one in every} - {""})
    known = [side_of(explanation, sides) for _, explanation in rows]
    assumed = {explanation.maker for (_, explanation), told in zip(rows, known, strict=True) if not told}
    if assumed:
        log.warning(
            "nobody knows which side these makers' explanations are about, so %r is assumed: %s; `neuronpedia: {sides:"
            " {MAKER: input}}` tells it", side, shown(sorted(name or "no maker given" for name in assumed)),
        )  # fmt: skip
    frame = pd.DataFrame(
        {
            "latent_index": pd.Series([latent for latent, _ in rows], dtype="int64"),
            "explanation": [explanation.text for _, explanation in rows],
            "side": [told or side for told in known],
            "maker": [explanation.maker for _, explanation in rows],
        }
    )
    frame["rank"] = ranks_of_makers(list(frame["maker"]), prefer)
    fitting = frame[frame["side"].isin([side, "both"]) | (side == "both")]
    best = (
        fitting.assign(other=fitting["side"] != side)
        .sort_values(["latent_index", "rank", "other", "maker", "explanation"], kind="stable")
        .drop_duplicates("latent_index")
    )
    chosen = best[["latent_index", "explanation", "side", "maker"]].reset_index(drop=True)
    chosen.attrs["counts"] = {
        "rows": len(every),
        "other_maker": len(every) - len(rows),
        "side_assumed": known.count(""),
        "other_side": len(frame) - len(fitting),
        "not_chosen": len(fitting) - len(best),
    }
    return chosen
