"""Coverage: how often each interval contains the truth.

The truth is known by drawing more: the statistic of a very large world for intervals over latents, the mean over very
many further behaviors (changes) of the same dictionary for intervals over behaviors (changes), and the same judge on
very many explanations for the intervals of a judge's quality.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.special import expit

from isaerft.calibration.nulls import evidence_of, results_of
from isaerft.calibration.results import CONFIDENCE, Row, share, stream
from isaerft.calibration.worlds import Dictionary, Drawn, World, draw
from isaerft.config import Calibration
from isaerft.stats.agreement import PreparedTest, prepare_test
from isaerft.stats.checks import NullOptions
from isaerft.stats.confounds import smooth_confounds
from isaerft.stats.intervals import ConfidenceInterval, mean_interval
from isaerft.stats.overall import overall_agreement
from isaerft.stats.raters import agreement_of_judges, rank_agreement
from isaerft.stats.seeds import mean_rank
from isaerft.stats.specificity import contrast, specificity_matrix
from isaerft.stats.statistics import centered_ranks
from isaerft.stats.trainings import against_others, others_of

INTERVALS = ("auroc", "stratified_auroc", "spearman")
# A world this large moves a statistic by less than a twentieth of the smallest interval's half-width.
N_POPULATION, POPULATIONS = 2**16, 4
# Bins wide enough that no stratum of the sample is merged: so the stratified AUROC estimates the population's.
FEW_BINS = 2
FURTHER = 150
# An interval covers the statistic itself, confounding included.
WORLD = World(0, clustered=0.3, confounding=0.3)
SPREAD = 0.3


def interval_rows(odds_ratio: float, sizes: Calibration) -> list[Row]:
    """Return the coverage of the intervals over latents, with clusters and seeds, at an odds ratio."""
    # One behavior, whose confounding is the same in the population and in every sample of it.
    world = replace(WORLD, n_latents=sizes.coverage_latents, odds_ratio=odds_ratio, confounding_spread=0)
    large = replace(world, n_latents=N_POPULATION)
    part = f"coverage {odds_ratio:g}"
    truths = [
        {name: _value(name, draw(large, stream(sizes.seed, f"{part} population", i))) for name in INTERVALS}
        for i in range(POPULATIONS)
    ]
    truth = {name: float(np.mean([one[name] for one in truths])) for name in INTERVALS}
    held: dict[str, list[bool]] = {name: [] for name in INTERVALS}
    for index in range(sizes.coverage_worlds):
        rng = stream(sizes.seed, part, index)
        drawn = draw(world, rng)
        for name in INTERVALS:
            held[name].append(_holds(_prepared(name, drawn).interval(CONFIDENCE, rng), truth[name]))
    same = {"odds_ratio": f"{odds_ratio:g}", "n": sizes.coverage_latents, "confidence": CONFIDENCE}
    return [share("coverage", hits, interval=name, **same) for name, hits in held.items()]


def behavior_rows(odds_ratio: float, sizes: Calibration) -> list[Row]:
    """Return the coverage of intervals over trainings, behaviors and changes, at odds ratios that spread around one."""
    world = replace(
        WORLD,
        n_latents=sizes.coverage_latents,
        n_behaviors=sizes.n_behaviors,
        odds_ratio=odds_ratio,
        n_seeds=2,
        odds_ratio_spread=SPREAD,
    )
    held: dict[str, list[bool]] = {}
    for index in range(sizes.coverage_worlds):
        rng = stream(sizes.seed, f"coverage across {odds_ratio:g}", index)
        dictionary = Dictionary(world, rng)
        for name, holds in _over_behaviors(dictionary, sizes, rng).items():
            held.setdefault(name, []).append(holds)
    same = {
        "odds_ratio": f"{odds_ratio:g}",
        "n": sizes.coverage_latents,
        "behaviors": sizes.n_behaviors,
        "confidence": CONFIDENCE,
    }
    return [share("coverage", hits, interval=name, **same) for name, hits in held.items()]


def _over_behaviors(dictionary: Dictionary, sizes: Calibration, rng: np.random.Generator) -> dict[str, bool]:
    """Return whether each interval over trainings, behaviors or changes of one dictionary contains the truth."""
    seen, further = (dictionary.behaviors(n, rng) for n in (dictionary.world.n_behaviors, FURTHER))
    again = dictionary.trainings(seen.expected[0], float(seen.log_odds[0]), FURTHER, rng)
    evidence = evidence_of(seen, sizes.n_bins)
    changes, labels, groups = evidence.changes, seen.expected, evidence.groups
    many, repeated = further.mean_changes(), np.array([mean_rank(seeds) for seeds in again])
    plain, adjusted = auroc_matrix(many, further.expected), auroc_matrix(many, further.expected, groups)
    own = np.diagonal(specificity_matrix(changes, labels))
    column = specificity_matrix(changes, labels[:1])[:, 0]
    found: dict[str, tuple[ConfidenceInterval, float]] = {
        "estimate": (
            against_others(column[0], others_of(column, 0), bounds=(0, 1)).confidence_interval,
            float(auroc_matrix(repeated, labels[:1]).mean()),
        ),
        "overall_agreement": (
            overall_agreement(own, bounds=(0, 1)).confidence_interval,
            float(np.diagonal(plain).mean()),
        ),
        "pooled_expectations": (
            mean_interval(specificity_matrix(changes[:1], labels[1:])[0], CONFIDENCE),
            float(auroc_matrix(changes[:1], further.expected).mean()),
        ),
        "pooled_changes": (
            mean_interval(column[1:], CONFIDENCE),
            float(auroc_matrix(many, labels[:1]).mean()),
        ),
    }
    truths = {
        "trainings": float(auroc_matrix(repeated, labels[:1], groups).mean()),
        "specificity": float(contrast(adjusted)),
    }
    for name, outcome in results_of(evidence, 0, n_resamples=1, rng=rng):
        if outcome.interval is not None:
            found[name] = outcome.interval, truths[name]
    return {name: _holds(interval, truth) for name, (interval, truth) in found.items()}


def auroc_matrix(changes: np.ndarray, expected: np.ndarray, groups: NullOptions | None = None) -> np.ndarray:
    """Return the AUROC of every row of changes (a, n) against every row of labels (b, n), (a, b).

    With `groups`, what strata and confounds explain of the labels is taken out.
    """
    ranks = np.array([centered_ranks(change) for change in changes])
    n_expected = expected.sum(axis=1)
    labels = expected.astype(np.float64)
    if groups is not None:
        smooth = smooth_confounds(groups["confounds"], groups["strata"], groups["clusters"])
        labels = labels - (smooth.fitted(labels) if smooth else 0.0)
    return 0.5 + ranks @ labels.T / (2 * n_expected * (expected.shape[1] - n_expected))


def _value(name: str, drawn: Drawn) -> float:
    """Return a statistic of one draw."""
    return _prepared(name, drawn).value


def _prepared(name: str, drawn: Drawn) -> PreparedTest:
    """Return the test of a statistic on the first behavior of one draw."""
    labels = drawn.effect[0] if name == "spearman" else drawn.expected[0]
    return prepare_test(
        mean_rank(drawn.changes[0]), labels, statistic=name, strata=drawn.strata(FEW_BINS), clusters=drawn.clusters
    )


def _holds(interval: ConfidenceInterval, truth: float) -> bool:
    """Return whether an interval contains the truth; an undefined one does not."""
    return bool(interval.low <= truth <= interval.high)


N_BEHAVIORS, EXPECTED = 8, 0.1
# A judge finds most expected latents and rarely invents others; some explanations mislead it more than others.
FOUND, INVENTED, MISLEADING = 1.0, -3.0, 0.7
LATENTS_EACH = 6
POPULATION = 100_000


def judge_rows(n_explanations: int, sizes: Calibration) -> list[Row]:
    """Return the coverage of the intervals in judge_quality.csv, for explanations of about 6 latents each."""
    first, second, effects, clusters = _judged(POPULATION, stream(sizes.seed, "judges population", 0))
    truth = {
        name: found.estimate for name, found in agreement_of_judges(first, second, clusters, n_resamples=1).items()
    }
    truth["spearman"] = float(rank_agreement(*effects, clusters).estimate)
    held: dict[str, list[bool]] = {name: [] for name in truth}
    for index in range(sizes.coverage_worlds):
        rng = stream(sizes.seed, f"judges {n_explanations}", index)
        first, second, effects, clusters = _judged(n_explanations, rng)
        found = agreement_of_judges(first, second, clusters, confidence_level=CONFIDENCE, rng=rng)
        found["spearman"] = rank_agreement(*effects, clusters, confidence_level=CONFIDENCE)
        for name, (_, interval) in found.items():
            held[name].append(_holds(interval, truth[name]))
    same = {"explanations": n_explanations, "confidence": CONFIDENCE}
    return [share("coverage", hits, interval=f"judge_{name}", **same) for name, hits in held.items()]


def _judged(
    n_explanations: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Return what a judge and the truth expect of pairs of latent and behavior, their effects, and the explanation."""
    shape = (n_explanations, N_BEHAVIORS)
    second = rng.random(shape) < EXPECTED
    misleading = MISLEADING * rng.normal(size=(n_explanations, 1))
    first = rng.random(shape) < expit(np.where(second, FOUND + misleading, INVENTED + misleading))
    effect = second * rng.choice([0.25, 0.5, 1.0], size=shape)
    guess = 0.5 * effect + 0.2 * rng.random(shape) + 0.2 * misleading
    times = 1 + rng.poisson(LATENTS_EACH - 1, size=n_explanations)
    clusters = np.repeat(np.arange(n_explanations), times * N_BEHAVIORS)
    pairs = [np.repeat(part, times, axis=0).ravel() for part in (first, second, guess, effect)]
    return pairs[0], pairs[1], (pairs[2], pairs[3]), clusters
