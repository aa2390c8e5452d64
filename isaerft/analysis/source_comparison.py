"""source_comparison.csv: whose explanations predict changes best, for each judge, on the same latents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from isaerft import stats
from isaerft.analysis.base import Analysis, ResultTable
from isaerft.analysis.columns import (
    ADAPTER,
    CI_OVER_BEHAVIORS,
    JUDGE,
    MEASURE,
    QUANTITY,
    SIDE,
    SOURCE,
    STATISTIC,
    SUBJECT,
)
from isaerft.analysis.matrix import BehaviorMatrix
from isaerft.analysis.readings import Expectation
from isaerft.config import Plan
from isaerft.registry import STATISTICS
from isaerft.table import Column


def source_comparison(analysis: Analysis) -> pd.DataFrame:
    """Return the rows of all adapters, the best source of each judge first."""
    table = analysis.tested("source_comparison")
    keys = ["subject", "adapter", "measure", "judge", "quantity"]
    groups = table.groupby(keys, sort=False).ngroup().rename("group")
    order = pd.concat([groups, table["rank"]], axis=1).sort_values(["group", "rank"], kind="stable").index
    return table.loc[order]


def comparison_rows(plan: Plan, matrices: Mapping[str, BehaviorMatrix]) -> Iterator[dict[str, object]]:
    """Yield the rows of one judge and measure, source by source; none for a single source.

    Sources are compared on the latents that all of them explain, and on the behaviors for which each of them can be
    tested (expects some of these latents, but not all). A source that can be tested on none is left empty.

    Parameters
    ----------
    matrices : mapping of str to BehaviorMatrix
        By source.
    """
    if len(matrices) < 2:
        return
    latents = common_latents([matrix.expectation for matrix in matrices.values()])
    same = {"statistic": plan.study.primary.statistic, "n_latents": len(latents)}
    rows = {source: same | {"source": source, "side": plan.study.sources[source].side} for source in matrices}
    values: dict[str, dict[str, np.ndarray]] = {}
    for source, matrix in matrices.items() if len(latents) else ():
        common = matrix.on(latents)
        values[source] = {"agreement": common.values, "specificity": common.adjusted}
        rows[source]["n_expected"] = float(common.expectation.expected.sum(axis=1).mean())
    defined = {source: np.isfinite(np.diagonal(parts["agreement"])) for source, parts in values.items()}
    tested = [source for source, behaviors in defined.items() if behaviors.any()]
    shared = np.flatnonzero(np.all([defined[source] for source in tested], axis=0)) if tested else np.array([], int)
    for quantity, fewest in (("agreement", 1), ("specificity", 2)):
        found: dict[str, dict[str, object]] = {}
        if len(shared) >= fewest:
            parts = {source: values[source][quantity][np.ix_(shared, shared)] for source in tested}
            found = _compared(plan, {source: per_behavior(part, quantity) for source, part in parts.items()}, quantity)
        for source, row in rows.items():
            yield row | {"quantity": quantity, "n_behaviors": len(shared)} | found.get(source, {})


def common_latents(expectations: Sequence[Expectation]) -> np.ndarray:
    """Return the latents that all expectations have in common, (n,) int64, ascending."""
    common = expectations[0].latents
    for expectation in expectations[1:]:
        common = np.intersect1d(common, expectation.latents)
    return common


def per_behavior(values: np.ndarray, quantity: str) -> np.ndarray:
    """Return each behavior's contribution to a quantity of overall.csv, (n_behaviors,), whose mean it is.

    `values` is (n_behaviors, n_behaviors), trained on (row) and judged for (column).
    """
    return np.diagonal(values) if quantity == "agreement" else stats.contrast_parts(values)


def _compared(plan: Plan, values: Mapping[str, np.ndarray], quantity: str) -> dict[str, dict[str, object]]:
    """Return the columns of the comparison for each source."""
    sources, level = list(values), plan.study.agreement.confidence_level
    bounds = STATISTICS.facts(plan.study.primary.statistic).bounds
    bounds = bounds if quantity == "agreement" else (-np.inf, np.inf)
    found = stats.compare_means(np.array(list(values.values())), confidence_level=level, bounds=bounds)
    return {
        source: {
            "rank": part.rank,
            "estimate": part.mean,
            "ci_low": part.interval.low,
            "ci_high": part.interval.high,
            "rival": None if part.rival is None else sources[part.rival],
            "difference": part.difference,
            "difference_ci_low": part.difference_interval.low,
            "difference_ci_high": part.difference_interval.high,
        }
        for source, part in zip(sources, found, strict=True)
    }


TABLE = ResultTable(
    name="source_comparison",
    order=240,
    caption=(
        "Whose explanations predict changes best, judge by judge, on the latents that all of a judge's sources "
        "explain. The interval of the difference from the best other source says whether the two can be told apart."
    ),
    columns=(
        SUBJECT,
        ADAPTER,
        MEASURE,
        JUDGE,
        QUANTITY,
        STATISTIC,
        Column("rank", "int", "Rank among the judge's sources; 1 predicts best, ties share a rank.", optional=True),
        SOURCE,
        SIDE,
        Column("n_latents", "int", "Latents that all of the judge's sources explain; only these are compared."),
        Column("n_behaviors", "int", "Behaviors on which each of the judge's sources can be tested."),
        Column("n_expected", "float", "Latents that the judge expects to change, mean over behaviors.", optional=True),
        Column(
            "estimate", "float", "Mean over these behaviors of the primary statistic.", optional=True, role="estimate"
        ),
        *CI_OVER_BEHAVIORS,
        Column("rival", "text", "The best of the judge's other sources.", optional=True),
        Column("difference", "float", "Estimate minus the rival's: above 0 for the best source only.", optional=True),
        Column(
            "difference_ci_low",
            "float",
            "Lower end of its interval, paired over behaviors and simultaneous for all pairs of sources.",
            optional=True,
        ),
        Column(
            "difference_ci_high",
            "float",
            "Upper end of that interval; if the interval contains 0, neither source is known to be better.",
            optional=True,
        ),
    ),
    when=lambda plan: bool(plan.compared_sources),
    condition="studies in which a judge reads several sources",
    make=source_comparison,
)
