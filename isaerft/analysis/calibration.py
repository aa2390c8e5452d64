"""calibration.csv: how well the whole pipeline performs where the truth is known.

The truth is known for sources with a known share of wrong explanations, and for audits on the embedded language, where
the planted rows are known. All numbers come from the study's own tables, at the primary adapter and measure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from isaerft import stats
from isaerft.analysis.base import Analysis, ResultTable
from isaerft.analysis.columns import ci_columns
from isaerft.config import Calibration, Plan
from isaerft.layout import Results
from isaerft.registry import STATISTICS
from isaerft.table import Column

if TYPE_CHECKING:
    from isaerft.calibration.results import Row

FEWEST = 5
"""Fewest wrong, and right, explanations that are told apart."""
LEVEL = 0.05


def calibration(analysis: Analysis) -> pd.DataFrame:
    """Return the rows about wrong explanations, then those about audits.

    Wrong explanations: `agreement_median` and `agreement` (its mean, interval over behaviors) for each share of wrong
    explanations; `strictly_falls` with that share (1 or 0); `specificity_pvalue`; `real_above_random_dictionary` (share
    of behaviors); `wrong_explanations_auroc` (wrong ones ranked by `contradiction_pvalue`, among those that predict
    something).

    Audits, for every source and judge: `poison_rank1`, share of audits in which the planted behavior has rank 1;
    `poison_found`, in which it has q < 0.05; `poison_others_found`, in which any other behavior has;
    `audit_false_alarm`, share of audits of two clean sets in which any behavior has; `poison_first_latent`, share of
    audits in which the latent that differs most is one that the planted behavior is expected to raise.
    """
    from isaerft.calibration.results import table_of

    plan = analysis.plan
    rows: list[Row] = []
    if plan.dose_arms:
        tested = len(plan.tested_behaviors) > 1
        verdicts = analysis.frame("explanation_verdicts") if tested else None
        rows += dose_rows(plan, analysis.frame("agreement"), analysis.frame("overall"), verdicts)
    if plan.known_audits:
        rows += audit_rows(plan, analysis.frame("audit"), analysis.frame("audit_latents"))
    return table_of(rows)


def write_part(options: Calibration, part: str, results: Results) -> None:
    """Run one part of the calibration study and write its rows."""
    from isaerft.calibration import run_part, table_of

    TABLE.write(table_of(run_part(part, options)), results.calibration_part(part))


def dose_rows(
    plan: Plan, agreement: pd.DataFrame, overall: pd.DataFrame, verdicts: pd.DataFrame | None
) -> Iterator[Row]:
    """Yield what known shares of wrong explanations do, from three tables; there are no verdicts with one behavior."""
    primary, level = plan.study.primary, plan.study.agreement.confidence_level
    here = _at_primary(plan, agreement)
    here = here[(here.judge == primary.judge) & (here.statistic == primary.statistic)]
    for subject, own in here.groupby("subject", sort=False):
        for side, arms in plan.dose_arms.items():
            same = {"subject": subject, "side": side}
            yield from _doses(plan, own, arms, same)
            yield from _controls(own, overall[overall.subject == subject], plan, arms, same)
            if verdicts is not None:
                judged = verdicts[(verdicts.subject == subject) & (verdicts.judge == primary.judge)]
                yield from _wrong_found(judged, arms, same, level)


def _at_primary(plan: Plan, table: pd.DataFrame) -> pd.DataFrame:
    return table[(table.adapter == plan.study.primary.adapter) & (table.measure == plan.study.primary.measure)]


def _doses(plan: Plan, own: pd.DataFrame, arms: Mapping[float, str], same: dict[str, object]) -> Iterator[Row]:
    """Yield agreement at each share of wrong explanations, and whether its median falls from each to the next."""
    medians = []
    bounds = STATISTICS.facts(plan.study.primary.statistic).bounds
    for share, source in arms.items():
        values = own.loc[(own.source == source) & (own.control == "none"), "estimate"].dropna().to_numpy(float)
        if not len(values):
            return
        medians.append(float(np.median(values)))
        parts = same | {"wrong": f"{share:g}", "behaviors": len(values)}
        yield _row("agreement_median", parts, medians[-1])
        interval = stats.mean_interval(values, plan.study.agreement.confidence_level, bounds)
        yield _row("agreement", parts, float(values.mean()), interval)
    falls = all(before > after for before, after in pairwise(medians))
    yield _row("strictly_falls", same | {"shares": len(medians)}, float(falls))


def _controls(
    own: pd.DataFrame, overall: pd.DataFrame, plan: Plan, arms: Mapping[float, str], same: dict[str, object]
) -> Iterator[Row]:
    """Yield the p-value of specificity, and how often the real dictionary agrees more than random ones."""
    from scipy.stats import binomtest

    source = arms[0.0]
    found = _at_primary(plan, overall)
    found = found[(found.source == source) & (found.judge == plan.study.primary.judge)]
    for row in found[found.quantity == "specificity"].itertuples():
        yield _row("specificity_pvalue", same | {"behaviors": row.n_behaviors}, row.pvalue)
    wide = own[own.source == source].pivot_table(index="behavior", columns="control", values="estimate")
    if {"none", "random_dictionary"} <= set(wide):
        both = wide[["none", "random_dictionary"]].dropna()
        share = binomtest(int((both["none"] > both["random_dictionary"]).sum()), len(both))
        interval = share.proportion_ci(plan.study.agreement.confidence_level, method="wilson")
        parts = same | {"behaviors": len(both)}
        yield _row("real_above_random_dictionary", parts, share.statistic, (interval.low, interval.high))


def _wrong_found(
    verdicts: pd.DataFrame, arms: Mapping[float, str], same: dict[str, object], level: float
) -> Iterator[Row]:
    """Yield how well the contradiction p-value separates wrong explanations from right ones."""
    by_source = {name: rows.set_index("latent_index") for name, rows in verdicts.groupby("source")}
    for share, source in arms.items():
        if not share or source not in by_source or arms[0.0] not in by_source:
            continue
        tested = by_source[source].dropna(subset="contradiction_pvalue")
        wrong = (tested.explanation != by_source[arms[0.0]].explanation.reindex(tested.index)).to_numpy()
        if min(wrong.sum(), (~wrong).sum()) < FEWEST:
            continue
        badness = -tested.contradiction_pvalue.to_numpy(float)
        value = float(stats.auroc(badness, wrong))
        interval = stats.auroc_interval(value, badness, wrong, np.arange(len(wrong)), level)
        parts = same | {"wrong": f"{share:g}", "explanations": len(wrong), "of_them_wrong": int(wrong.sum())}
        yield _row("wrong_explanations_auroc", parts, value, interval)


def audit_rows(plan: Plan, audit: pd.DataFrame, latents: pd.DataFrame) -> Iterator[Row]:
    """Yield what audits find where the planted rows are known, from audit.csv and audit_latents.csv."""
    from isaerft.calibration.results import share

    names = ["subject", "source", "judge"]
    for key, read in _at_primary(plan, audit).groupby(names, sort=False):
        named = dict(zip(names, key, strict=True))
        groups = dict(iter(read.groupby("audit", sort=False)))
        for amount, planted in _planted(plan).items():
            tables = [groups[name].set_index("behavior") for name in planted]
            hits = [table.loc[behavior] for table, behavior in zip(tables, planted.values(), strict=True)]
            others = [table.drop(index=name) for table, name in zip(tables, planted.values(), strict=True)]
            where = {"poison": f"{amount:g}"} | named
            yield share("poison_rank1", [bool(hit["rank"] == 1) for hit in hits], **where)
            yield share("poison_found", [bool(hit.qvalue < LEVEL) for hit in hits], **where)
            yield share("poison_others_found", [bool((table.qvalue < LEVEL).any()) for table in others], **where)
        quiet = [groups[name] for name, poison in plan.known_audits.items() if poison is None]
        if quiet:
            yield share("audit_false_alarm", [bool((group.qvalue < LEVEL).any()) for group in quiet], **named)
    first = _at_primary(plan, latents)
    for key, rows in first[first["rank"] == 1].groupby(names, sort=False):
        expected = rows.set_index("audit")["expected_for"].fillna("").str.split(", ")
        for amount, planted in _planted(plan).items():
            hits = [behavior in expected[name] for name, behavior in planted.items()]
            yield share("poison_first_latent", hits, poison=f"{amount:g}", **dict(zip(names, key, strict=True)))


def _planted(plan: Plan) -> dict[float, dict[str, str]]:
    """Return share of planted rows -> audit -> planted behavior, the smallest share first."""
    found: dict[float, dict[str, str]] = {}
    for name, poison in plan.known_audits.items():
        if poison is not None:
            found.setdefault(poison.share, {})[name] = poison.behavior
    return dict(sorted(found.items()))


def _row(
    quantity: str, parts: dict[str, object], value: float, interval: tuple[float, float] = (np.nan, np.nan)
) -> Row:
    from isaerft.calibration.results import Row, setting

    return Row(quantity, setting(**parts), value, interval)


TABLE = ResultTable(
    name="calibration",
    order=700,
    caption=(
        "What happens where the truth is known: error rates, power and coverage of the tests in simulated worlds, or "
        "how the whole pipeline does with known shares of wrong explanations or of planted poison."
    ),
    columns=(
        Column("quantity", "text", "What was compared with the known truth."),
        Column("setting", "text", "Under which conditions."),
        Column("value", "float", "What was found.", optional=True),
        *ci_columns("the confidence interval"),
    ),
    when=lambda plan: bool(plan.dose_arms or plan.known_audits),
    condition="studies with known wrong explanations or known poison, and the calibration study",
    make=calibration,
)
