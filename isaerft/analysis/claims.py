"""claims.csv: the differences that summary.html speaks of, and whether another seed, SAE or world explains them.

A claim is about the primary combination. Results of one training, or of one subject, share its luck, so they are
compared seed by seed, or subject by subject.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np
import pandas as pd

from isaerft import stats
from isaerft.analysis.agreement import RESEEDED, RESULT
from isaerft.analysis.base import Analysis, ResultTable
from isaerft.analysis.columns import QUANTITY, STATISTIC
from isaerft.analysis.replicates import TRAINING_SEED, Reported, groups_of, medians, replicated_groups, reported
from isaerft.config import ASKED_CONTROLS, Plan
from isaerft.table import Column

UNNAMED = "the unnamed group"
TIE = 1e-9
"""Values that differ by less are equal but for rounding."""


@dataclass(frozen=True)
class Result:
    """One number with what it would be without each of its replicates.

    Attributes
    ----------
    value : float
    replicates : tuple
        Seeds, or subjects.
    left_out : (n_replicates,) float
        The number without each of them in turn; empty where there is one.
    """

    value: float
    replicates: tuple[Hashable, ...]
    left_out: np.ndarray = field(repr=False)

    @property
    def sd(self) -> float:
        """Standard deviation of the number under reseeding."""
        return stats.jackknife_sd(self.left_out)


@dataclass(frozen=True)
class Unit:
    """A subject, or a group of subjects that repeat each other: what a claim is of.

    Attributes
    ----------
    of : str
    over : str
        What is drawn again.
    subjects : tuple of str
    """

    of: str
    over: str
    subjects: tuple[str, ...]


def claims(analysis: Analysis) -> pd.DataFrame:
    """Return one row for each claim; subjects that repeat each other make theirs as a group."""
    plan = analysis.plan
    specificity, controls = _specificity(plan, reported(analysis, "overall", "estimate")), medians(analysis)
    compared = analysis.tables["source_comparison"].when(plan)
    sources = reported(analysis, "source_comparison", "estimate") if compared else None
    units = units_of(plan)
    found: list[dict[str, object]] = []
    for unit in units:
        about = {"of": unit.of, "over": unit.over}
        own = chain(
            _against_controls(plan, results_of(controls, unit, "control")),
            _against_adapters(plan, results_of(specificity, unit, "adapter")),
            _against_sources(plan, unit, sources) if sources is not None else (),
        )
        found += [about | row for row in own]
    found += _between_units(plan, units, specificity)
    rows = [row | {"statistic": plan.study.primary.statistic, "warning": _warning(row)} for row in found]
    return pd.DataFrame(rows, columns=TABLE.column_names)


def units_of(plan: Plan) -> list[Unit]:
    """Return the groups whose subjects repeat each other, and every other subject."""
    replicated, units = replicated_groups(plan), []
    for group, names in groups_of(plan).items():
        if group in replicated:
            units.append(Unit(group, replicated[group][0], tuple(names)))
        else:
            units += [Unit(name, TRAINING_SEED, (name,)) for name in names]
    return units


def results_of(numbers: Reported, unit: Unit, key: str) -> dict[str, Result]:
    """Return the value of a key -> the result of a unit, whose rows are one for each subject and value of the key."""
    rows = numbers.rows[numbers.rows["subject"].isin(unit.subjects)]
    found = {}
    for name, group in rows.groupby(key, sort=False):
        if unit.over == TRAINING_SEED:
            (value,), (left_out,) = group["value"], group[RESEEDED]
            array = np.asarray(left_out, dtype=float)
            found[str(name)] = Result(float(value), tuple(range(max(len(array), 1))), array)
        else:
            values = group["value"].to_numpy(float)
            n = len(values)
            without = (values.sum() - values) / (n - 1) if n > 1 else np.empty(0)
            found[str(name)] = Result(float(values.mean()), tuple(group["subject"]), without)
    return found


def _specificity(plan: Plan, overall: Reported) -> Reported:
    """Return the rows of overall.csv on specificity, at the primary measure, source and judge."""
    primary = plan.study.primary
    wanted = {"quantity": "specificity", "measure": primary.measure, "source": primary.source, "judge": primary.judge}
    return Reported(overall.table, overall.column, overall.keys, _only(overall.rows, wanted))


def _only(rows: pd.DataFrame, wanted: Mapping[str, str]) -> pd.DataFrame:
    for name, value in wanted.items():
        rows = rows[rows[name] == value]
    return rows


def _against_controls(plan: Plan, found: dict[str, Result]) -> Iterator[dict[str, object]]:
    """Yield the claim that the result lies above (or below) the highest control, in medians over behaviors."""
    controls = {name: one for name, one in found.items() if name != RESULT and name not in ASKED_CONTROLS}
    if RESULT in found and controls:
        highest = max(controls, key=lambda name: controls[name].value)
        names = {"claim": "control", "first": plan.study.primary.adapter, "second": highest, "quantity": "agreement"}
        yield names | _compared(plan, found[RESULT], controls[highest])


def _against_adapters(plan: Plan, found: dict[str, Result]) -> Iterator[dict[str, object]]:
    """Yield the claims that the primary adapter is specific at all, and more or less so than each other one."""
    own = plan.study.primary.adapter
    if own not in found:
        return
    names = {"first": own, "quantity": "specificity"}
    nothing = Result(0.0, found[own].replicates, np.zeros_like(found[own].left_out))
    yield names | {"claim": "chance", "second": "chance"} | _compared(plan, found[own], nothing)
    for name in found:
        if name != own:
            yield names | {"claim": "adapter", "second": name} | _compared(plan, found[own], found[name])


def _against_sources(plan: Plan, unit: Unit, sources: Reported) -> Iterator[dict[str, object]]:
    """Yield, for each judge, the claims that the best source agrees better than each other one."""
    primary = plan.study.primary
    wanted = {"quantity": "agreement", "adapter": primary.adapter, "measure": primary.measure}
    for judge, rows in _only(sources.rows, wanted).groupby("judge", sort=False):
        found = results_of(replace(sources, rows=rows), unit, "source")
        best = max(found, key=lambda name: found[name].value)
        for name in found:
            if name != best:
                names = {"claim": "source", "judge": judge, "first": best, "second": name, "quantity": "agreement"}
                yield names | _compared(plan, found[best], found[name], among=len(found))


def _between_units(plan: Plan, units: list[Unit], specificity: Reported) -> Iterator[dict[str, object]]:
    """Yield the claims that one subject or group has more specific explanations than each other one."""
    own = plan.study.primary.adapter
    results = {unit: results_of(specificity, unit, "adapter") for unit in units}
    found = {unit: one[own] for unit, one in results.items() if own in one}
    best = max(found, key=lambda unit: found[unit].value, default=None)
    for unit, result in found.items():
        if best is not None and unit is not best:
            over = best.over if best.over == unit.over else f"{best.over}; {unit.over}"
            names = {
                "over": over,
                "claim": "subject",
                "first": best.of or UNNAMED,
                "second": unit.of or UNNAMED,
                "quantity": "specificity",
            }
            yield names | _compared(plan, found[best], result, among=len(found), is_paired=False)


def _compared(plan: Plan, one: Result, other: Result, *, among: int = 2, is_paired: bool = True) -> dict[str, object]:
    """Return the columns of a difference; its second part was picked as the best of `among` results."""
    level, difference = plan.study.agreement.confidence_level, one.value - other.value
    if is_paired and one.replicates == other.replicates:
        margin = stats.margin_of_paired(one.left_out - other.left_out, level)
    else:
        ns = [len(one.replicates), len(other.replicates)]
        margin = stats.margin_of_independent([one.sd, other.sd], ns, level)
    factor = stats.factor_among(among, margin.n_replicates, level) if margin.n_replicates > 1 else 1.0
    least = factor * margin.least
    return {
        "first_value": one.value,
        "second_value": other.value,
        "difference": difference,
        "n_replicates": margin.n_replicates,
        "least_difference": least,
        "reliable": bool(abs(difference) > least) if np.isfinite(least) else None,
    }


_SAID = {
    "control": "the median over behaviors lies {apart} that of the control {second}",
    "chance": "specificity of {first} lies {apart} 0",
    "adapter": "specificity of {first} lies {apart} that of {second}",
    "source": "by the judge {judge}, agreement of {first} lies {apart} that of {second}",
    "subject": "specificity in {first} lies {apart} that in {second}",
}


def _warning(row: dict[str, object]) -> str | None:
    """Return a sentence on a difference that is smaller than its noise; nothing on any other, or on a tie."""
    difference, least = float(str(row["difference"])), float(str(row["least_difference"]))
    if row["reliable"] is not False or abs(difference) < TIE:
        return None
    apart = f"{abs(difference):.3f} {'above' if difference >= 0 else 'below'}"
    said = _SAID[str(row["claim"])].format(
        apart=apart, **{name: row.get(name) for name in ("first", "second", "judge")}
    )
    return f"{said}; drawing the {row['over']} again may move that by {least:.3f}."


TABLE = ResultTable(
    name="claims",
    order=655,
    caption=(
        "The differences that summary.html speaks of, and whether drawing seeds, SAEs or worlds again explains them. "
        "Subjects of one group that repeat each other make their claims together."
    ),
    columns=(
        Column("of", "text", "Subject or group that the claim is of; empty for claims between several.", optional=True),
        Column("over", "text", "What is drawn again, as in reliability.csv."),
        Column(
            "claim",
            "text",
            "What is compared. control: the result with its highest control, medians over behaviors; chance: "
            "specificity with 0; adapter: the primary adapter with another; source: a judge's best source with "
            "another; subject: the subject or group of highest specificity with another.",
        ),
        Column("judge", "text", "Judge of the claim about sources.", optional=True),
        Column("first", "text", "What is compared: adapter, source, subject or group."),
        Column("second", "text", "What it is compared with."),
        QUANTITY,
        STATISTIC,
        Column("first_value", "float", "Value of the first."),
        Column("second_value", "float", "Value of the second."),
        Column("difference", "float", "The first less the second."),
        Column("n_replicates", "int", "Seeds or subjects behind the noise; of two results the smaller number."),
        Column(
            "least_difference",
            "float",
            "Smallest difference that is reliable: of equal results 5 % differ by more. Paired over seeds or subjects "
            "where both rest on the same, otherwise Welch's; wider where the best of several was picked (Tukey's "
            "range). Empty with one replicate.",
            optional=True,
        ),
        Column("reliable", "bool", "Whether the difference is larger; empty where that is not known.", optional=True),
        Column("warning", "text", "A sentence on a claim that is smaller than its noise.", optional=True),
    ),
    make=claims,
)
