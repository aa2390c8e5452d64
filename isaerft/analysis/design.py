"""Draw the case-control sample of a subject's latents before any explanation is requested."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import pandas as pd

from isaerft import stats
from isaerft.analysis.readings import alive_latents, confounds_of, read_changes
from isaerft.config import Plan
from isaerft.errors import InputError
from isaerft.layout import Results

logger = logging.getLogger(__name__)


def draw_sample(plan: Plan, results: Results, subject: str) -> None:
    """Draw cases by the primary measure, over all behaviors and adapters, and their controls.

    Both are written to `results.design(subject)`.

    Raises
    ------
    InputError
        Nothing changed, or no adapter has the primary measure.
    """
    from isaerft.explanations import CASE_ROLE, CONTROL_ROLE, write_sample

    facts = results.subject(subject).read_latents()
    latents = alive_latents(plan, facts)
    confounds = confounds_of(plan, facts, latents)
    options = plan.study.design
    names: list[str] = []

    def sizes() -> Iterator[np.ndarray]:
        for name, size in _sizes(plan, results, subject, latents):
            names.append(name)
            yield size

    drawn = stats.case_control(
        sizes(),
        confounds.strata,
        confounds.clusters,
        n_cases=options.n_cases,
        controls_per_case=options.controls_per_case,
        rng=plan.study.seed if options.seed is None else options.seed,
    )
    groups = np.array(names)
    sample = pd.DataFrame(
        {
            "latent_index": latents[drawn.latents],
            "role": np.where(drawn.is_case, CASE_ROLE, CONTROL_ROLE),
            "stratum": confounds.strata[drawn.latents],
            "matched_to": latents[drawn.matched_to],
            "drawn_for": [", ".join(groups[of]) for of in drawn.drawn_for.T],
        }
    )
    write_sample(sample, results.design(subject))
    logger.info(
        "%d of %d latents drawn: %d cases, %d controls; %d controls lacking",
        len(sample),
        len(latents),
        int(drawn.is_case.sum()),
        int((~drawn.is_case).sum()),
        drawn.n_lacking,
    )


def _sizes(plan: Plan, results: Results, subject: str, latents: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield behavior/adapter and the mean over seeds of the size of each latent's change, (n,), one at a time."""
    measure, any_found = plan.study.primary.measure, False
    for adapter in plan.analyzed_adapters(subject):
        for behavior in plan.tested_behaviors:
            own = read_changes(plan, results, subject, adapter, [behavior], latents=latents)
            if (behavior, measure) in own:
                any_found = True
                yield f"{behavior}/{adapter}", np.abs(own[behavior, measure]).mean(0)
    if not any_found:
        raise InputError(f"no adapter of {subject!r} has changes by {measure!r}", remedy="train an adapter on latents")
