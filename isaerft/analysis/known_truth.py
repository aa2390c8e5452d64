"""The rows of calibration.csv: how the whole pipeline does where sources have known shares of wrong explanations.

Everything is read off the study's own tables, at the primary adapter, measure, judge and statistic.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from isaerft import config
from isaerft.calibration.results import Row, setting, table_of
from isaerft.report.selection import BOUNDS
from isaerft.stats import auroc, auroc_interval, mean_interval

FEWEST = 5
"""Fewest wrong (and right) explanations that are told apart."""


def calibration_table(
    plan: config.Plan, agreement: pd.DataFrame, overall: pd.DataFrame, verdicts: pd.DataFrame | None
) -> pd.DataFrame:
    """Return the rows of calibration.csv.

    Quantities: `agreement_median` and `agreement` (its mean, interval over behaviors) for each share of wrong
    explanations; `strictly_falls` with that share (1 or 0); `specificity_pvalue`; `real_above_random_dictionary` (share
    of behaviors); `wrong_explanations_auroc` (wrong ones ranked by `contradiction_pvalue`, among those that predict
    something).

    Parameters
    ----------
    agreement, overall, verdicts : DataFrame
        agreement.csv, overall.csv and explanation_verdicts.csv; the last is None with one behavior.
    """
    rows: list[Row] = []
    primary = plan.study.primary
    here = agreement[
        (agreement.adapter == primary.adapter)
        & (agreement.measure == primary.measure)
        & (agreement.judge == primary.judge)
        & (agreement.statistic == primary.statistic)
    ]
    for subject, own in here.groupby("subject", sort=False):
        for side, arms in plan.dose_arms.items():
            same = {"subject": subject, "side": side}
            rows += list(_doses(plan, own, arms, same))
            rows += list(_controls(own, overall[overall.subject == subject], plan, arms, same))
            if verdicts is not None:
                told = verdicts[(verdicts.subject == subject) & (verdicts.judge == primary.judge)]
                rows += list(_wrong_found(told, arms, same, plan.study.agreement.confidence_level))
    return table_of(rows)


def _doses(plan: config.Plan, own: pd.DataFrame, arms: dict[float, str], same: dict[str, Any]) -> Iterator[Row]:
    """Yield agreement at each share of wrong explanations, and whether its median falls from each to the next."""
    medians = []
    for share, source in arms.items():
        values = own.loc[(own.source == source) & (own.control == "none"), "estimate"].dropna().to_numpy(float)
        if not len(values):
            return
        medians.append(float(np.median(values)))
        parts = same | {"wrong": f"{share:g}", "behaviors": len(values)}
        yield _row("agreement_median", parts, medians[-1])
        interval = mean_interval(values, plan.study.agreement.confidence_level, BOUNDS[plan.study.primary.statistic])
        yield _row("agreement", parts, float(values.mean()), interval)
    falls = all(before > after for before, after in pairwise(medians))
    yield _row("strictly_falls", same | {"shares": len(medians)}, float(falls))


def _controls(
    own: pd.DataFrame, overall: pd.DataFrame, plan: config.Plan, arms: dict[float, str], same: dict[str, Any]
) -> Iterator[Row]:
    """Yield the p-value of specificity, and how often the real dictionary agrees more than random ones."""
    primary, source = plan.study.primary, arms[0.0]
    found = overall[
        (overall.adapter == primary.adapter)
        & (overall.measure == primary.measure)
        & (overall.source == source)
        & (overall.judge == primary.judge)
        & (overall.quantity == "specificity")
    ]
    for row in found.itertuples():
        yield _row("specificity_pvalue", same | {"behaviors": row.n_behaviors}, row.pvalue)
    wide = own[own.source == source].pivot_table(index="behavior", columns="control", values="estimate")
    if {"none", "random_dictionary"} <= set(wide):
        both = wide[["none", "random_dictionary"]].dropna()
        above = int((both["none"] > both["random_dictionary"]).sum())
        share = binomtest(above, len(both))
        interval = share.proportion_ci(plan.study.agreement.confidence_level, method="wilson")
        yield _row(
            "real_above_random_dictionary",
            same | {"behaviors": len(both)},
            share.statistic,
            (interval.low, interval.high),
        )


def _wrong_found(verdicts: pd.DataFrame, arms: dict[float, str], same: dict[str, Any], level: float) -> Iterator[Row]:
    """Yield how well wrong explanations are told from right ones, by the p-value of being contradicted."""
    said = {name: rows.set_index("latent_index") for name, rows in verdicts.groupby("source")}
    for share, source in arms.items():
        if not share or source not in said or arms[0.0] not in said:
            continue
        tested = said[source].dropna(subset="contradiction_pvalue")
        wrong = (tested.explanation != said[arms[0.0]].explanation.reindex(tested.index)).to_numpy()
        if min(wrong.sum(), (~wrong).sum()) < FEWEST:
            continue
        badness = -tested.contradiction_pvalue.to_numpy(float)
        value = float(auroc(badness, wrong))
        interval = auroc_interval(value, badness, wrong, np.arange(len(wrong)), level)
        parts = same | {"wrong": f"{share:g}", "explanations": len(wrong), "of_them_wrong": int(wrong.sum())}
        yield _row("wrong_explanations_auroc", parts, value, interval)


def _row(quantity: str, parts: dict[str, Any], value: float, interval: tuple[float, float] = (np.nan, np.nan)) -> Row:
    return Row(quantity, setting(**parts), value, interval)
