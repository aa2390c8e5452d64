"""Tables: a name, a caption, and columns with kinds and meanings; checked, written and read here.

A table is a CSV file in UTF-8 with one header row and no index column. Its columns come in the order in which the
table declares them. An undefined value is an empty field, never 0.

>>> import pandas as pd
>>> table = Table("sizes", "How large each model is.", (Column("model", "text", "Name."), Column("n", "int", "Size.")))
>>> table.conform(pd.DataFrame({"n": [3], "model": ["=gpt"]})).to_dict("records")
[{'model': "'=gpt", 'n': 3}]
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from isaerft.errors import InputError, unknown_name
from isaerft.io import replacing

FLOAT_FORMAT = "%.6g"
MAX_TEXT = 2000
# A sign that begins a formula: at the start of a cell, or after a semicolon, where some spreadsheets split lines.
_SIGN = r"[=+\-@\uff1d\uff0b\uff0d\uff20]"
_FORMULA = re.compile(rf'^(?={_SIGN})|(?<=;)(?=[\s"]*{_SIGN})')
# Control characters, text direction marks, zero-width space, byte-order mark, surrogates that UTF-8 cannot hold, and
# tags, which spell a second text that only a language model reads.
CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
# Invisible characters, dropped at the start of a cell only: within words some languages need them.
_JOINERS = "\xad\u034f\u180e\u200c\u200d\u2060\u2061\u2062\u2063\u2064"

Kind = Literal["text", "int", "float", "bool"]
Role = Literal["", "key", "estimate"]
_DTYPES = {"text": "string", "int": "Int64", "float": "float64", "bool": "boolean"}


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Parameters
    ----------
    name : str
    kind : {"text", "int", "float", "bool"}
    meaning : str
        One line for readers of the table.
    optional : bool
        Whether a field may be empty.
    role : {"", "key", "estimate"}
        key: it says what a row is about. estimate: a result that another seed, SAE or world would give differently.
    chance : float or None
        Value of an estimate that shows nothing; None where it is not known.
    """

    name: str
    kind: Kind
    meaning: str
    optional: bool = False
    role: Role = ""
    chance: float | None = 0.0


@dataclass(frozen=True)
class Table:
    """A table's name, caption and columns.

    Parameters
    ----------
    name : str
        Also the name of its file, without .csv.
    caption : str
        One to three sentences for readers.
    columns : tuple of Column
    """

    name: str
    caption: str
    columns: tuple[Column, ...]

    @property
    def column_names(self) -> list[str]:
        """Names of the columns, in order."""
        return [column.name for column in self.columns]

    def of_role(self, role: Role) -> list[str]:
        """Return the names of the columns of a role, in order."""
        return [column.name for column in self.columns if column.role == role]

    def column(self, name: str) -> Column:
        """Return a column by name; an unknown one is an `InputError`."""
        for column in self.columns:
            if column.name == name:
                return column
        raise unknown_name(f"column of table {self.name!r}:", name, self.column_names)

    def conform(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return `frame` with the columns of this table, in their order and dtypes.

        Raises
        ------
        InputError
            A column is missing, unknown or given twice, a required field is empty, or a value does not fit its
            column's kind.
        """
        if frame.columns.has_duplicates:
            twice = sorted({str(column) for column in frame.columns[frame.columns.duplicated()]})
            raise InputError(f"table {self.name!r} has columns twice: {twice}", remedy="give each column once")
        missing = [name for name in self.column_names if name not in frame]
        unknown = [str(name) for name in frame if name not in self.column_names]
        if missing or unknown:
            raise InputError(
                f"table {self.name!r}: missing columns {missing}, unknown columns {unknown}",
                allowed=", ".join(self.column_names),
            )
        return pd.DataFrame({column.name: self._checked(column, frame[column.name]) for column in self.columns})

    def write(self, frame: pd.DataFrame, path: str | Path) -> None:
        """Check `frame` and write it as CSV under `path`, atomically."""
        table = self.conform(frame)
        with replacing(path) as temporary:
            table.to_csv(
                temporary, index=False, float_format=FLOAT_FORMAT, lineterminator="\n", quoting=csv.QUOTE_MINIMAL
            )

    def read(self, path: str | Path) -> pd.DataFrame:
        """Read a CSV file written by `write` and check it again; a missing or foreign file is an `InputError`."""
        if not Path(path).is_file():
            raise InputError(f"table {str(path)!r} does not exist", remedy="run the study that makes it")
        dtypes = {column.name: _DTYPES[column.kind] for column in self.columns}
        try:
            frame = pd.read_csv(path, dtype=dtypes, keep_default_na=False, na_values=[""])
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{path} is not a {self.name!r} table ({error})", remedy="make the table again") from None
        return self.conform(frame)

    def _checked(self, column: Column, values: pd.Series) -> pd.Series:
        """Return one column in its dtype."""
        place = f"table {self.name!r}: column {column.name!r}"
        try:
            if column.kind == "text":
                neutral = cache(neutral_text)  # cells repeat the names of behaviors, adapters, sources
                values = values.map(lambda value: neutral(str(value)), na_action="ignore").replace("", None)
            if column.kind == "float":
                values = pd.to_numeric(values)
            result = values.astype(_DTYPES[column.kind])
        except (TypeError, ValueError) as error:
            raise InputError(f"{place} is not {column.kind} ({error})") from None
        empty = result.isna()
        if empty.any() and not column.optional:
            raise InputError(f"{place} is empty in row {int(np.argmax(empty))}")
        if column.kind == "float" and np.isinf(result).any():
            raise InputError(f"{place} holds an infinite value")
        return result


def neutral_text(value: object) -> str:
    """Return text from outside as harmless data: one line, no spreadsheet formula, bounded length.

    A sign that would make it a formula gets an apostrophe before it, after a semicolon, too: where the decimal sign is
    a comma, spreadsheets split lines there.
    Harmless text comes back as it is, so a table that is read and written again keeps its bytes.
    """
    text = CONTROL.sub(" ", str(value)).strip().lstrip(_JOINERS + " ")
    text = _FORMULA.sub("'", text)
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 3] + "..."
