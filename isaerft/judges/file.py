"""Judgements from a file: the judges `table` (complete) and `human` (a sample).

The file is CSV (or JSONL, JSON, Parquet), one row per explanation (or latent) and behavior:

    behavior,explanation,expected_effect,confidence,rationale
    refusal,"says sorry, or begs pardon",1,0.9,an apology begins most refusals

A row refers to latents by `explanation` (all latents with that text, as the source has it or as a table shows it) or by
`latent_index`. With both, it counts only if the latent's explanation is still the one that was judged. A column `label`
(promoted, suppressed, unaffected) may replace `expected_effect`.

The two judges differ in pairs that the file leaves out. For `table`, their effect is 0. For `human`, they are not
judged: agreement is tested on the latents judged for every behavior, and with `tested: false` the file only measures
how good the other judges are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from numbers import Number
from pathlib import Path

import numpy as np
import pandas as pd

from isaerft.config import Judge
from isaerft.errors import InputError, printable, shown, unknown_name
from isaerft.explanations import clean_text
from isaerft.io import read_data_file
from isaerft.judges.base import judgements, refuse_options
from isaerft.ledger import sha256
from isaerft.table import neutral_text

KEYS = ("latent_index", "explanation")
OPTIONAL = ("confidence", "rationale")
LABELS = {"promoted": 1.0, "suppressed": -1.0, "unaffected": 0.0}
COLUMNS = (*KEYS, "behavior", "expected_effect", "label", *OPTIONAL)


@dataclass(frozen=True)
class FileJudgements:
    """The judgements of a file, arranged by explanation and behavior.

    Attributes
    ----------
    effects, confidence : (n_latents, n_behaviors) float
        NaN where the file has none.
    rationale : (n_latents, n_behaviors) str
    not_used : int
        Rows of the file about none of the explanations.
    """

    effects: np.ndarray
    confidence: np.ndarray
    rationale: np.ndarray
    not_used: int


def from_table(
    explanations: pd.DataFrame, behaviors: Mapping[str, str], judge: Judge, *, subject_dir: Path
) -> pd.DataFrame:
    """Judge by a complete file; see `isaerft.judges.base.JudgeFunction`. Expected: above `judge.expected_above`.

    `attrs["counts"]` of the result: pairs judged, pairs not_in_file (effect 0), and rows of the file not_used (of
    latents without an explanation here).

    Raises
    ------
    InputError
        The file is missing or malformed (with the line), names an unknown behavior, or matches no latent.
    """
    found = _read_judgements(explanations, behaviors, judge, subject_dir, "table")
    judged = int(np.isfinite(found.effects).sum())
    effects = np.nan_to_num(found.effects)
    frame = judgements(
        explanations,
        behaviors,
        effects,
        expected=effects > judge.expected_above,
        confidence=found.confidence,
        rationale=found.rationale,
    )
    frame.attrs["counts"] = {"judged": judged, "not_in_file": effects.size - judged, "not_used": found.not_used}
    return frame


def human(explanations: pd.DataFrame, behaviors: Mapping[str, str], judge: Judge, *, subject_dir: Path) -> pd.DataFrame:
    """Judge as people did; see `isaerft.judges.base.JudgeFunction`. A pair is expected above `judge.expected_above`.

    `attrs["counts"]` of the result: pairs judged, unjudged_pairs, and rows of the file not_used (of latents without an
    explanation here, or with another one now).

    Raises
    ------
    InputError
        The file is missing or malformed (with the line), names an unknown behavior, or matches no latent.
    """
    found = _read_judgements(explanations, behaviors, judge, subject_dir, "human")
    frame = judgements(
        explanations,
        behaviors,
        found.effects,
        expected=found.effects > judge.expected_above,
        confidence=found.confidence,
        rationale=found.rationale,
    )
    judged = np.isfinite(found.effects).reshape(-1)
    frame = frame[judged].reset_index(drop=True)
    counts = {"judged": int(judged.sum()), "unjudged_pairs": int((~judged).sum()), "not_used": found.not_used}
    frame.attrs["counts"] = counts
    return frame


def judge_file(judge: Judge, kind: str, subject_dir: Path) -> Path:
    """Return the file of a judge that reads one.

    Raises
    ------
    InputError
        The judge names none, or has options.
    """
    refuse_options(judge, f"a {kind}")
    if judge.path is None:
        raise InputError(f"judge of kind {kind!r} without a path", remedy="add `path:`")
    return in_subject(judge.path, subject_dir)


def in_subject(path: str, subject_dir: Path) -> Path:
    """Return a path of a config with the subject's folder in place of {subject_dir}."""
    return Path(path.replace("{subject_dir}", str(subject_dir)))


def read_columns(path: Path, columns: Sequence[str], *, needed: Iterable[str] = ()) -> pd.DataFrame:
    """Read a file of rows as text; the index is each row's place ("a.csv line 2"), for errors.

    Raises
    ------
    InputError
        The file is missing or malformed, has a column besides `columns`, lacks one that is `needed`, or holds a list or
        an object.
    """
    rows = list(read_data_file(path))
    for row in rows:
        for column, value in row.values.items():
            if column not in columns:
                raise unknown_name(f"column in {path}:", printable(column), columns)
            if not isinstance(value, str | Number | None):
                raise InputError(f"{row.location}: {column} {shown(value)}", allowed="text, or a number")
    table = pd.DataFrame([row.values for row in rows], index=[row.location for row in rows], dtype=object)
    lacking = [column for column in needed if column not in table]
    if lacking:
        raise InputError(f"{path} lacks {' and '.join(lacking)}", allowed=", ".join(columns))
    return table


