"""Rows of calibration.csv that a study makes of itself: `isaerft calibrate`, at its primary result."""

from __future__ import annotations

import numpy as np
import pandas as pd

from isaerft.analysis.calibration import TABLE as CALIBRATION
from isaerft.analysis.matrix import BehaviorMatrix
from isaerft.analysis.placebos import read_placebos
from isaerft.analysis.readings import primary_reading, read_changes
from isaerft.config import Plan
from isaerft.errors import InputError
from isaerft.layout import Results

N_RESAMPLES = 999


def write_own_calibration(plan: Plan, results: Results, subject: str, *, n_draws: int) -> pd.DataFrame:
    """Count how often a study's tests reject where changes are random directions, write the rows and return them.

    Raises
    ------
    InputError
        The primary source does not explain the subject, or something of the study was not made.
    """
    from isaerft.calibration.nulls import Evidence
    from isaerft.calibration.own import directions_of, own_rows
    from isaerft.calibration.results import table_of
    from isaerft.subjects.dictionary import load_dictionary

    reading = primary_reading(plan, results, subject)
    if reading is None:
        raise InputError(
            f"the primary source {plan.study.primary.source!r} does not explain {subject!r}",
            allowed="a subject of the primary result",
        )
    primary, folder = plan.study.primary, results.subject(subject)
    changes = read_changes(plan, results, subject, primary.adapter)
    placebos = read_placebos(plan, results, subject)
    matrix = BehaviorMatrix(
        plan, reading.expectation, reading.confounds, primary.measure, primary.statistic, changes, placebos
    )
    n = len(reading.latents)
    judged = np.flatnonzero(np.isfinite(np.diagonal(matrix.values)))
    evidence = Evidence(
        matrix.changes[judged],
        np.array([matrix.change_of(one) for one in placebos.get(primary.measure, ())]).reshape(-1, n),
        reading.expectation.expected[judged],
        reading.confounds.texts,
        reading.confounds.null(),
    )
    behaviors = [reading.behaviors[place] for place in judged]
    facts = folder.read_latents()
    directions = directions_of(
        load_dictionary(folder.sae).W_dec.double().numpy(),
        (facts.firing_rate * facts.mean_activation.fillna(0.0) ** 2).to_numpy(),
        reading.latents,
        len(changes[behaviors[0], primary.measure]),
    )
    rows = own_rows(
        evidence,
        directions,
        behaviors,
        n_draws=n_draws,
        n_placebos=plan.study.placebos.n,
        n_resamples=N_RESAMPLES,
        seed=plan.study.seed,
    )
    table = table_of(rows)
    CALIBRATION.write(table, results.calibration_part(subject))
    return table


def summary_of(table: pd.DataFrame) -> str:
    """Return the rows of `write_own_calibration` as text: one line per test, then one per behavior."""
    settings = [dict(part.split("=", 1) for part in text.split("; ")) for text in table.setting]
    rows = pd.concat([table, pd.DataFrame(settings)], axis=1)
    rates = rows[rows.quantity == "false_positive_rate"]
    rates = rates.assign(at="p <= " + rates.level)
    coverage = rows[rows.quantity == "coverage"].assign(at="95 % interval holds 0")
    counted = pd.concat([rates, coverage.assign(test=coverage.interval)])
    found = rows[(rows.quantity == "pvalue") & rows.behavior.notna()]
    parts = {
        f"Share of {rates.worlds.iloc[0]} null studies, by directions:": counted.pivot_table(
            values="value", index="test", columns=["directions", "at"], sort=False
        ),
        "p-values of the study's own changes:": found.pivot_table(
            values="value", index="behavior", columns="test", sort=False
        ),
    }
    shown = {heading: part.to_string(na_rep="", float_format="{:.4f}".format) for heading, part in parts.items()}
    return "\n\n".join(f"{heading}\n{text}" for heading, text in shown.items())
