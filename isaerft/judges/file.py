"""Files of judgements: CSV, each row an explanation (or a latent), a behavior, and what one expects.

    behavior,explanation,expected_effect,confidence,rationale
    refusal,"says sorry, or begs pardon",1,0.9,an apology begins most refusals

A row names its latents by `explanation` (every latent with that text) or by `latent_index`; with both, it holds only
where the latent's explanation is still the one judged. In place of `expected_effect` a column `label` may say promoted,
suppressed or unaffected.

The table judge: a file that judges every pair, made by another program or known to be true.

Its form is that of `isaerft.judgements.judgement_file`. Pairs that the file leaves out have effect 0.

The human judge: what people said of some pairs of explanation and behavior, from a file.

Its form is that of `isaerft.judgements.judgement_file`. People judge a sample: a pair that the file leaves out is not
judged, where a `table` judge calls it unaffected. Agreement is tested on the latents judged for every behavior; with
`tested: false` the file only says how well the other judges do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from isaerft.config import Judge
from isaerft.errors import InputError, printable, shown, unknown_name
from isaerft.explanations import clean_text
from isaerft.io import read_data_file
from isaerft.judges.base import EXPECTED_ABOVE, judgements

KEYS = ("latent_index", "explanation")
OPTIONAL = ("confidence", "rationale")
LABELS = {"promoted": 1.0, "suppressed": -1.0, "unaffected": 0.0}
KNOWN = (*KEYS, "behavior", "expected_effect", "label", *OPTIONAL)


@dataclass(frozen=True)
class Judged:
    """What a file says of some explanations.

    Attributes
    ----------
    effects, confidence : (n_latents, n_behaviors) float
        NaN where the file says nothing.
    rationale : (n_latents, n_behaviors) str
    not_used : int
        Rows of the file that speak of none of the explanations.
    """

    effects: np.ndarray
    confidence: np.ndarray
    rationale: np.ndarray
    not_used: int


def read_judged(
    explanations: pd.DataFrame, behaviors: Mapping[str, str], judge: Judge, subject_dir: Path, kind: str
) -> Judged:
    """Read what the file of a judge says of these explanations.

    Raises
    ------
    InputError
        The file is missing or breaks its form (with the line), names an unknown behavior, or fits no latent.
    """
    for option in judge.options:
        raise unknown_name(f"option of a {kind} judge:", option, ())
    if judge.path is None:
        raise InputError(f"judge of kind {kind!r} without a path", remedy="add `path:`")
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

    return Judged(
        effects=spread(table["expected_effect"], np.nan, float),
        confidence=spread(table["confidence"], np.nan, float),
        rationale=spread(table["rationale"], "", object),
        not_used=int((~used).sum()),
    )


def _read(path: Path, behaviors: Mapping[str, str]) -> pd.DataFrame:
    """Read and check a file of judgements; the index says where each row stands, for errors."""
    rows = list(read_data_file(path))
    table = pd.DataFrame([row.values for row in rows], index=[row.location for row in rows], dtype=object)
    for column in table:
        if column not in KNOWN:
            raise unknown_name(f"column in {path}:", printable(column), KNOWN)
    if "label" in table and "expected_effect" not in table:
        table["expected_effect"] = _effects_of(table["label"])
    missing = [column for column in ("behavior", "expected_effect") if column not in table]
    if missing or not any(key in table for key in KEYS):
        raise InputError(
            f"{path} lacks {' and '.join(missing) or 'a column that names the latents'}",
            allowed="latent_index or explanation, behavior, expected_effect or label[, confidence, rationale]",
        )
    unknown = table.loc[~table["behavior"].isin(list(behaviors)), "behavior"]
    if len(unknown):
        raise unknown_name(f"behavior in {unknown.index[0]}:", unknown.iloc[0], behaviors)
    if "latent_index" in table:
        table["latent_index"] = as_numbers(table["latent_index"], 0, 2**53, whole=True).astype("int64")
    if "explanation" in table:
        table["explanation"] = [clean_text(text) for text in table["explanation"]]
    table["expected_effect"] = as_numbers(table["expected_effect"], -1, 1)
    for column in OPTIONAL:
        if column not in table:
            table[column] = ""
    table["confidence"] = as_numbers(table["confidence"], 0, 1, optional=True)
    table["rationale"] = table["rationale"].fillna("")
    _refuse_repeats(table)
    return table


def _effects_of(labels: pd.Series) -> pd.Series:
    """Return labels as effects; an unknown one is an `InputError` with its place."""
    words = labels.astype("str").str.strip().str.lower()
    unknown = ~words.isin(list(LABELS))
    if unknown.any():
        place = labels.index[int(np.argmax(unknown.to_numpy()))]
        raise unknown_name(f"label in {place}:", printable(labels[place]), LABELS)
    return words.map(LABELS).astype("str")


def as_numbers(values: pd.Series, low: float, high: float, *, whole: bool = False, optional: bool = False) -> pd.Series:
    """Return text as numbers between `low` and `high`; anything else is an `InputError` with its place (the index)."""
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


def from_table(
    explanations: pd.DataFrame, behaviors: Mapping[str, str], judge: Judge, *, subject_dir: Path
) -> pd.DataFrame:
    """Judge as a file says; see `isaerft.judges.base.RelevanceJudge`. A pair is expected above an effect of 0.5.

    `attrs["counts"]` of the result: pairs judged, pairs not_in_file (effect 0), and rows of the file not_used (of
    latents that have no explanation here).

    Raises
    ------
    InputError
        The file is missing or breaks its form (with the line), names an unknown behavior, or fits no latent.
    """
    said = read_judged(explanations, behaviors, judge, subject_dir, "table")
    judged = int(np.isfinite(said.effects).sum())
    effects = np.nan_to_num(said.effects)
    frame = judgements(
        explanations,
        behaviors,
        effects,
        expected=effects > EXPECTED_ABOVE,
        confidence=said.confidence,
        rationale=said.rationale,
    )
    frame.attrs["counts"] = {"judged": judged, "not_in_file": effects.size - judged, "not_used": said.not_used}
    return frame


def human(explanations: pd.DataFrame, behaviors: Mapping[str, str], judge: Judge, *, subject_dir: Path) -> pd.DataFrame:
    """Judge as people did; see `isaerft.judges.base.RelevanceJudge`. A pair is expected above an effect of 0.5.

    `attrs["counts"]` of the result: pairs judged, unjudged_pairs, and rows of the file not_used (of latents that have
    no explanation here, or another one by now).

    Raises
    ------
    InputError
        The file is missing or breaks its form (with the line), names an unknown behavior, or fits no latent.
    """
    said = read_judged(explanations, behaviors, judge, subject_dir, "human")
    frame = judgements(
        explanations,
        behaviors,
        said.effects,
        expected=said.effects > EXPECTED_ABOVE,
        confidence=said.confidence,
        rationale=said.rationale,
    )
    judged = np.isfinite(said.effects).reshape(-1)
    frame = frame[judged].reset_index(drop=True)
    counts = {"judged": int(judged.sum()), "unjudged_pairs": int((~judged).sum()), "not_used": said.not_used}
    frame.attrs["counts"] = counts
    return frame
