"""The tables of results/{study}/tables/: their columns, their types, and the only code that reads or writes them.

CSV, UTF-8, one header row, no index column, columns in the order given here. Undefined is an empty field, never 0.

>>> from isaerft.tables import TABLES
>>> [column.name for column in TABLES["subjects"]][:3]
['subject', 'model', 'release']
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from isaerft.errors import InputError, unknown_name
from isaerft.io import replacing

FLOAT_FORMAT = "%.6g"
MAX_TEXT = 2000
_FORMULA = re.compile(r"[=+\-@\uff1d\uff0b\uff0d\uff20]")
# Control characters, text direction marks, zero-width space, byte-order mark, surrogates that UTF-8 cannot hold, and
# tags, which spell a second text that only a language model reads.
CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
_JOINERS = "\u200c\u200d\u2060"
_DTYPES = {"text": "string", "int": "Int64", "float": "float64", "bool": "boolean"}


@dataclass(frozen=True)
class Column:
    """One column: its name, its kind (text, int, float, bool), and whether an empty field is allowed."""

    name: str
    kind: str
    optional: bool = False


def _columns(spec: str) -> tuple[Column, ...]:
    """Parse 'name:kind name:kind?' where a final ? marks a field that may be empty."""
    return tuple(
        Column(name, kind.rstrip("?"), kind.endswith("?")) for name, kind in (word.split(":") for word in spec.split())
    )


TABLES: dict[str, tuple[Column, ...]] = {
    "subjects": _columns(
        "subject:text model:text release:text? sae_id:text? hook_name:text d_in:int d_sae:int variance_explained:float?"
        " l0:float? n_alive:int n_dense:int loss_base:float? loss_spliced:float?"
    ),
    "training": _columns(
        "subject:text behavior:text adapter:text objective:text seed:int n_parameters:int steps:int tokens:int"
        " heldout_loss_base:float heldout_loss_adapted:float reference:text? loss_recovered:float? seconds:float?"
    ),
    "most_changed_latents": _columns(
        "subject:text behavior:text adapter:text measure:text rank:int latent_index:int change:float pvalue:float?"
        " qvalue:float? direction:text firing_rate:float source:text? explanation:text? judge:text?"
        " expected_effect:float? verdict:text? url:text?"
    ),
    "agreement": _columns(
        "subject:text behavior:text adapter:text measure:text source:text judge:text control:text statistic:text"
        " estimate:float? ci_low:float? ci_high:float? pvalue:float? qvalue:float? n_latents:int n_expected:int?"
        " n_seeds:int n_resamples:int? noise_ceiling:float? minimum_detectable_effect:float? primary:bool"
    ),
    "seeds": _columns(
        "subject:text behavior:text adapter:text measure:text n_seeds:int reliability_single:float? reliability:float?"
        " split_half:float? seeds:text? statistic:text estimate:float? ci_low:float? ci_high:float?"
        " share_of_ceiling:float?"
    ),
    "specificity": _columns(
        "subject:text adapter:text measure:text source:text judge:text trained_on:text judged_for:text estimate:float?"
    ),
    "overall": _columns(
        "subject:text adapter:text measure:text source:text judge:text quantity:text statistic:text estimate:float?"
        " ci_low:float? ci_high:float? pvalue:float? qvalue:float? leave_one_out_low:float? leave_one_out_high:float?"
        " n_behaviors:int primary:bool"
    ),
    "source_comparison": _columns(
        "subject:text adapter:text measure:text judge:text quantity:text statistic:text rank:int? source:text side:text"
        " n_latents:int n_behaviors:int n_expected:float? estimate:float? ci_low:float? ci_high:float? rival:text?"
        " difference:float? difference_ci_low:float? difference_ci_high:float?"
    ),
    "coverage": _columns(
        "subject:text source:text design:text n_asked:int n_explained:int n_unlabelled:int n_failed:int coverage:float?"
    ),
    "explanation_verdicts": _columns(
        "subject:text source:text judge:text latent_index:int explanation:text n_behaviors:int score:float?"
        " pvalue:float? qvalue:float? expected_score:float? power:float? contradiction_pvalue:float?"
        " contradiction_qvalue:float? verdict:text reason:text"
    ),
    "causal_check": _columns(
        "subject:text behavior:text adapter:text k:int latents:text loss_recovered:float? ci_low:float? ci_high:float?"
    ),
    "diagnostics": _columns("subject:text behavior:text adapter:text seed:int quantity:text value:float?"),
    "judge_quality": _columns(
        "subject:text source:text judge:text against:text statistic:text estimate:float? ci_low:float? ci_high:float?"
        " n_explanations:int n_latents:int n_judgements:int"
    ),
    "corrected_agreement": _columns(
        "subject:text behavior:text adapter:text measure:text source:text judge:text against:text statistic:text"
        " estimate:float? corrected:float? ci_low:float? ci_high:float? sensitivity:float? specificity:float?"
        " correlation:float?"
    ),
    "explanation_scores": _columns(
        "subject:text source:text scorer:text score:text latent_index:int n_items:int value:float? floor:float?"
    ),
    "explanation_quality": _columns(
        "subject:text source:text scorer:text score:text n_explanations:int n_failed:int mean:float? ci_low:float?"
        " ci_high:float? floor:float?"
    ),
    "agreement_by_quality": _columns(
        "subject:text source:text judge:text scorer:text score:text quality:text n_latents:int n_expected:int"
        " n_behaviors:int estimate:float? ci_low:float? ci_high:float?"
    ),
    "behavior_check": _columns(
        "subject:text behavior:text adapter:text score:text n_prompts:int before:float after:float ci_low:float?"
        " ci_high:float? target:float n_seeds:int"
    ),
    "audit": _columns(
        "subject:text audit:text adapter:text measure:text source:text judge:text rank:int? behavior:text"
        " estimate:float? ci_low:float? ci_high:float? pvalue:float? qvalue:float? pvalue_rows:float?"
        " pvalue_exchange:float? n_latents:int n_expected:int n_seeds:int primary:bool"
    ),
    "audit_latents": _columns(
        "subject:text audit:text adapter:text measure:text rank:int latent_index:int difference:float statistic:float?"
        " pvalue:float? qvalue:float? firing_rate:float source:text explanation:text? judge:text expected_for:text?"
        " url:text?"
    ),
    "calibration": _columns("quantity:text setting:text value:float? ci_low:float? ci_high:float?"),
}


def columns_of(name: str) -> tuple[Column, ...]:
    """Return the columns of table `name`; an unknown name is an `InputError`."""
    if name not in TABLES:
        raise unknown_name("table", name, TABLES)
    return TABLES[name]


def conform(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Return `frame` with the columns, order and dtypes of table `name`; refuse one that breaks them.

    Raises
    ------
    InputError
        A column is missing or unknown, a required field is empty, or a value does not fit its column's kind.
    """
    columns = columns_of(name)
    if frame.columns.has_duplicates:
        twice = sorted({str(column) for column in frame.columns[frame.columns.duplicated()]})
        raise InputError(f"table {name!r} has columns twice: {twice}", remedy="give each column once")
    missing = [column.name for column in columns if column.name not in frame]
    unknown = [str(column) for column in frame if column not in {column.name for column in columns}]
    if missing or unknown:
        raise InputError(
            f"table {name!r}: missing columns {missing}, unknown columns {unknown}",
            allowed=", ".join(column.name for column in columns),
        )
    result = {}
    for column in columns:
        values = frame[column.name]
        try:
            if column.kind == "text":
                values = values.map(neutral_text, na_action="ignore").replace("", None)
            if column.kind == "float":
                values = pd.to_numeric(values)
            result[column.name] = values.astype(_DTYPES[column.kind])
        except (TypeError, ValueError) as error:
            raise InputError(f"table {name!r}: column {column.name!r} is not {column.kind} ({error})") from None
        empty = result[column.name].isna()
        if empty.any() and not column.optional:
            raise InputError(f"table {name!r}: column {column.name!r} is empty in row {int(np.argmax(empty))}")
        if column.kind == "float" and np.isinf(result[column.name]).any():
            raise InputError(f"table {name!r}: column {column.name!r} holds an infinite value")
    return pd.DataFrame(result)


