"""The table judge: judgements from a CSV file, made by people, by another program, or known to be true.

    behavior,explanation,expected_effect,confidence,rationale
    refusal,"says sorry, or begs pardon",1,0.9,an apology begins most refusals

A row names its latents by `explanation` (every latent with that text) or by `latent_index`; with both, it holds only
where the latent's explanation is still the one judged. Pairs that the file leaves out have effect 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from isaerft.behaviors.rows import printable, read_rows_of
from isaerft.config import Judge
from isaerft.errors import InputError, shown, unknown_name
from isaerft.explanations import clean_text
from isaerft.registry import JUDGES
from isaerft.relevance.base import EXPECTED_ABOVE, judgements

KEYS = ("latent_index", "explanation")
OPTIONAL = ("confidence", "rationale")
KNOWN = (*KEYS, "behavior", "expected_effect", *OPTIONAL)


@JUDGES("table")
def from_table(
    explanations: pd.DataFrame, behaviors: Mapping[str, str], judge: Judge, *, subject_dir: Path
) -> pd.DataFrame:
    """Judge as a file says; see `isaerft.relevance.base.RelevanceJudge`. A pair is expected above an effect of 0.5.

    `attrs["counts"]` of the result: pairs judged, pairs not_in_file (effect 0), and rows of the file not_used (of
    latents that have no explanation here).

    Raises
    ------
    InputError
        The file is missing or breaks its form (with the line), names an unknown behavior, or fits no latent.
    """
    for option in judge.options:
        raise unknown_name("option of a table judge:", option, ())
    if judge.path is None:
        raise InputError("judge of kind 'table' without a path", remedy="add `path:`")
    path = Path(judge.path.replace("{subject_dir}", str(subject_dir)))
    table = _read(path, behaviors)
    key = next(key for key in KEYS if key in table)
    names = list(behaviors)
    column = table["behavior"].map({name: number for number, name in enumerate(names)}).to_numpy()
    keys = pd.Index(explanations[key]).unique()
    row = keys.get_indexer(table[key])
    if key == "latent_index" and "explanation" in table:
        judged_text = explanations["explanation"].to_numpy(dtype=object)[row]
        row[table["explanation"].to_numpy(dtype=object) != judged_text] = -1
    used = row >= 0
    if not used.any():
        raise InputError(f"{path} judges none of the {len(keys)} explanations", remedy=f"check its column {key}")
    position = keys.get_indexer(explanations[key])

    def spread(values: pd.Series, default: object, dtype: object) -> np.ndarray:
        matrix = np.full((len(keys), len(names)), default, dtype=dtype)
        matrix[row[used], column[used]] = values[used]
        return matrix[position]

    effects = spread(table["expected_effect"], 0.0, float)
    frame = judgements(
        explanations,
        behaviors,
        effects,
        expected=effects > EXPECTED_ABOVE,
        confidence=spread(table["confidence"], np.nan, float),
        rationale=spread(table["rationale"], "", object),
    )
    judged = int(spread(pd.Series(True, index=table.index), False, bool).sum())
    frame.attrs["counts"] = {"judged": judged, "not_in_file": effects.size - judged, "not_used": int((~used).sum())}
    return frame


def _read(path: Path, behaviors: Mapping[str, str]) -> pd.DataFrame:
    """Read and check a file of judgements; the index says where each row stands, for errors."""
    rows = list(read_rows_of(path))
    table = pd.DataFrame([row.values for row in rows], index=[row.place for row in rows], dtype=object)
    for column in table:
        if column not in KNOWN:
            raise unknown_name(f"column in {path}:", printable(column), KNOWN)
    missing = [column for column in ("behavior", "expected_effect") if column not in table]
    if missing or not any(key in table for key in KEYS):
        raise InputError(
            f"{path} lacks {' and '.join(missing) or 'a column that names the latents'}",
            allowed="latent_index or explanation, behavior, expected_effect[, confidence, rationale]",
        )
    unknown = table.loc[~table["behavior"].isin(list(behaviors)), "behavior"]
    if len(unknown):
        raise unknown_name(f"behavior in {unknown.index[0]}:", unknown.iloc[0], behaviors)
    if "latent_index" in table:
        table["latent_index"] = _numbers(table["latent_index"], 0, 2**53, whole=True).astype("int64")
    if "explanation" in table:
        table["explanation"] = [clean_text(text) for text in table["explanation"]]
    table["expected_effect"] = _numbers(table["expected_effect"], -1, 1)
    for column in OPTIONAL:
        if column not in table:
            table[column] = ""
    table["confidence"] = _numbers(table["confidence"], 0, 1, optional=True)
    table["rationale"] = table["rationale"].fillna("")
    _refuse_repeats(table)
    return table


def _numbers(values: pd.Series, low: float, high: float, *, whole: bool = False, optional: bool = False) -> pd.Series:
    """Return text as numbers between `low` and `high`; anything else is an `InputError` with its place."""
    numbers = pd.to_numeric(values, errors="coerce")
    bad = ~numbers.between(low, high) | ((numbers % 1 != 0) if whole else False)
    if optional:
        bad &= values.notna() & (values.astype("str").str.strip() != "")
    if bad.any():
        position = int(np.argmax(bad.to_numpy()))
        kind = "an integer" if whole else "a number"
        raise InputError(
            f"{bad.index[position]}: {values.name} {shown(values.iloc[position])}",
            allowed=f"{kind} from {low} to {high}",
        )
    return numbers


def _refuse_repeats(table: pd.DataFrame) -> None:
    """Refuse two judgements of one pair."""
    key = next(key for key in KEYS if key in table)
    repeated = table.duplicated([key, "behavior"])
    if repeated.any():
        row = table[repeated].iloc[0]
        given = f"{printable(row[key])!r} for {row['behavior']!r}"
        raise InputError(f"{row.name} judges {given} again", remedy="leave one judgement per pair")
