"""overall.csv: mean agreement over all behaviors, and whether changes are specific to their own behavior."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from isaerft import stats
from isaerft.analysis.base import Analysis, ResultTable, is_primary, with_qvalues
from isaerft.analysis.columns import (
    ADAPTER,
    CI_OVER_BEHAVIORS,
    FAMILY,
    JUDGE,
    MEASURE,
    PRIMARY,
    PROVENANCE,
    QUANTITY,
    QVALUE_OF_FAMILIES,
    SOURCE,
    STATISTIC,
    SUBJECT,
)
from isaerft.analysis.matrix import BehaviorMatrix
from isaerft.table import Column


def overall(analysis: Analysis) -> pd.DataFrame:
    """Return the rows of all adapters with q-values; a family is one question about all adapters."""
    table = analysis.tested("overall")
    table = table.assign(primary=is_primary(analysis.plan, table), provenance=analysis.provenance(table))
    return with_qvalues(analysis.plan, table, ("subject", "measure", "source", "judge", "quantity"))


def overall_rows(matrix: BehaviorMatrix) -> Iterator[dict[str, object]]:
    """Yield the rows of one reading and measure."""
    study = matrix.plan.study
    tested = np.flatnonzero(np.isfinite(np.diagonal(matrix.values)))
    families = matrix.families[tested]
    level, bounds = study.agreement.confidence_level, matrix.kind.facts.bounds
    same = {
        "statistic": study.primary.statistic,
        "n_behaviors": len(tested),
        "n_families": len(np.unique(families)),
    }
    found: dict[str, float] = {}
    if len(tested):
        own = np.diagonal(matrix.values)[tested]
        found = _result(stats.overall_agreement(own, families=families, confidence_level=level, bounds=bounds))
    yield same | {"quantity": "agreement"} | found
    if len(matrix.values) > 1:
        found = {}
        if len(np.unique(families)) > 1:
            square = matrix.adjusted[np.ix_(tested, tested)]
            options: dict[str, Any] = {"n_resamples": study.agreement.n_resamples, "rng": study.seed, "bounds": bounds}
            found = _result(stats.overall_specificity(square, families=families, confidence_level=level, **options))
        yield same | {"quantity": "specificity"} | found


def reseeded_estimates(part: BehaviorMatrix, whole: BehaviorMatrix) -> dict[str, float]:
    """Return agreement and specificity of a part of the seeds, over the behaviors and families of the whole.

    NaN where a behavior that the whole could test is undefined in the part.
    """
    tested = np.flatnonzero(np.isfinite(np.diagonal(whole.values)))
    families = whole.families[tested]
    values = np.diagonal(part.values)[tested]
    defined = len(tested) > 0 and bool(np.isfinite(values).all())
    return {
        "agreement": stats.overall_agreement(values, families=families).statistic if defined else np.nan,
        "specificity": stats.specificity_estimate(part.adjusted[np.ix_(tested, tested)], families),
    }


def _result(result: stats.OverallResult) -> dict[str, float]:
    return {
        "estimate": result.statistic,
        "ci_low": result.confidence_interval.low,
        "ci_high": result.confidence_interval.high,
        "pvalue": result.pvalue,
        "leave_one_out_low": result.leave_one_out.low,
        "leave_one_out_high": result.leave_one_out.high,
    }


TABLE = ResultTable(
    name="overall",
    order=210,
    caption=(
        "All behaviors together: mean agreement, and specificity, which is how much better the changes from training "
        "on a behavior agree with its own expectations than with those of other behaviors. Specificity is adjusted for "
        "confounds and is the primary test."
    ),
    columns=(
        SUBJECT,
        ADAPTER,
        MEASURE,
        SOURCE,
        JUDGE,
        QUANTITY,
        STATISTIC,
        Column("estimate", "float", "Mean over the behaviors that can be tested.", optional=True, role="estimate"),
        *CI_OVER_BEHAVIORS,
        Column(
            "pvalue",
            "float",
            "specificity: probability of so high an estimate if families of behaviors were paired with expectations at "
            "random (every pairing, with up to 8 families). agreement has none: compare it with placebo trainings.",
            optional=True,
        ),
        QVALUE_OF_FAMILIES,
        FAMILY,
        Column("leave_one_out_low", "float", "Lowest estimate when one family is left out.", optional=True),
        Column("leave_one_out_high", "float", "Highest estimate when one family is left out.", optional=True),
        Column(
            "n_behaviors",
            "int",
            "Behaviors in the mean: those that changed some latents and for which some, but not all, are expected to.",
        ),
        Column(
            "n_families",
            "int",
            "Independent behaviors: those whose changes and expectations are alike count as one.",
        ),
        PROVENANCE,
        Column(
            "reliable_difference",
            "float",
            "Smallest difference that reseeding does not explain: of two equal results, each with seeds of its own, "
            "5 % differ by more (jackknife over seeds, Student's t); empty with one seed.",
            optional=True,
        ),
        PRIMARY,
    ),
    make=overall,
)
