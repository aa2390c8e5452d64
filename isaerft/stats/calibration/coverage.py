"""How often each interval holds what it is about.

What an interval is about is known by drawing more: the statistic of a very large world for those over latents, the mean
over very many further behaviors (changes) of the same dictionary for those over behaviors (changes).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from isaerft.stats.calibration.nulls import strata_in
from isaerft.stats.calibration.rows import CONFIDENCE, Row, Sizes, share, stream
from isaerft.stats.calibration.worlds import Dictionary, Drawn, World, draw
from isaerft.stats.intervals import ConfidenceInterval
from isaerft.stats.overall import overall_agreement, overall_specificity
from isaerft.stats.pooled import pooled_agreement
from isaerft.stats.question import TestOptions, ask
from isaerft.stats.seeds import mean_rank
from isaerft.stats.statistics import centred_ranks

INTERVALS = ("auroc", "stratified_auroc", "spearman", "precision_at_k")
# A world this large moves a statistic by less than a twentieth of the smallest interval's half-width.
N_POPULATION, POPULATIONS = 2**16, 4
# Bins so wide that no stratum of the sample is merged: the estimand of the stratified AUROC is then the population's.
FEW_BINS = 2
FURTHER = 150
# An interval is about the statistic as it stands, what confounding does to it included.
WORLD = {"clustered": 0.3, "confounding": 0.3}
SPREAD = 0.3


def interval_rows(odds_ratio: float, sizes: Sizes) -> list[Row]:
    """Return the coverage of the intervals over latents, with clusters and seeds, at an odds ratio."""
    # One behavior, whose confounding is the same in the population and in every sample of it.
    world = World(sizes.coverage_latents, odds_ratio=odds_ratio, confounding_spread=0, **WORLD)
    large = replace(world, n_latents=N_POPULATION)
    part = f"coverage {odds_ratio:g}"
    truths = [
        {name: _value(name, draw(large, stream(sizes.seed, f"{part} population", i))) for name in INTERVALS}
        for i in range(POPULATIONS)
    ]
    truth = {name: float(np.mean([one[name] for one in truths])) for name in INTERVALS}
    held: dict[str, list[bool]] = {name: [] for name in INTERVALS}
    options = TestOptions("greater", 1, CONFIDENCE)
    for index in range(sizes.coverage_worlds):
        rng = stream(sizes.seed, part, index)
        drawn = draw(world, rng)
        for name in INTERVALS:
            question = ask(*_pair(name, drawn), statistic=name, **_groups(drawn))
            result = question.answer(np.zeros(1), options, exact=False, rng=rng)
            held[name].append(_holds(result.confidence_interval, truth[name]))
    same = {"odds_ratio": f"{odds_ratio:g}", "n": sizes.coverage_latents, "confidence": CONFIDENCE}
    return [share("coverage", hits, interval=name, **same) for name, hits in held.items()]


def across_rows(odds_ratio: float, sizes: Sizes) -> list[Row]:
    """Return the coverage of the intervals over behaviors and over changes, at an odds ratio that spreads."""
    world = World(
        sizes.coverage_latents,
        n_behaviors=sizes.n_behaviors,
        odds_ratio=odds_ratio,
        n_seeds=2,
        odds_ratio_spread=SPREAD,
        **WORLD,
    )
    held: dict[str, list[bool]] = {}
    for index in range(sizes.coverage_worlds):
        rng = stream(sizes.seed, f"coverage across {odds_ratio:g}", index)
        dictionary = Dictionary(world, rng)
        for name, holds in _across(dictionary, rng).items():
            held.setdefault(name, []).append(holds)
    same = {
        "odds_ratio": f"{odds_ratio:g}",
        "n": sizes.coverage_latents,
        "behaviors": sizes.n_behaviors,
        "confidence": CONFIDENCE,
    }
    return [share("coverage", hits, interval=name, **same) for name, hits in held.items()]


def _across(dictionary: Dictionary, rng: np.random.Generator) -> dict[str, bool]:
    """Return whether each interval over behaviors, or changes, of one dictionary holds its truth."""
    seen, further = (dictionary.behaviors(n, rng) for n in (dictionary.world.n_behaviors, FURTHER))
    changes, many = (np.array([mean_rank(seeds) for seeds in one.changes]) for one in (seen, further))
    labels, groups = seen.expected, {"clusters": seen.clusters}
    options = groups | {"n_resamples": 1, "rng": rng}
    matrix = _matrix(many, further.expected)
    own = float(np.trace(matrix)) / FURTHER
    others = (float(matrix.sum()) - FURTHER * own) / (FURTHER * (FURTHER - 1))
    found = {
        "overall_agreement": (overall_agreement(list(zip(changes, labels, strict=True)), **options), own),
        "overall_specificity": (overall_specificity(_matrix(changes, labels), n_resamples=1, rng=rng), own - others),
        "pooled_expectations": (
            pooled_agreement(changes[:1], labels[1:], **options),
            float(_matrix(changes[:1], further.expected).mean()),
        ),
        "pooled_changes": (
            pooled_agreement(changes[1:], labels[:1], **options),
            float(_matrix(many, labels[:1]).mean()),
        ),
    }
    return {name: _holds(result.confidence_interval, truth) for name, (result, truth) in found.items()}


def _matrix(changes: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return the AUROC of every row of changes (a, n) against every row of labels (b, n), (a, b)."""
    ranks = np.array([centred_ranks(change) for change in changes])
    n_expected = expected.sum(axis=1)
    return 0.5 + ranks @ expected.T / (2 * n_expected * (expected.shape[1] - n_expected))


def _value(name: str, drawn: Drawn) -> float:
    """Return a statistic of one draw."""
    scorer = ask(*_pair(name, drawn), statistic=name, **_groups(drawn)).scorer
    return float(scorer(scorer.labels[None])[0])


def _pair(name: str, drawn: Drawn) -> tuple[np.ndarray, np.ndarray]:
    labels = drawn.effect[0] if name == "spearman" else drawn.expected[0]
    return mean_rank(drawn.changes[0]), labels


def _groups(drawn: Drawn) -> dict[str, np.ndarray]:
    return {"strata": strata_in(drawn, FEW_BINS), "clusters": drawn.clusters}


def _holds(interval: ConfidenceInterval, truth: float) -> bool:
    """Tell whether an interval holds the truth; an undefined one does not."""
    return bool(interval.low <= truth <= interval.high)
