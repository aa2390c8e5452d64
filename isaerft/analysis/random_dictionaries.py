"""random_dictionaries.csv: is the dictionary more specific than random ones, each explained and trained alike?

A random baseline has latents of its own, so its specificity is compared with the dictionary's over behaviors, which
both share. Permuted decoder rows are compared by the subject's own explanations.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from isaerft import stats
from isaerft.analysis.base import Analysis, ResultTable
from isaerft.analysis.columns import (
    ADAPTER,
    CI_OVER_BEHAVIORS,
    JUDGE,
    MEASURE,
    N_LATENTS,
    SOURCE,
    STATISTIC,
    SUBJECT,
    ci_columns,
)
from isaerft.analysis.matrix import BehaviorMatrix
from isaerft.table import Column

RESULT = "none"


def random_dictionaries(analysis: Analysis) -> pd.DataFrame:
    """Return the rows of every subject and adapter that random baselines are trained with, by the primary measure."""
    rows: list[dict[str, object]] = []
    for subject in analysis.plan.study.subjects:
        for adapter in analysis.plan.analyzed_adapters(next(iter(analysis.plan.baselines_of(subject)))):
            rows += [{"subject": subject, "adapter": adapter} | row for row in _rows(analysis, subject, adapter)]
    return pd.DataFrame(rows)


def _rows(analysis: Analysis, subject: str, adapter: str) -> Iterator[dict[str, object]]:
    """Yield the rows of one subject and adapter: reading by reading, the dictionary before its random ones."""
    plan = analysis.plan
    primary = plan.study.primary
    own = analysis.changes(subject, adapter)
    permuted = plan.random_twin(subject)
    twins = plan.baselines_of(subject)
    of_twin = {
        (reading.source, reading.judge, twin): (reading, analysis.changes(twin, adapter))
        for twin in twins
        for reading in analysis.readings(twin, plan.sources_of(twin, adapter))
    }
    cards = {row["subject"]: row for row in analysis.frame("subjects").to_dict("records")}
    for reading in analysis.readings(subject, plan.sources_of(next(iter(twins)), adapter)):
        compared = {subject: (RESULT, reading, own)}
        if permuted is not None:
            compared[permuted] = ("random_dictionary", reading, analysis.changes(permuted, adapter))
        for twin, control in twins.items():
            if (reading.source, reading.judge, twin) in of_twin:
                compared[twin] = (control, *of_twin[reading.source, reading.judge, twin])
        if len(compared) == 1:
            continue
        matrices = {
            name: BehaviorMatrix(plan, read.expectation, read.confounds, primary.measure, primary.statistic, changes)
            for name, (_, read, changes) in compared.items()
        }
        for name, (control, read, _) in compared.items():
            same: dict[str, object] = {"source": reading.source, "judge": reading.judge, "measure": primary.measure}
            same |= {"statistic": primary.statistic, "control": control, "n_latents": len(read.latents)}
            same |= {key: cards[name][key] for key in ("variance_explained", "l0", "n_alive")}
            yield same | _compared(matrices[subject], matrices[name], is_result=control == RESULT)


def _compared(own: BehaviorMatrix, other: BehaviorMatrix, *, is_result: bool) -> dict[str, Any]:
    """Return the specificity of `other`, and how far that of `own` is above it on the behaviors that both can test."""
    low, high = own.kind.facts.bounds
    found = _specificity(own, other.adjusted, (low, high))
    if not is_result:
        above = _specificity(own, own.adjusted - other.adjusted, (low - high, high - low))
        found |= {"difference": above.pop("estimate", np.nan), "n_behaviors": above.pop("n_behaviors")}
        found |= {f"difference_{name}": value for name, value in above.items()}
    return found


def _specificity(own: BehaviorMatrix, values: np.ndarray, bounds: tuple[float, float]) -> dict[str, Any]:
    """Return the specificity in a matrix (n_behaviors, n_behaviors); none with fewer than two families."""
    study = own.plan.study
    tested = np.flatnonzero(np.isfinite(np.diagonal(values)))
    families = own.families[tested]
    if len(np.unique(families)) < 2:
        return {"n_behaviors": len(tested)}
    result = stats.overall_specificity(
        values[np.ix_(tested, tested)],
        families=families,
        n_resamples=study.agreement.n_resamples,
        confidence_level=study.agreement.confidence_level,
        bounds=bounds,
        rng=study.seed,
    )
    interval = result.confidence_interval
    found = {"estimate": result.statistic, "ci_low": interval.low, "ci_high": interval.high}
    return found | {"n_behaviors": len(tested)}


TABLE = ResultTable(
    name="random_dictionaries",
    order=230,
    caption=(
        "Specificity of the dictionary and of random ones, each with latents, explanations and trainings of its own. "
        "Where a random one is as specific, the explanations' agreement is no merit of the trained dictionary. A "
        "specificity over two or three behaviors (`n_behaviors`) is mostly noise."
    ),
    columns=(
        SUBJECT,
        ADAPTER,
        MEASURE,
        SOURCE,
        JUDGE,
        STATISTIC,
        Column(
            "control",
            "text",
            "none: the dictionary; random_dictionary: permuted decoder rows; frozen_decoder and frozen_encoder: SAEs "
            "in whose training this matrix stayed random; untrained_dictionary: random directions that fire as often; "
            "random_model: an SAE of a model with random weights.",
        ),
        Column("estimate", "float", "Specificity, adjusted for confounds (as in overall.csv).", optional=True),
        *CI_OVER_BEHAVIORS,
        Column("difference", "float", "The dictionary's specificity minus this one's.", optional=True),
        *ci_columns("the confidence interval of the difference over behaviors (Student's t)", prefix="difference_"),
        Column("n_behaviors", "int", "Behaviors that can be tested, for a difference on both."),
        N_LATENTS,
        Column(
            "variance_explained", "float", "Share of the activations' variance that it reconstructs.", optional=True
        ),
        Column("l0", "float", "Mean number of active latents per token.", optional=True),
        Column("n_alive", "int", "Latents that fire often enough to be tested."),
    ),
    when=lambda plan: bool(plan.baselines),
    condition="studies that name a random baseline under `controls` (`frozen_decoder` and the like)",
    make=random_dictionaries,
)
