"""Which latents the steering check steers: those with a verdict, and untested ones matched to them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from isaerft import stats
from isaerft.analysis.explanation_verdicts import verdicts_of
from isaerft.analysis.readings import Reading, primary_reading, read_changes
from isaerft.config import Plan, SteeringCheck
from isaerft.errors import InputError
from isaerft.layout import Results

SUPPORTED, CONTRADICTED, UNTESTED = GROUPS = ("supported", "contradicted", "untested")
WITHOUT_VERDICT = ("untestable", "inconclusive")
"""Verdicts that decide nothing: latents that can be controls."""


def choose_latents(plan: Plan, results: Results, subject: str, options: SteeringCheck) -> pd.DataFrame:
    """Draw the latents that are steered, by the verdicts of the primary reading.

    Of the explanations that claim something of a behavior with a metric, at most `n_latents` supported and as many
    contradicted ones are drawn at random. Each latent gets a control among those with such a claim and no verdict, like
    it in firing rate and decoder norm, as far as there are that many.

    Returns
    -------
    DataFrame
        latent_index; group (supported, contradicted, untested); matched_to, for a control the latent that it is like
        (Int64).

    Raises
    ------
    InputError
        The primary source does not explain the subject.
    """
    reading = primary_reading(plan, results, subject)
    if reading is None:
        raise InputError(f"source {plan.study.primary.source!r} does not explain subject {subject!r}")
    found = verdicts_of(plan, reading, read_changes(plan, results, subject, plan.study.primary.adapter))
    verdict = found.set_index("latent_index")["verdict"].loc[reading.latents].to_numpy()
    claiming = (claims_of(reading, plan.steering_scored) != 0).any(axis=0)
    rng = np.random.default_rng(plan.study.seed)
    places = {group: _drawn(claiming & (verdict == group), options.n_latents, rng) for group in GROUPS[:2]}
    chosen = np.concatenate(list(places.values()))
    free = np.flatnonzero(claiming & np.isin(verdict, WITHOUT_VERDICT))
    matched = rng.permutation(chosen)[: len(free)]
    drawn = _controls(reading, matched, free, rng)
    groups = [*np.repeat(list(places), [len(own) for own in places.values()]), *[UNTESTED] * len(drawn)]
    partners = [*[None] * len(chosen), *reading.latents[matched]]
    return pd.DataFrame(
        {
            "latent_index": reading.latents[np.concatenate([chosen, drawn])].astype(np.int64),
            "group": pd.Series(groups, dtype="str"),
            "matched_to": pd.Series(partners, dtype="Int64"),
        }
    )


def claims_of(reading: Reading, behaviors: list[str]) -> np.ndarray:
    """Return what explanations claim that amplifying their latents does to behaviors, (n_behaviors, n) int64.

    1: raises it; -1: lowers it; 0: no claim, as the judge does not expect a change.
    """
    rows = [reading.behaviors.index(name) for name in behaviors]
    expectation = reading.expectation
    return (np.sign(expectation.effect[rows]) * expectation.expected[rows]).astype(np.int64)


def _drawn(eligible: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return at most `n` places of eligible latents, ascending."""
    return np.sort(rng.permutation(np.flatnonzero(eligible))[:n])


def _controls(reading: Reading, chosen: np.ndarray, free: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return for each chosen place a free one whose latent is like it."""
    if not len(chosen):
        return chosen
    among = np.concatenate([chosen, free])
    confounds = reading.confounds.at(among)
    draws = stats.matched_draws(
        np.arange(len(chosen)), confounds.firing_rate, confounds.decoder_norm, n_draws=1, rng=rng
    )
    return among[draws[0]]