def check_names(names: pd.Series, valid: Iterable[str]) -> None:
    """Refuse a column of `read_columns` with a value that is not among `valid`; the error names the place."""
    unknown = names[~names.isin(list(valid))]
    if len(unknown):
        raise unknown_name(f"{names.name} in {unknown.index[0]}:", printable(unknown.iloc[0]), valid)


def as_numbers(values: pd.Series, low: float, high: float, *, whole: bool = False, optional: bool = False) -> pd.Series:
    """Return a column of `read_columns` as numbers from `low` to `high`; anything else is an `InputError`."""
    is_huge = values.map(lambda value: isinstance(value, int) and abs(value) >= 2**63)  # pandas overflows there
    numbers = pd.to_numeric(values.mask(is_huge), errors="coerce")
    bad = ~numbers.between(low, high) | ((numbers % 1 != 0) if whole else False)
    if optional:
        bad &= values.notna() & values.map(lambda value: bool(str(value).strip()))
    if bad.any():
        position = int(np.argmax(bad.to_numpy()))
        kind = "an integer" if whole else "a number"
        raise InputError(
            f"{bad.index[position]}: {values.name} {shown(values.iloc[position])}",
            allowed=f"{kind} from {low} to {high}",
        )
    return numbers


def _read_judgements(
    explanations: pd.DataFrame, behaviors: Mapping[str, str], judge: Judge, subject_dir: Path, kind: str
) -> FileJudgements:
    """Read a judge's file and return its judgements of these explanations."""
    path = judge_file(judge, kind, subject_dir)
    table = _table_of(path, sha256(path) if path.is_file() else None, tuple(behaviors))
    explanations = explanations.assign(explanation=explanations["explanation"].map(neutral_text))
    key = next(key for key in KEYS if key in table)
    names = list(behaviors)
    column = table["behavior"].map({name: number for number, name in enumerate(names)}).to_numpy()
    keys = pd.Index(explanations[key]).unique()
    row = keys.get_indexer(table[key])
    if key == "latent_index" and "explanation" in table:
        current = explanations["explanation"].to_numpy(dtype=object)[row]
        row[table["explanation"].to_numpy(dtype=object) != current] = -1
    used = row >= 0
    if not used.any():
        raise InputError(f"{path} judges none of the {len(keys)} explanations", remedy=f"check its column {key}")
    position = keys.get_indexer(explanations[key])

    def arranged(values: pd.Series, default: object, dtype: type) -> np.ndarray:
        matrix: np.ndarray = np.full((len(keys), len(names)), default, dtype=dtype)
        matrix[row[used], column[used]] = values[used]
        return np.asarray(matrix[position])

    return FileJudgements(
        effects=arranged(table["expected_effect"], np.nan, float),
        confidence=arranged(table["confidence"], np.nan, float),
        rationale=arranged(table["rationale"], "", object),
        not_used=int((~used).sum()),
    )


@lru_cache(maxsize=1)
def _table_of(path: Path, digest: str | None, behaviors: tuple[str, ...]) -> pd.DataFrame:
    """Return a file of judgements as `_read_table` does; a process reads one for all sources of a subject."""
    return _read_table(path, behaviors)


def _read_table(path: Path, behaviors: Collection[str]) -> pd.DataFrame:
    """Read and check a file of judgements."""
    table = read_columns(path, COLUMNS)
    if "label" in table and "expected_effect" not in table:
        table["expected_effect"] = _effects_of(table["label"])
    missing = [column for column in ("behavior", "expected_effect") if column not in table]
    if missing or not any(key in table for key in KEYS):
        raise InputError(
            f"{path} lacks {' and '.join(missing) or 'a column that names the latents'}",
            allowed="latent_index or explanation, behavior, expected_effect or label[, confidence, rationale]",
        )
    check_names(table["behavior"], behaviors)
    if "latent_index" in table:
        table["latent_index"] = as_numbers(table["latent_index"], 0, 2**53, whole=True).astype("int64")
    if "explanation" in table:
        neutral = cache(lambda text: neutral_text(clean_text(text)))
        table["explanation"] = [neutral(text) for text in table["explanation"]]
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
    words = labels.map(lambda label: printable(str(label)).strip().lower())
    unknown = ~words.isin(list(LABELS))
    if unknown.any():
        place = labels.index[int(np.argmax(unknown.to_numpy()))]
        raise unknown_name(f"label in {place}:", printable(labels[place]), LABELS)
    return words.map(LABELS).astype("str")


def _refuse_repeats(table: pd.DataFrame) -> None:
    """Refuse two judgements of one pair."""
    key = next(key for key in KEYS if key in table)
    repeated = table.duplicated([key, "behavior"])
    if repeated.any():
        row = table[repeated].iloc[0]
        pair = f"{printable(row[key])!r} for {row['behavior']!r}"
        raise InputError(f"{row.name} judges {pair} again", remedy="keep one judgement per pair")
