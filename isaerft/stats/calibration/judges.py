"""How often the intervals of a judge's quality hold what they are about: the same judge on very many explanations."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from isaerft.stats.calibration.rows import CONFIDENCE, Row, Sizes, share, stream
from isaerft.stats.raters import agreement_of_judges, rank_agreement

N_BEHAVIORS, EXPECTED = 8, 0.1
# A judge finds most of what is expected and seldom more; some explanations mislead it more than others.
FOUND, INVENTED, MISLEADING = 1.0, -3.0, 0.7
LATENTS_EACH = 6
POPULATION = 100_000


def judge_rows(n_explanations: int, sizes: Sizes) -> list[Row]:
    """Return the coverage of the intervals in judge_quality.csv, for so many explanations of about 6 latents each."""
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
            held[name].append(bool(interval.low <= truth[name] <= interval.high))
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
