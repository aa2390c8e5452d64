"""False positives: how often our tests and naive ones reject in worlds without agreement."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from scipy.stats import binom, mannwhitneyu, spearmanr

from isaerft.calibration.results import Row, mean, share, stream
from isaerft.calibration.worlds import Drawn, draw, world_of
from isaerft.config import Calibration
from isaerft.errors import InputError
from isaerft.registry import STATISTICS
from isaerft.stats.agreement import agreement_test
from isaerft.stats.checks import NullOptions
from isaerft.stats.overall import overall_agreement, overall_specificity, pooled_agreements
from isaerft.stats.sampling import case_control
from isaerft.stats.seeds import mean_rank
from isaerft.stats.specificity import specificity_matrix
from isaerft.stats.statistics import Statistic, auroc

LEVELS = (0.05, 0.01)
BINS = (2, 8)
TESTS = ("auroc", "stratified_auroc", "spearman", "precision_at_k", "enrichment")
STRATA_ONLY = ("auroc", "spearman")
N_CASES, PER_CASE = 30, 4


def without_interval(name: str) -> Statistic:
    """Return a registered statistic without its interval, which some statistics have to bootstrap."""
    statistic: Statistic = STATISTICS[name]
    return replace(statistic, interval="none")


def null_rows(name: str, n_latents: int, sizes: Calibration) -> list[Row]:
    """Return the false-positive rates of every test in null worlds of a kind (see `WORLDS`)."""
    found: dict[str, list[float]] = defaultdict(list)
    confounding = []
    for index in range(sizes.null_worlds):
        rng = stream(sizes.seed, f"null {name} {n_latents}", index)
        drawn = draw(world_of(name, n_latents=n_latents, n_behaviors=sizes.n_behaviors), rng)
        confounding.append(float(auroc(drawn.firing_rate, drawn.expected[0])))
        changes = np.array([mean_rank(seeds) for seeds in drawn.changes])
        groups = drawn.groups(sizes.n_bins)
        for tests in (_ours, _naive):
            for test, pvalue in tests(drawn, changes, groups, sizes, rng):
                found[test].append(pvalue)
    same = {"world": name, "n": n_latents}
    rows = [
        share("false_positive_rate", np.array(pvalues) <= level, test=test, level=level, **same)
        for test, pvalues in found.items()
        for level in LEVELS
    ]
    return [*rows, mean("auroc_of_firing_rate", confounding, **same)]


def bins_rows(name: str, n_latents: int, sizes: Calibration) -> list[Row]:
    """Return the false-positive rates of the plain AUROC test by the number of bins that each confound is cut into."""
    rows = []
    for n_bins in BINS:
        pvalues: dict[str, list[float]] = {}
        for index in range(sizes.null_worlds):
            rng = stream(sizes.seed, f"bins {name} {n_latents}", index)
            drawn = draw(world_of(name, n_latents=n_latents), rng)
            groups = drawn.groups(n_bins)
            strata_only = NullOptions(strata=groups["strata"], clusters=groups["clusters"])
            for test, chosen in (("auroc", groups), ("auroc_strata_only", strata_only)):
                pvalue = _pvalue(mean_rank(drawn.changes[0]), drawn.expected[0], "auroc", chosen, sizes, rng)
                pvalues.setdefault(test, []).append(pvalue)
        same = {"world": name, "n": n_latents, "n_bins": n_bins}
        rows += [
            share("false_positive_rate", np.array(found) <= level, test=test, level=level, **same)
            for test, found in pvalues.items()
            for level in LEVELS
        ]
    return rows


def _ours(
    drawn: Drawn, changes: np.ndarray, groups: NullOptions, sizes: Calibration, rng: np.random.Generator
) -> Iterator[tuple[str, float]]:
    """Yield the p-value of every test that we report; changes (B, n)."""
    for test in TESTS:
        labels = drawn.effect if test == "spearman" else drawn.expected
        yield test, _pvalue(changes[0], labels[0], test, groups, sizes, rng)
    yield "auroc_case_control", _case_control(changes, drawn, groups, sizes, rng)
    pairs = list(zip(changes, drawn.expected, strict=True))
    yield "overall_agreement", overall_agreement(pairs, **groups, n_resamples=sizes.n_resamples, rng=rng).pvalue
    matrix = specificity_matrix(changes, drawn.expected)
    yield "overall_specificity", overall_specificity(matrix, n_resamples=sizes.n_resamples, rng=rng).pvalue
    # As in the controls "mismatched_behavior", one change and what is expected of each other behavior, and
    # "random_dictionary", several changes and one expectation.
    pools = [(changes[:1], drawn.expected[1:]), (drawn.changes[0], drawn.expected[:1])]
    pooled = pooled_agreements(pools, **groups, n_resamples=sizes.n_resamples, rng=rng)
    for test, result in zip(("pooled_expectations", "pooled_changes"), pooled, strict=True):
        yield test, result.pvalue


def _naive(
    drawn: Drawn, changes: np.ndarray, groups: NullOptions, sizes: Calibration, rng: np.random.Generator
) -> Iterator[tuple[str, float]]:
    """Yield the p-values of tests that ignore clusters, confounds or replicates."""
    change, expected = changes[0], drawn.expected[0]
    yield "naive_binomial_over_tokens", binomial_over_tokens(change, expected, drawn.firing_rate, sizes.n_tokens, rng)
    yield "naive_unstratified_permutation", _pvalue(change, expected, "auroc", {}, sizes, rng)
    own = NullOptions(strata=groups["strata"], confounds=groups["confounds"])
    yield "naive_permutation_without_clusters", _pvalue(change, expected, "auroc", own, sizes, rng)
    own = NullOptions(strata=groups["strata"], clusters=groups["clusters"])
    for test in STRATA_ONLY:
        labels = drawn.effect[0] if test == "spearman" else expected
        yield f"naive_{test}_strata_only", _pvalue(change, labels, test, own, sizes, rng)
    yield "naive_uncorrected_spearman", uncorrected_spearman(change, drawn.effect[0])
    yield "naive_seeds_as_trials", seeds_as_trials(drawn.changes[0], expected)


def _case_control(
    changes: np.ndarray, drawn: Drawn, groups: NullOptions, sizes: Calibration, rng: np.random.Generator
) -> float:
    """Return the p-value on a sample drawn by how much latents changed under every behavior."""
    sample = case_control(
        changes, groups["strata"], groups["clusters"], n_cases=N_CASES, controls_per_case=PER_CASE, rng=rng
    ).latents
    own = NullOptions(
        strata=groups["strata"][sample], clusters=groups["clusters"][sample], confounds=groups["confounds"][:, sample]
    )
    return _pvalue(changes[0][sample], drawn.expected[0][sample], "auroc", own, sizes, rng)


def _pvalue(
    change: np.ndarray,
    labels: np.ndarray,
    test: str,
    groups: NullOptions,
    sizes: Calibration,
    rng: np.random.Generator,
) -> float:
    """Return the p-value of a test; 1 where the strata leave nothing to exchange."""
    statistic = without_interval(test)
    try:
        return agreement_test(
            change, labels, statistic=statistic, n_resamples=sizes.n_resamples, rng=rng, **groups
        ).pvalue
    except InputError:
        return 1.0


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


def uncorrected_spearman(change: np.ndarray, effect: np.ndarray) -> float:
    """Return the p-value of Spearman's correlation, (n,) with (n,), for independent, unconfounded latents."""
    return float(spearmanr(change, effect, alternative="greater").pvalue)


def seeds_as_trials(changes: np.ndarray, expected: np.ndarray) -> float:
    """Return the p-value of Mann and Whitney's test with each latent counted once per seed; changes (S, n)."""
    labels = np.tile(expected, len(changes))
    values = changes.ravel()
    return float(mannwhitneyu(values[labels], values[~labels], alternative="greater").pvalue)
