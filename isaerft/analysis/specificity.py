"""specificity.csv: how changes from training on one behavior agree with expectations for another."""

from __future__ import annotations

from collections.abc import Iterator

from isaerft.analysis.base import ResultTable
from isaerft.analysis.columns import ADAPTER, JUDGE, MEASURE, SOURCE, SUBJECT
from isaerft.analysis.matrix import BehaviorMatrix
from isaerft.table import Column


def specificity_rows(matrix: BehaviorMatrix) -> Iterator[dict[str, object]]:
    """Yield the cells of one reading and measure."""
    for row, trained_on in enumerate(matrix.plan.tested_behaviors):
        for column, judged_for in enumerate(matrix.plan.tested_behaviors):
            yield {
                "trained_on": trained_on,
                "judged_for": judged_for,
                "estimate": matrix.values[row, column],
                "adjusted_estimate": matrix.adjusted[row, column],
            }


TABLE = ResultTable(
    name="specificity",
    order=220,
    caption="Agreement of the changes from training on each behavior with the expectations for each behavior.",
    columns=(
        SUBJECT,
        ADAPTER,
        MEASURE,
        SOURCE,
        JUDGE,
        Column("trained_on", "text", "Behavior whose training made the changes."),
        Column("judged_for", "text", "Behavior that the explanations were judged for."),
        Column(
            "estimate",
            "float",
            "Agreement of these changes with these expectations, in the primary statistic.",
            optional=True,
        ),
        Column(
            "adjusted_estimate",
            "float",
            "The same without what firing rate, decoder norm and density explain of the expectations.",
            optional=True,
        ),
    ),
    make=lambda analysis: analysis.tested("specificity"),
)
