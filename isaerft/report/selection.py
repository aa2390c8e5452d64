"""Which rows of the tables belong to the study's primary result, and which are its controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import pandas as pd

from isaerft.config import ASKED_CONTROLS, CONTROLS, PERMUTED
from isaerft.errors import InputError

Tables = Mapping[str, pd.DataFrame]
RESULT = "none"
CHANCE = {"auroc": 0.5, "spearman": 0.0}
BOUNDS = {"auroc": (0.0, 1.0), "spearman": (-1.0, 1.0)}
STATISTIC_NAMES = {"auroc": "AUROC", "spearman": "Spearman correlation"}


@dataclass(frozen=True)
class Primary:
    """The combination that the study named as its one primary result."""

    adapter: str
    measure: str
    source: str
    judge: str
    statistic: str

    def __str__(self) -> str:
        return f"{self.adapter} · {self.measure} · {self.source} · {self.judge}"

    @property
    def statistic_name(self) -> str:
        """The statistic as prose calls it."""
        return STATISTIC_NAMES.get(self.statistic, self.statistic.replace("_", " "))


def table(tables: Tables, name: str) -> pd.DataFrame:
    """Return table `name`; one that was not given is an `InputError`."""
    if name not in tables:
        raise InputError(f"table {name!r} was not given", allowed=", ".join(tables), remedy="read it and pass it on")
    return tables[name]


def real(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of real subjects, without those of random-dictionary twins."""
    return frame[~frame["subject"].str.endswith(PERMUTED).astype(bool)]


def subjects_of(frame: pd.DataFrame) -> list[str]:
    """Return the real subjects in the order of the table."""
    return list(dict.fromkeys(real(frame)["subject"]))


def with_controls(agreement: pd.DataFrame) -> pd.DataFrame:
    """Return `agreement` with a random-dictionary twin's own result as the `random_dictionary` control of its subject.

    A table that already names the control under the real subject passes unchanged. The twins' other rows (controls of
    the control) are left out.
    """
    twin = agreement["subject"].str.endswith(PERMUTED).astype(bool)
    kept = agreement[~twin | agreement["control"].isin([RESULT, "random_dictionary"]).astype(bool)].copy()
    twin = kept["subject"].str.endswith(PERMUTED).astype(bool)
    kept.loc[twin, "control"] = "random_dictionary"
    kept["subject"] = kept["subject"].str.removesuffix(PERMUTED)
    return kept


def find_primary(agreement: pd.DataFrame) -> Primary | None:
    """Return the primary combination that the table marks, or None when it marks none.

    Raises
    ------
    InputError
        The table marks more than one combination: a study has one primary result.
    """
    marked = real(agreement)
    marked = marked[marked["primary"].fillna(False).astype(bool) & (marked["control"] == RESULT)]
    keys = marked[list(Primary.__dataclass_fields__)].drop_duplicates()
    if len(keys) > 1:
        listed = "; ".join(" · ".join(map(str, key)) for key in keys.head(3).itertuples(index=False))
        raise InputError(
            f"agreement.csv marks {len(keys)} combinations as primary ({listed}{', ...' if len(keys) > 3 else ''})",
            allowed="one",
            remedy="make the table again",
        )
    return None if keys.empty else Primary(**{name: str(keys.iloc[0][name]) for name in keys})


def matching(frame: pd.DataFrame, primary: Primary, *, without: tuple[str, ...] = ()) -> pd.DataFrame:
    """Return the rows that agree with `primary` in every column that both have, except the columns in `without`."""
    for name, value in asdict(primary).items():
        if name in frame and name not in without:
            frame = frame[(frame[name] == value).fillna(False).astype(bool)]
    return frame


def primary_rows(agreement: pd.DataFrame, primary: Primary) -> pd.DataFrame:
    """Return result and controls at the primary combination.

    Raises
    ------
    InputError
        A (subject, behavior, control) has more than one row, so that no single estimate stands for it.
    """
    rows = matching(with_controls(agreement), primary)
    key = ["subject", "behavior", "control"]
    doubled = rows[rows.duplicated(key)]
    if len(doubled):
        where = ", ".join(str(doubled.iloc[0][name]) for name in key)
        raise InputError(f"agreement.csv has more than one primary row for {where}", remedy="make the table again")
    return rows


def controls_in(rows: pd.DataFrame) -> list[str]:
    """Return the controls in the rows: the known ones in their fixed order, then any others as they come."""
    present = [name for name in dict.fromkeys(rows["control"]) if name != RESULT]
    known = CONTROLS + ASKED_CONTROLS
    return [name for name in known if name in present] + [name for name in present if name not in known]


def to_exceed(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the controls that a result is held against: not of those that may stay as high as it."""
    return rows[~rows["control"].isin([RESULT, *ASKED_CONTROLS]).astype(bool)]
