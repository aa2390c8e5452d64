"""Rows of calibration.csv that a study makes of itself: `isaerft calibrate`, at its primary result."""

from __future__ import annotations

import numpy as np
import pandas as pd

from isaerft import stats
from isaerft.analysis.calibration import TABLE as CALIBRATION
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
    found = read_changes(plan, results, subject, primary.adapter)
    seeds = [found[name, primary.measure][:, reading.latents] for name in reading.behaviors]
    texts = reading.explained.explanations.set_index("latent_index")["explanation"].loc[reading.latents]
    evidence = Evidence(
        np.array([stats.mean_rank(changes) for changes in seeds]),
        np.empty((0, len(reading.latents))),
        reading.expectation.expected,
        np.unique(texts, return_inverse=True)[1].astype(np.int64),
        np.arange(len(seeds)),
        reading.confounds.null(),
    )
    facts = folder.read_latents()
    directions = directions_of(
        load_dictionary(folder.sae).W_dec.double().numpy(),
        (facts.firing_rate * facts.mean_activation.fillna(0.0) ** 2).to_numpy(),
        reading.latents,
        len(seeds[0]),
    )
    rows = own_rows(
        evidence, directions, reading.behaviors, n_draws=n_draws, n_resamples=N_RESAMPLES, seed=plan.study.seed
    )
    table = table_of(rows)
    CALIBRATION.write(table, results.calibration_part(subject))
    return table
