"""Rows of the tables: those of the primary result, and those of its controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from isaerft.config import ASKED_CONTROLS, CONTROLS, PERMUTED, TWINS, Plan
from isaerft.errors import InputError
from isaerft.registry import ADAPTERS, STATISTICS, StatisticFacts

Tables = Mapping[str, pd.DataFrame]
RESULT = "none"
SOURCES = "sources"
"""Key under which figures find `source_facts` among the tables."""


@dataclass(frozen=True)
class Primary:
    """The one combination that the study named as its primary result before the run."""

    adapter: str
    measure: str
    source: str
    judge: str
    statistic: str

    def __str__(self) -> str:
        return f"{self.adapter} · {self.measure} · {self.source} · {self.judge}"

    @property
    def facts(self) -> StatisticFacts:
        """Facts of the statistic: chance, bounds, title."""
        return STATISTICS.facts(self.statistic)

    @property
    def title(self) -> str:
        """Name of the statistic in prose."""
        return statistic_title(self.statistic)


@dataclass(frozen=True)
class Setup:
    """What a study's config says that its tables do not.

    Attributes
    ----------
    smallest_effect : float or None
        Smallest specificity that would matter, named before the run.
    confidence_level : float
        Level of the intervals.
    untrained : tuple of str
        Adapters that are fitted without training.
    """

    smallest_effect: float | None = None
    confidence_level: float = 0.95
    untrained: tuple[str, ...] = ()


class OwnLargest(NamedTuple):
    """Rows of a specificity matrix whose own column is the largest (k), out of those where this is defined (n)."""

    k: int
    n: int


def statistic_title(name: str) -> str:
    """Return the name of a statistic in prose."""
    return STATISTICS.facts(name).title or name.replace("_", " ")


def source_facts(plan: Plan) -> pd.DataFrame:
    """Return side and known share of wrong explanations (NaN if unknown) of each of a study's sources."""
    rows = [(name, part.side, plan.doses.get(name)) for name, part in plan.study.sources.items()]
    return pd.DataFrame(rows, columns=["source", "side", "wrong_share"]).astype({"wrong_share": float})


def table(tables: Tables, name: str) -> pd.DataFrame:
    """Return table `name`; a missing one is an `InputError`."""
    if name not in tables:
        raise InputError(f"table {name!r} is missing", allowed=", ".join(tables), remedy="read it and pass it")
    return tables[name]


def setup_of(plan: Plan) -> Setup:
    """Return what a study's config says that its tables do not."""
    study = plan.study
    untrained = [name for name in study.adapters if ADAPTERS.facts(plan.kind_of(name)).made == "fitted"]
    return Setup(study.smallest_effect, study.agreement.confidence_level, tuple(untrained))


def real(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of real subjects, without those of random-dictionary twins."""
    return frame[~frame["subject"].str.endswith(TWINS).astype(bool)]


def subjects_of(frame: pd.DataFrame) -> list[str]:
    """Return the real subjects in the order of the table."""
    return list(dict.fromkeys(real(frame)["subject"]))


def with_controls(agreement: pd.DataFrame) -> pd.DataFrame:
    """Return `agreement` with the result of a random-dictionary twin as a control of its subject.

    The twins' own controls are left out. A table that already has the control under the real subject is unchanged.
    """
    twin = agreement["subject"].str.endswith(PERMUTED).astype(bool)
    kept = agreement[~twin | agreement["control"].isin([RESULT, "random_dictionary"]).astype(bool)].copy()
    twin = kept["subject"].str.endswith(PERMUTED).astype(bool)
    kept.loc[twin, "control"] = "random_dictionary"
    kept["subject"] = kept["subject"].str.removesuffix(PERMUTED)
    return kept


def find_primary(agreement: pd.DataFrame) -> Primary | None:
    """Return the primary combination that the table marks, or None if it marks none.

    Raises
    ------
    InputError
        The table marks more than one combination.
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
    return None if keys.empty else Primary(**{str(name): str(keys.iloc[0][name]) for name in keys})


def matching(frame: pd.DataFrame, primary: Primary, *, without: tuple[str, ...] = ()) -> pd.DataFrame:
    """Return the rows that agree with `primary` in each column that both have, except the columns in `without`."""
    for name, value in asdict(primary).items():
        if name in frame and name not in without:
            frame = frame[(frame[name] == value).fillna(False).astype(bool)]
    return frame


def primary_rows(agreement: pd.DataFrame, primary: Primary) -> pd.DataFrame:
    """Return result and controls at the primary combination.

    Raises
    ------
    InputError
        A (subject, behavior, control) has more than one row.
    """
    rows = matching(with_controls(agreement), primary)
    key = ["subject", "behavior", "control"]
    doubled = rows[rows.duplicated(key)]
    if len(doubled):
        where = ", ".join(str(doubled.iloc[0][name]) for name in key)
        raise InputError(f"agreement.csv has more than one primary row for {where}", remedy="make the table again")
    return rows


def controls_in(rows: pd.DataFrame) -> list[str]:
    """Return the controls in the rows: ours in their fixed order, then any others as they come."""
    present = [name for name in dict.fromkeys(rows["control"]) if name != RESULT]
    ours = CONTROLS + ASKED_CONTROLS
    return [name for name in ours if name in present] + [name for name in present if name not in ours]


def controls_to_exceed(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the controls that a result must exceed; some may rightly be as high as the result."""
    return rows[~rows["control"].isin([RESULT, *ASKED_CONTROLS]).astype(bool)]


def specificity_matrices(tables: Tables, primary: Primary) -> dict[str, pd.DataFrame]:
    """Return, for each real subject, the matrix trained_on x judged_for at the primary combination."""
    rows = matching(real(table(tables, "specificity")), primary)
    return {name: _square(rows[(rows["subject"] == name).astype(bool)]) for name in subjects_of(rows)}


def own_largest(matrix: pd.DataFrame) -> OwnLargest:
    """Count the rows whose own column is larger than all others; skip rows without own value or rival."""
    k = n = 0
    for name, row in matrix.iterrows():
        if name not in matrix.columns or np.isnan(row[name]):
            continue
        rivals = row.drop(name).dropna()
        if len(rivals):
            n += 1
            k += bool(row[name] > rivals.max())
    return OwnLargest(k, n)


def _square(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one subject's rows as a matrix, its columns in the order of its rows."""
    wide = rows.pivot_table(index="trained_on", columns="judged_for", values="estimate", sort=False, dropna=False)
    trained, judged = (list(dict.fromkeys(rows[name])) for name in ("trained_on", "judged_for"))
    own_first = [name for name in trained if name in judged] + [name for name in judged if name not in trained]
    return wide.reindex(index=trained, columns=own_first)
