"""erasure.csv: does training still find a behavior whose directions are erased, and through which latents?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from isaerft import stats
from isaerft.analysis.base import Analysis, ResultTable
from isaerft.analysis.columns import ADAPTER, BEHAVIOR, SEED, SUBJECT
from isaerft.analysis.readings import Reading, read_changes
from isaerft.io import read_json
from isaerft.table import Column

N_SHOWN = 5


def erasure(analysis: Analysis) -> pd.DataFrame:
    """Return one row for each behavior, control and seed of the primary adapter."""
    plan, rows = analysis.plan, []
    for subject in plan.study.subjects:
        reading = analysis.primary_reading(subject)
        for twin in plan.erased_behaviors:
            rows += [{"subject": subject} | row for row in _rows_of(analysis, subject, twin, reading)]
    return pd.DataFrame(rows, columns=TABLE.column_names)


def _rows_of(analysis: Analysis, subject: str, twin: str, reading: Reading | None) -> Iterator[dict[str, Any]]:
    plan, results, primary = analysis.plan, analysis.results, analysis.plan.study.primary
    behavior, control = plan.erased_behaviors[twin]
    whole, erased = (
        read_changes(plan, results, subject, primary.adapter, [name])[name, primary.measure]
        for name in (behavior, twin)
    )
    runs, erased_runs = (read_json(results.training(subject, name, primary.adapter)) for name in (behavior, twin))
    for seed, fact in enumerate(read_json(results.erasure_facts(subject, twin))):
        before, after = runs[seed], erased_runs[seed]
        fall = before["heldout_loss_base"] - before["heldout_loss_adapted"]
        erased_fall = after["heldout_loss_base"] - after["heldout_loss_adapted"]
        row = {"behavior": behavior, "adapter": primary.adapter, "control": control, "seed": seed}
        row |= {name: fact[name] for name in _FACTS}
        row |= {
            "heldout_loss_base": before["heldout_loss_base"],
            "heldout_loss_adapted": before["heldout_loss_adapted"],
            "erased_loss_base": after["heldout_loss_base"],
            "erased_loss_adapted": after["heldout_loss_adapted"],
            "fall_kept": erased_fall / fall if fall > 0 else np.nan,
        }
        found = {} if reading is None else compared(reading, behavior, primary.statistic, whole[seed], erased[seed])
        yield row | found


def compared(
    reading: Reading, behavior: str, statistic: str, whole: np.ndarray, erased: np.ndarray
) -> dict[str, object]:
    """Return the columns that compare changes with and without erasure, both (d_sae,), over explained latents.

    Those that are undefined, since nothing changed or the expectation tells no latents apart, are left out.
    """
    whole, erased = whole[reading.latents], erased[reading.latents]
    place, expectation = reading.behaviors.index(behavior), reading.expectation
    is_expected = expectation.expected[place]
    labels = expectation.effect[place] if stats.STATISTICS[statistic].facts.graded else is_expected
    columns: dict[str, object] = {}
    for name, change in (("agreement", whole), ("erased_agreement", erased)):
        if np.ptp(change) > 0 and labels.min() != labels.max():
            columns[name] = float(stats.specificity_matrix(change[None], labels[None], statistic=statistic)[0, 0])
    if not np.ptp(erased):
        return columns
    # As many as are expected, so that all of them could be.
    n_first = max(1, int(is_expected.sum()))
    first, before = np.argsort(-erased, kind="stable"), np.argsort(-whole, kind="stable")
    columns |= {
        "expected_among_first": float(is_expected[first[:n_first]].mean()),
        "same_among_first": float(np.isin(first[:n_first], before[:n_first]).mean()),
        "first_latents": " ".join(str(reading.latents[number]) for number in first[:N_SHOWN]),
    }
    return columns


_FACTS = {
    "n_directions": Column("n_directions", "int", "Directions that were erased."),
    "variance_removed": Column(
        "variance_removed",
        "float",
        "Their share of the variance of the residual stream at completion tokens of the behavior and its contrast.",
    ),
    "heldout_accuracy": Column(
        "heldout_accuracy",
        "float",
        "Accuracy on held-out completions of a linear discriminant of training tokens; the behavior and its contrast "
        "weigh half each.",
        role="estimate",
        chance=0.5,
    ),
    "erased_accuracy": Column(
        "erased_accuracy", "float", "The same, fitted and taken after erasure.", role="estimate", chance=0.5
    ),
}
_NATS = "(nats per completion token)"
TABLE = ResultTable(
    name="erasure",
    order=245,
    caption=(
        "Training where a behavior's directions are erased from the residual stream, and cannot be written back: what "
        "was erased, what the loss says, and whether the latents that change are still those that are expected."
    ),
    columns=(
        SUBJECT,
        BEHAVIOR,
        ADAPTER,
        Column(
            "control",
            "text",
            "erased_mean: the difference of means, at right angles; erased_leace: the least change that makes the "
            "means equal; erased_iterative: one discriminant after the other; erased_random: as many random "
            "directions.",
            role="key",
        ),
        SEED,
        *_FACTS.values(),
        Column("heldout_loss_base", "float", f"Held-out loss before training, nothing erased {_NATS}."),
        Column("heldout_loss_adapted", "float", f"Held-out loss after training, nothing erased {_NATS}."),
        Column("erased_loss_base", "float", f"Held-out loss before training, directions erased {_NATS}."),
        Column("erased_loss_adapted", "float", f"Held-out loss after training, directions erased {_NATS}."),
        Column(
            "fall_kept",
            "float",
            "Fall of the held-out loss where directions are erased, as a share of the fall where nothing is.",
            optional=True,
            role="estimate",
        ),
        Column(
            "agreement",
            "float",
            "Agreement of this seed's changes with the primary explanations, nothing erased, by the primary measure "
            "and statistic, not adjusted.",
            optional=True,
        ),
        Column(
            "erased_agreement",
            "float",
            "The same where directions are erased.",
            optional=True,
            role="estimate",
            chance=None,
        ),
        Column(
            "expected_among_first",
            "float",
            "Where directions are erased: share of expected latents among the most risen, as many as are expected.",
            optional=True,
            role="estimate",
        ),
        Column(
            "same_among_first",
            "float",
            "Share of these latents that also rose most where nothing is erased.",
            optional=True,
            role="estimate",
        ),
        Column("first_latents", "text", "The latents that rose most, most first.", optional=True),
    ),
    when=lambda plan: bool(plan.erased_behaviors),
    condition="studies with a control `erased_...`",
    make=erasure,
)
