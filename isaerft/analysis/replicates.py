"""Replicates: which numbers a study reports, and what repeats each of them under another seed, SAE or world.

Training seeds repeat every number of a subject. Subjects of one group repeat each other; their config says in what they
differ. A number is any column that a table declares as an estimate, so a new table needs no entry here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd

from isaerft.analysis.agreement import RESEEDED
from isaerft.analysis.base import Analysis
from isaerft.config import Plan, differing, settings_of
from isaerft.errors import InputError
from isaerft.registry import SCORES, STATISTICS
from isaerft.table import Column

TRAINING_SEED = "training seed"
SAE_OPTIONS = ("train_sae", "release", "sae_id", "sae_path", "norm_scaling_factor")
"""Options of a subject that say how its SAE is made."""
_TESTED = ("overall", "source_comparison")
_MEDIAN = ["subject", "adapter", "measure", "source", "judge", "statistic", "control"]


@dataclass(frozen=True)
class Reported:
    """One column of estimates of a table.

    Attributes
    ----------
    table : str
    column : Column
    keys : list of str
        Columns that say what a row is about, but for subject and seed.
    rows : DataFrame
        Columns subject, keys and value; where the table has them seed, or `RESEEDED`.
    summary : str
        What was made of the column: "median over behaviors"; empty for its values as they are.
    """

    table: str
    column: Column
    keys: list[str]
    rows: pd.DataFrame
    summary: str = ""

    def chance(self, named: dict[str, object]) -> float | None:
        """Return the value that shows nothing, of the row with these keys."""
        if named.get("quantity") == "specificity":
            return 0.0
        for name in (named.get("statistic"), named.get("quantity")):
            if is_statistic(str(name)):
                return STATISTICS.facts(str(name)).chance
        score = str(named.get("score"))
        return _scores().get(score) if self.column.chance is None else self.column.chance


@dataclass(frozen=True)
class Variants:
    """Groups of subjects that differ in how their SAEs are made, and in nothing else that is not a replicate's.

    Attributes
    ----------
    groups : dict of str to list of str
        Group -> its subjects.
    over : str
        Options in which the groups differ.
    """

    groups: dict[str, list[str]]
    over: str


@cache
def _scores() -> dict[str, float | None]:
    """Return each registered score's value for an explanation that says nothing."""
    return {name: SCORES.facts(name).chance for name in SCORES}


@cache
def is_statistic(name: str) -> bool:
    """Tell whether a name is a registered statistic's; the registry looks through all installed packages each time."""
    return name in STATISTICS


def groups_of(plan: Plan) -> dict[str, list[str]]:
    """Return group -> its subjects, in the order of the config."""
    groups: dict[str, list[str]] = {}
    for name, subject in plan.study.subjects.items():
        groups.setdefault(subject.group, []).append(name)
    return groups


def replicated_groups(plan: Plan) -> dict[str, tuple[str, list[str]]]:
    """Return group -> (options in which its subjects differ, its subjects); none whose subjects are all alike."""
    found = {}
    for group, names in groups_of(plan).items():
        over = differing([plan.study.subjects[name] for name in names])
        if over:
            found[group] = (", ".join(over), names)
    return found


def variants_of(plan: Plan) -> list[Variants]:
    """Return the sets of groups that are variants of one SAE, where some group has two subjects."""
    subjects, groups = plan.study.subjects, groups_of(plan)
    within = {name for names in groups.values() for name in differing([subjects[one] for one in names])}
    alike: dict[str, list[str]] = {}
    for group, names in groups.items():
        settings = settings_of(subjects[names[0]])
        kept = {name: value for name, value in settings.items() if not _is_in(name, (*SAE_OPTIONS, *within))}
        alike.setdefault(repr(kept), []).append(group)
    found = []
    for names in alike.values():
        over = [name for name in differing([subjects[groups[one][0]] for one in names]) if not _is_in(name, within)]
        if over and max(len(groups[name]) for name in names) > 1:
            found.append(Variants({name: groups[name] for name in names}, ", ".join(over)))
    return found


def _is_in(name: str, options: Sequence[str] | set[str]) -> bool:
    return any(name == option or name.startswith(f"{option}.") for option in options)


def reported_numbers(analysis: Analysis) -> Iterator[Reported]:
    """Yield every column of estimates of a study's tables that are about subjects, and the medians of its summary."""
    for name, table in analysis.tables.items():
        if "subject" in table.of_role("key") and table.when(analysis.plan):
            for column in table.of_role("estimate"):
                yield reported(analysis, name, column)
    yield medians(analysis)


def reported(analysis: Analysis, name: str, column: str) -> Reported:
    """Return a column of estimates of a table."""
    table, frame = analysis.tables[name], analysis.frame(name)
    keys = table.of_role("key")
    rows = frame[keys].assign(value=pd.to_numeric(frame[column], errors="coerce").astype(float))
    if name in _TESTED:
        rows[RESEEDED] = _reseeded(analysis, name)
    rows = rows[rows["subject"].isin(analysis.plan.study.subjects)].dropna(subset="value")
    return Reported(name, table.column(column), [key for key in keys if key not in ("subject", "seed")], rows)


def medians(analysis: Analysis) -> Reported:
    """Return the medians over behaviors of the primary result and of each of its controls."""
    frame = analysis.frame("agreement").assign(**{RESEEDED: _reseeded(analysis, "agreement")})
    frame = frame[frame[RESEEDED].notna() & frame["subject"].isin(analysis.plan.study.subjects)]
    rows = []
    for names, group in frame.groupby(_MEDIAN, sort=False):
        lists = [list(values) for values in group[RESEEDED]]
        alike = len({len(values) for values in lists}) == 1
        left_out = np.median(np.array(lists, dtype=float), axis=0).tolist() if alike else []
        rows.append(
            dict(zip(_MEDIAN, names, strict=True)) | {"value": float(group["estimate"].median()), RESEEDED: left_out}
        )
    column = analysis.tables["agreement"].column("estimate")
    made = pd.DataFrame(rows, columns=[*_MEDIAN, "value", RESEEDED])
    return Reported("agreement", column, _MEDIAN[1:], made, "median over behaviors")


def _reseeded(analysis: Analysis, table: str) -> pd.Series:
    """Return the estimates without each seed that the rule `agreement` wrote beside a table's rows."""
    tested = analysis.tested(table)
    if table == "agreement" and analysis.plan.baselines:
        tested = pd.concat([tested, analysis.of_baselines(table)], ignore_index=True)
    if RESEEDED not in tested:
        raise InputError(
            f"the rows of {table} under {analysis.results.root} were written by an earlier version",
            remedy="run `isaerft agreement` again for each subject and adapter, or the workflow",
        )
    return tested[RESEEDED]


def values_of_groups(plan: Plan, numbers: Reported) -> Iterator[tuple[str, str, dict[str, object], pd.Series]]:
    """Yield (group, what differs between its subjects, keys, value of each subject), seeds averaged first."""
    for group, (over, names) in replicated_groups(plan).items():
        for named, rows in by_keys(numbers.rows[numbers.rows["subject"].isin(names)], numbers.keys):
            yield group, over, named, rows.groupby("subject", sort=False)["value"].mean()


def by_keys(rows: pd.DataFrame, keys: list[str]) -> Iterator[tuple[dict[str, object], pd.DataFrame]]:
    """Yield (keys, rows) of the rows that are alike in their keys."""
    if not keys:
        if len(rows):
            yield {}, rows
        return
    for names, group in rows.groupby(keys, sort=False, dropna=False):
        yield dict(zip(keys, names, strict=True)), group
