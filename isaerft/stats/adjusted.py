"""The nulls of questions that have smooth confounds.

A statistic that is linear in the labels is exchanged as `isaerft.stats.studentised` says. For another one the changes
are exchanged instead: what confounds explain of their ranks stays where it is, and the rest is exchanged between
latents (Freedman and Lane 1983, J. Bus. Econ. Stat. 1:292). There the labels, and so what confounds explain of them,
stay: where that is much, the null is wider than need be, and the test conservative.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isaerft.stats.question import Question
from isaerft.stats.statistics import LinearScorer, centred_ranks
from isaerft.stats.studentised import studentised_null

BATCH = 256


def adjusted_nulls(questions: Sequence[Question], n_resamples: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return the null distribution (n_resamples,) of each question; all have the same exchange and confounds."""
    nulls: dict[int, np.ndarray] = {}
    linear = [place for place, question in enumerate(questions) if isinstance(question.scorer, LinearScorer)]
    if linear:
        first, scorers = questions[linear[0]], [questions[place].scorer for place in linear]
        found = studentised_null(first.exchange, first.smooth, scorers, n_resamples, rng)
        nulls |= dict(zip(linear, found, strict=True))
    return [
        nulls[place] if place in nulls else freedman_lane_null(question, n_resamples, rng)
        for place, question in enumerate(questions)
    ]


def freedman_lane_null(question: Question, n_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return the null distribution (n_resamples,) of one question, exchanging what is left of its changes."""
    order = question.exchange.order
    ranks = centred_ranks(question.change)
    explained = question.smooth.fitted(ranks)
    fitted, rest = explained[order], (ranks - explained)[order]
    labels, strata = question.labels[order], question.strata[order]
    null = []
    for start in range(0, n_resamples, BATCH):
        for places in question.exchange.permutations(min(BATCH, n_resamples - start), rng):
            scorer = question.kind.bind(fitted + rest[places], labels, strata)
            null.append(float(scorer(scorer.labels[None])[0]))
    return np.array(null)
