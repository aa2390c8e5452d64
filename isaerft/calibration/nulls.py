"""False positives: how often our tests and naive ones reject in worlds without agreement.

`results_of` runs the tests that a study reports, by the functions that report them, on arrays. Simulated worlds and
random directions through a study's own dictionary (`isaerft.calibration.own`) both use it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import binom, mannwhitneyu

from isaerft.calibration.results import Row, mean, share, stream
from isaerft.calibration.worlds import Drawn, draw, world_of
from isaerft.config import Calibration
from isaerft.errors import InputError
from isaerft.registry import STATISTICS
from isaerft.stats.agreement import agreement_test
from isaerft.stats.checks import NullOptions
from isaerft.stats.confounds import negative_controls
from isaerft.stats.exchange import joined
from isaerft.stats.families import families_of
from isaerft.stats.intervals import ConfidenceInterval
from isaerft.stats.overall import overall_specificity
from isaerft.stats.sampling import case_control
from isaerft.stats.specificity import specificity_matrix
from isaerft.stats.statistics import Statistic, auroc
from isaerft.stats.trainings import against_others, others_of, placebo_pvalue

LEVELS = (0.05, 0.01)
N_CASES, PER_CASE = 30, 4
NAIVE = "naive_"


@dataclass(frozen=True)
class Evidence:
    """What a study tests: B behaviors, P placebo trainings, n latents.

    Attributes
    ----------
    changes : (B, n) float
        Combined over seeds.
    placebos : (P, n) float
    expected : (B, n) bool
    texts : (n,) int64
        The explanation of each latent.
    groups : NullOptions
        Strata, clusters of near-duplicates, and confounds.
    """

    changes: np.ndarray
    placebos: np.ndarray
    expected: np.ndarray
    texts: np.ndarray
    groups: NullOptions

    @property
    def groups_of_texts(self) -> NullOptions:
        """The same for tests that exchange labels between texts, near-duplicates with them."""
        return NullOptions({**self.groups, "clusters": joined(self.texts, self.groups["clusters"])})

    def on(self, latents: np.ndarray) -> Evidence:
        """Return the evidence on some latents, (m,) int64."""
        return replace(
            self,
            changes=self.changes[:, latents],
            placebos=self.placebos[:, latents],
            expected=self.expected[:, latents],
            texts=np.unique(self.texts[latents], return_inverse=True)[1],
            groups=NullOptions(
                strata=self.groups["strata"][latents],
                clusters=self.groups["clusters"][latents],
                confounds=self.groups["confounds"][:, latents],
            ),
        )


@dataclass(frozen=True)
class Outcome:
    """What a test reports.

    Attributes
    ----------
    pvalue : float
    interval : ConfidenceInterval or None
        Of what is estimated, where the test gives one.
    chance : float
        What the interval should hold if explanations say nothing; NaN where that is not known.
    """

    pvalue: float
    interval: ConfidenceInterval | None = None
    chance: float = math.nan


def evidence_of(drawn: Drawn, n_bins: int) -> Evidence:
    """Return what a study would test in a simulated world."""
    changes, placebos = drawn.mean_changes(), drawn.mean_placebos()
    return Evidence(changes, placebos, drawn.expected, drawn.texts, drawn.groups(n_bins))


def results_of(
    evidence: Evidence, own: int, *, n_resamples: int, rng: np.random.Generator
) -> Iterator[tuple[str, Outcome]]:
    """Yield the result of every test that a study reports: of behavior `own`, and of all behaviors together."""
    changes, expected, groups = evidence.changes, evidence.expected, evidence.groups
    families = families_of(changes, expected)
    matrix = specificity_matrix(changes, expected, **groups)
    placebos = np.empty(0)
    if len(evidence.placebos):
        placebos = specificity_matrix(evidence.placebos, expected[own : own + 1], **groups)[:, 0]
    found = against_others(matrix[own, own], others_of(matrix[:, own], own, families), bounds=(0, 1))
    chance = float(placebos.mean()) if len(placebos) else math.nan
    yield "trainings", Outcome(found.pvalue, found.confidence_interval, chance)
    yield "placebos", Outcome(placebo_pvalue(matrix[own, own], placebos))
    others = families != families[own]
    options = {"controls": negative_controls(changes[others], expected[others]), "n_resamples": n_resamples, "rng": rng}
    yield "texts", Outcome(_exchanged(changes[own], expected[own], evidence.groups_of_texts, **options))
    if len(np.unique(families)) > 1:
        all_together = overall_specificity(matrix, families=families, n_resamples=n_resamples, rng=rng)
        yield "specificity", Outcome(all_together.pvalue, all_together.confidence_interval, 0.0)


def null_rows(name: str, n_latents: int, sizes: Calibration) -> list[Row]:
    """Return the false-positive rates and coverage of every test in null worlds of a kind (see `WORLDS`)."""
    counts = Counts()
    for index in range(sizes.null_worlds):
        rng = stream(sizes.seed, f"null {name} {n_latents}", index)
        world = world_of(name, n_latents=n_latents, n_behaviors=sizes.n_behaviors, n_placebos=sizes.n_placebos)
        drawn = draw(world, rng)
        evidence = evidence_of(drawn, sizes.n_bins)
        counts.add(results_of(evidence, 0, n_resamples=sizes.n_resamples, rng=rng))
        counts.add(case_control_results(evidence, sizes, rng))
        counts.add(_naive(drawn, evidence, sizes, rng))
        counts.confounding.append(float(auroc(drawn.firing_rate, drawn.expected[0])))
    return counts.rows(world=name, n=n_latents)


class Counts:
    """Results of tests in null worlds, world by world."""

    def __init__(self) -> None:
        self.pvalues: dict[str, list[float]] = defaultdict(list)
        self.covered: dict[str, list[bool]] = defaultdict(list)
        self.confounding: list[float] = []

    def add(self, results: Iterator[tuple[str, Outcome]]) -> None:
        """Add the results of one world; a test that gave none does not count."""
        for test, found in results:
            if np.isfinite(found.pvalue):
                self.pvalues[test].append(found.pvalue)
            if found.interval is not None and np.isfinite([found.interval.low, found.chance]).all():
                self.covered[test].append(bool(found.interval.low <= found.chance <= found.interval.high))

    def rows(self, **same: object) -> list[Row]:
        """Return false-positive rates, coverage of chance, and how strongly labels follow the firing rate."""
        rates = [
            share("false_positive_rate", np.array(pvalues) <= level, test=test, level=level, **same)
            for test, pvalues in self.pvalues.items()
            for level in LEVELS
        ]
        coverage = [share("coverage", held, interval=test, **same) for test, held in self.covered.items()]
        return [
            *rates,
            *coverage,
            *([mean("auroc_of_firing_rate", self.confounding, **same)] if self.confounding else []),
        ]


def case_control_results(
    evidence: Evidence, sizes: Calibration, rng: np.random.Generator
) -> Iterator[tuple[str, Outcome]]:
    """Yield the results over trainings on a sample drawn by how much latents changed under every behavior."""
    strata, clusters = evidence.groups["strata"], evidence.groups["clusters"]
    sample = case_control(evidence.changes, strata, clusters, n_cases=N_CASES, controls_per_case=PER_CASE, rng=rng)
    part = replace(evidence.on(sample.latents), placebos=np.empty((0, len(sample.latents))))
    # A behavior none of whose expected latents was drawn cannot be tested, as in a study.
    testable = np.flatnonzero(part.expected.any(axis=1) & ~part.expected.all(axis=1))
    if 0 not in testable:
        return
    part = replace(part, changes=part.changes[testable], expected=part.expected[testable])
    for test, found in results_of(part, 0, n_resamples=sizes.n_resamples, rng=rng):
        if test in ("trainings", "specificity"):
            yield f"{test}_case_control", found


def _naive(
    drawn: Drawn, evidence: Evidence, sizes: Calibration, rng: np.random.Generator
) -> Iterator[tuple[str, Outcome]]:
    """Yield the p-values of tests that ignore what makes latents, tokens, seeds or behaviors depend on each other."""
    change, expected = evidence.changes[0], evidence.expected[0]
    options: dict[str, Any] = {"n_resamples": sizes.n_resamples, "rng": rng}
    found = {
        "exchange_of_latents": latents_exchanged(evidence, 0, **options),
        "unadjusted_specificity": overall_specificity(specificity_matrix(evidence.changes, evidence.expected)).pvalue,
        "unstratified_permutation": _exchanged(change, expected, {}, **options),
        "binomial_over_tokens": binomial_over_tokens(change, expected, drawn.firing_rate, sizes.n_tokens, rng),
        "seeds_as_trials": seeds_as_trials(drawn.changes[0], expected),
    }
    for test, pvalue in found.items():
        yield NAIVE + test, Outcome(pvalue)


def latents_exchanged(evidence: Evidence, own: int, *, n_resamples: int, rng: np.random.Generator) -> float:
    """Return the p-value of the AUROC of behavior `own` under exchanges of single latents; NaN if none can move.

    It is valid where latents change independently of each other, given strata, clusters and confounds.
    """
    change, expected = evidence.changes[own], evidence.expected[own]
    return _exchanged(change, expected, evidence.groups, n_resamples=n_resamples, rng=rng)


def _exchanged(change: np.ndarray, expected: np.ndarray, groups: NullOptions, **options: Any) -> float:
    """Return the p-value of `agreement_test`; NaN where the strata leave nothing to exchange."""
    statistic: Statistic = replace(STATISTICS["auroc"], interval="none")
    try:
        return agreement_test(change, expected, statistic=statistic, **groups, **options).pvalue
    except InputError:
        return math.nan


def binomial_over_tokens(
    change: np.ndarray, expected: np.ndarray, firing_rate: np.ndarray, n_tokens: int, rng: np.random.Generator
) -> float:
    """Return the p-value of a binomial test that treats every token position as an independent trial.

    The positions are those where one of the most changed latents (as many as are expected) fires; a success is one
    where that latent is expected. The null rate is the share of all latents' firing that expected ones make up,
    taken as known.

    Parameters
    ----------
    change, firing_rate : (n,) float
    expected : (n,) bool
    n_tokens : int
        Positions that are counted.
    """
    top = np.argsort(-change, kind="stable")[: np.count_nonzero(expected)]
    rate = float(firing_rate[expected].sum() / firing_rate.sum())
    chance = float(firing_rate[top][expected[top]].sum() / firing_rate[top].sum())
    successes = rng.binomial(n_tokens, chance)
    return float(binom.sf(successes - 1, n_tokens, rate))


def seeds_as_trials(changes: np.ndarray, expected: np.ndarray) -> float:
    """Return the p-value of Mann and Whitney's test with each latent counted once per seed; changes (S, n)."""
    labels = np.tile(expected, len(changes))
    values = changes.ravel()
    return float(mannwhitneyu(values[labels], values[~labels], alternative="greater").pvalue)