def write_table(name: str, frame: pd.DataFrame, path: str | Path) -> None:
    """Check `frame` against table `name` and write it as CSV under `path`, atomically."""
    table = conform(name, frame)
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, float_format=FLOAT_FORMAT, lineterminator="\n", quoting=csv.QUOTE_MINIMAL)


def read_table(name: str, path: str | Path) -> pd.DataFrame:
    """Read a CSV written by `write_table` and check it again."""
    dtypes = {column.name: _DTYPES[column.kind] for column in columns_of(name)}
    if not Path(path).is_file():
        raise InputError(f"table {str(path)!r} does not exist", remedy="run the study that makes it")
    try:
        frame = pd.read_csv(path, dtype=dtypes, keep_default_na=False, na_values=[""])
    except (ValueError, pd.errors.ParserError) as error:
        raise InputError(f"{path} is not a {name!r} table ({error})", remedy="make the table again") from None
    return conform(name, frame)


def neutral_text(value: object) -> str:
    """Return text from outside as harmless data: one line, no spreadsheet formula, bounded length.

    Harmless text comes back as it is, so a table that is read and written again keeps its bytes.
    """
    text = CONTROL.sub(" ", str(value)).strip().lstrip(_JOINERS + " ")
    if _FORMULA.match(text):
        text = "'" + text
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 3] + "..."
