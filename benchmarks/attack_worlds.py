"""Worlds in which an outside review attacked the statistics: each returns what one draw of it shows, by name.

A value is 1 or 0 (a p-value of at most 0.05, an interval that holds the truth) or a number; NaN where a study would
leave the number empty.
"""

import math
from dataclasses import replace
from functools import cache

import numpy as np
from scipy.special import expit
from scipy.stats import norm

from isaerft import stats
from isaerft.calibration.audits import audit_errors
from isaerft.calibration.nulls import Evidence, evidence_of, results_of
from isaerft.calibration.verdicts import VERDICT_WORLDS, draw_told, errors_of
from isaerft.calibration.worlds import LOGISTIC_SD, World, draw
from isaerft.config import Calibration

SIZES = Calibration()
N_LATENTS, N_BINS, LEVEL = 500, SIZES.n_bins, 0.05
Found = dict[str, float]


def tested(evidence: Evidence, rng: np.random.Generator) -> Found:
    """Return which p-values of a study are at most 0.05, and which intervals hold what is found by chance."""
    found = {}
    for test, result in results_of(evidence, 0, n_resamples=SIZES.n_resamples, rng=rng):
        found[f"p {test}"] = math.nan if math.isnan(result.pvalue) else float(result.pvalue <= LEVEL)
        if result.interval is not None:
            found[f"interval {test}"] = _holds(result.interval, result.chance)
    return found


def _holds(interval: stats.ConfidenceInterval, truth: float) -> float:
    return math.nan if math.isnan(interval.low) else float(interval.low <= truth <= interval.high)


def null_world(world: World, rng: np.random.Generator) -> Found:
    """Run a study's tests where explanations say nothing."""
    sized = replace(world, n_latents=N_LATENTS, n_behaviors=SIZES.n_behaviors, n_placebos=SIZES.n_placebos)
    return tested(evidence_of(draw(sized, rng), N_BINS), rng)


def chosen_explanations(rng: np.random.Generator) -> Found:
    """Run them where a latent gets its explanation if it is salient and on the topic, or neither; salience moves it."""
    world = World(2 * N_LATENTS, n_behaviors=SIZES.n_behaviors, n_placebos=SIZES.n_placebos)
    drawn, salience = draw(world, rng), rng.normal(size=world.n_latents)
    moved = 0.3 * LOGISTIC_SD * salience
    drawn = replace(drawn, changes=drawn.changes + moved, placebos=drawn.placebos + moved)
    explained = rng.random(world.n_latents) < expit(2 * salience * np.where(drawn.expected[0], 1, -1))
    return tested(evidence_of(drawn, N_BINS).on(np.flatnonzero(explained)), rng)


def few_expected(rng: np.random.Generator) -> Found:
    """Return the p-values of perfect agreement with 1 to 4 expected latents of 1,000."""
    found = {}
    for n_expected in (1, 2, 4):
        share = n_expected / 1000
        drawn = draw(World(1000, n_behaviors=SIZES.n_behaviors, n_placebos=9, expected_share=share), rng)
        evidence = evidence_of(drawn, N_BINS)
        evidence.changes[0, evidence.expected[0]] += len(drawn)
        for test, result in results_of(evidence, 0, n_resamples=999, rng=rng):
            found[f"{test} {n_expected}"] = result.pvalue
    return found


def detectable(n_expected: int, rng: np.random.Generator) -> Found:
    """Tell whether an effect as large as the reported minimum detectable one is found, in a further training."""
    share = n_expected / 800
    drawn = draw(World(800, n_behaviors=SIZES.n_behaviors, n_placebos=99, expected_share=share), rng)
    evidence = evidence_of(drawn, N_BINS)
    labels = evidence.expected[:1]
    others = stats.specificity_matrix(evidence.changes[1:], labels, **evidence.groups)[:, 0]
    null = stats.specificity_matrix(evidence.placebos, labels, **evidence.groups)[:, 0]
    detected = stats.against_others(float(null[0]), others, bounds=(0, 1)).minimum_detectable_effect()
    if detected > 1:
        return {"power": math.nan}
    moved = float(null[0] - null.mean()) + detected
    return {"power": float(stats.against_others(moved, others, bounds=(0, 1)).pvalue <= LEVEL)}


