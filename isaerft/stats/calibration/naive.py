"""Tests that the field uses on this question, each wrong in its own way: they stand beside ours to show by how much."""

from __future__ import annotations

import numpy as np
from scipy.stats import binom, mannwhitneyu, spearmanr


def binomial_over_tokens(
    change: np.ndarray, expected: np.ndarray, firing_rate: np.ndarray, n_tokens: int, rng: np.random.Generator
) -> float:
    """Return the p-value of a binomial test that takes every token position as an independent trial.

    The positions are those where one of the most changed latents (as many as are expected) fires; a success is one
    where that latent is expected. The rate to beat is the share of all latents' firing that expected ones make up,
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
    """Return the p-value of Spearman's correlation of (n,) with (n,), latents taken as independent and unconfounded."""
    return float(spearmanr(change, effect, alternative="greater").pvalue)


def seeds_as_trials(changes: np.ndarray, expected: np.ndarray) -> float:
    """Return the p-value of Mann and Whitney's test with each latent counted once per seed; changes (S, n)."""
    labels = np.tile(expected, len(changes))
    values = changes.ravel()
    return float(mannwhitneyu(values[labels], values[~labels], alternative="greater").pvalue)