def ceilings(share: float, rng: np.random.Generator) -> Found:
    """Return the reported noise ceiling of a yes-or-no expectation, and what a perfect one reaches, as Spearman's."""
    true = rng.normal(size=1000)
    seeds = true + 0.5 * rng.normal(size=(4, 1000))
    perfect = (true > np.quantile(true, 1 - share)).astype(float)
    return {
        "ceiling": stats.spearman_ceiling_of_mean(seeds, perfect),
        "reached": float(stats.spearman(stats.mean_rank(seeds), perfect)),
    }


def sparse(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return changes, 30 of 600 of which are not 0, with 10 expected latents, and clusters of one."""
    expected = rng.permutation(600) < 10
    change = rng.normal(size=600) + expected
    change[np.argsort(-np.abs(change))[30:]] = 0
    return change, expected, np.arange(600)


def dominated(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return changes, expectations and clusters where six clusters of near-duplicates hold 160 of 600 latents."""
    clusters = np.r_[np.repeat(np.arange(6), [64, 40, 25, 15, 10, 6]), np.arange(6, 446)]
    parts = [math.sqrt(0.8) * rng.normal(size=446)[clusters] + math.sqrt(0.2) * rng.normal(size=600) for _ in range(2)]
    expected = parts[1] > np.sort(parts[1])[-41]
    return parts[0] + expected, expected, clusters


LATENTS = {"sparse": sparse, "dominated": dominated}


@cache
def true_auroc(name: str) -> float:
    """Return the mean AUROC over very many worlds of a kind."""
    rng = np.random.default_rng(0)
    return float(np.mean([stats.auroc(*LATENTS[name](rng)[:2]) for _ in range(3000)]))


def over_latents(name: str, rng: np.random.Generator) -> Found:
    """Tell whether the interval of an AUROC over latents holds its mean over worlds."""
    change, expected, clusters = LATENTS[name](rng)
    found = stats.agreement_test(change, expected, clusters=clusters, n_resamples=19, rng=rng)
    return {"covered": _holds(found.confidence_interval, true_auroc(name))}


def corrected(n_explanations: int, rng: np.random.Generator) -> Found:
    """Tell whether the interval of an AUROC that is corrected for a judge's errors holds the true one, 0.8."""
    true = rng.permutation(800) < 80

    def judged(labels: np.ndarray) -> np.ndarray:
        return np.where(labels, rng.random(labels.shape) < 0.6, rng.random(labels.shape) < 0.03)

    own = rng.normal(size=800) + math.sqrt(2) * float(norm.ppf(0.8)) * true
    changes, labels = np.vstack([own, rng.normal(size=(7, 800))]), judged(true)
    column = stats.specificity_matrix(changes, labels[None])[:, 0]
    found = stats.against_others(column[0], column[1:], bounds=(0, 1))
    reference = rng.random((n_explanations, 8)) < 0.1
    explanation = np.repeat(np.arange(n_explanations), 8)
    rates = stats.error_rates(judged(reference).ravel(), reference.ravel(), explanation, n_resamples=299, rng=rng)
    result = stats.corrected_auroc(column[0], rates, labels.mean(), found.confidence_interval)
    return {"covered": _holds(result.confidence_interval, 0.8)}


def families(true_share: float, rng: np.random.Generator) -> Found:
    """Tell whether a family of 16 true nulls shows a q below 0.05, beside 274 of which a share of tests finds much."""
    scores = rng.normal(size=(275, 16))
    scores[1:] += 3.5 * (rng.random((274, 16)) < true_share)
    codes = np.repeat(np.arange(275), 16)
    adjusted = stats.family_qvalues(norm.sf(scores).ravel(), codes)
    return {"any": float((adjusted[:16] < LEVEL).any())}


def verdicts(name: str, rng: np.random.Generator) -> Found:
    """Return the shares of false and of due verdicts in a world of explanations."""
    return errors_of(draw_told(VERDICT_WORLDS[name], rng))


def audit(name: str, rng: np.random.Generator) -> Found:
    """Return the shares of candidates that an audit of two sets of one origin finds."""
    return audit_errors(name, 0.8, SIZES, rng)
