"""Simulated worlds of latents: an odds ratio sets the effect of an explanation on a change.

A latent has a firing rate (log-normal, over decades), a decoder norm and a density; near-duplicates come in clusters.
How much a latent changes and whether it is expected to can both depend on firing rate and decoder norm: that is
confounding. Given these, changes follow the proportional-odds model: those of expected latents are shifted by the log
of the odds ratio on the logistic scale, as in `isaerft.stats.power`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr
from scipy.stats import rankdata

from isaerft.stats.checks import NullOptions
from isaerft.stats.confounds import strata_of

# Share of the variance of whatever is drawn that near-duplicates have in common.
ALIKE = 0.8
LOG10_RATE, LOG10_RATE_SD = -2.5, 0.8
LOG_NORM_SD = 0.25
LOGISTIC_SD = math.pi / math.sqrt(3)
# Share of the noise that behaviors have in common: some latents change, or seem relevant, whatever the behavior.
IN_COMMON = 0.3
CLUSTER_SIZES = (2, 3, 4, 5, 6)


@dataclass(frozen=True)
class World:
    """How latents, changes and explanations are generated.

    Parameters
    ----------
    n_latents : int
    n_behaviors : int
    n_seeds : int
        Trainings per behavior.
    reliability : float
        Of one seed's changes, 0 to 1: the share of their variance that all seeds have in common (of the variance of
        ranks, which is what `isaerft.stats.reliability` finds, a few hundredths less).
    expected_share : float
        Share of the latents that a behavior's explanations expect to change.
    odds_ratio : float
        Odds of a larger change, expected latents over others; 1 is the null.
    odds_ratio_spread : float
        Standard deviation over behaviors of its logarithm.
    confounding : float
        Shift of the change, and of the log odds of being expected, per standard deviation of the confound, in
        standard deviations of the logistic noise.
    confounding_spread : float
        Every behavior draws its own confounding, 1 minus to 1 plus this times `confounding`, for changes and for
        explanations separately.
    steps : int
        Levels at which the confound acts; 0: smoothly.
    is_known : bool
        Whether the levels are known, so that strata follow them and leave no confounding.
    is_folded : bool
        Whether the confound acts by its distance from the middle, which no straight line can capture.
    clustered : float
        Share of the latents that are near-duplicates of others.
    """

    n_latents: int
    n_behaviors: int = 1
    n_seeds: int = 5
    reliability: float = 0.7
    expected_share: float = 0.15
    odds_ratio: float = 1.0
    odds_ratio_spread: float = 0.0
    confounding: float = 0.0
    confounding_spread: float = 0.5
    steps: int = 0
    is_known: bool = False
    is_folded: bool = False
    clustered: float = 0.0


WORLDS: dict[str, World] = {
    "plain": World(0),
    "clustered": World(0, clustered=0.3),
    "stepwise": World(0, clustered=0.3, confounding=0.5, steps=3, is_known=True),
    "confounded": World(0, clustered=0.3, confounding=0.3),
    "strongly_confounded": World(0, clustered=0.3, confounding=0.6),
    "rare_confounded": World(0, clustered=0.3, confounding=0.3, expected_share=0.04),
    "folded_confounded": World(0, clustered=0.3, confounding=0.4, is_folded=True),
    "jump_confounded": World(0, clustered=0.3, confounding=0.4, steps=2),
}


@dataclass(frozen=True)
class Drawn:
    """One draw of a world; B behaviors, S seeds, n latents.

    Attributes
    ----------
    firing_rate, decoder_norm, density : (n,) float
    level : (n,) int64
        The confound's level where it acts in known steps; 0 elsewhere.
    clusters : (n,) int64
    changes : (B, S, n) float
    expected : (B, n) bool
    effect : (B, n) float
        The graded expectation behind `expected`, in steps of 0.1 from -1 to 1.
    """

    firing_rate: np.ndarray
    decoder_norm: np.ndarray
    density: np.ndarray
    level: np.ndarray
    clusters: np.ndarray
    changes: np.ndarray
    expected: np.ndarray
    effect: np.ndarray

    def __len__(self) -> int:
        return len(self.clusters)

    def strata(self, n_bins: int) -> np.ndarray:
        """Return the strata (n,) that a study makes of the confounds; the levels where they are known."""
        if self.level.any():
            return self.level
        return strata_of(self.firing_rate, self.decoder_norm, self.density, n_bins=n_bins, clusters=self.clusters)

    def groups(self, n_bins: int) -> NullOptions:
        """Return the strata, clusters and confounds that a study makes, as options of `agreement_test`."""
        confounds = np.array([self.firing_rate, self.decoder_norm, self.density])
        return NullOptions(strata=self.strata(n_bins), clusters=self.clusters, confounds=confounds)


def world_of(name: str, n_latents: int, n_behaviors: int = 1) -> World:
    """Return a world of `WORLDS` with this many latents and behaviors."""
    return replace(WORLDS[name], n_latents=n_latents, n_behaviors=n_behaviors)


def draw(world: World, rng: np.random.Generator) -> Drawn:
    """Draw latents, changes and explanations of a world; the same `rng` at another odds ratio differs in that alone."""
    dictionary = Dictionary(world, rng)
    return dictionary.behaviors(world.n_behaviors, rng)


class Dictionary:
    """The latents of one draw, and what all behaviors have in common on them; any number of behaviors can be drawn."""

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        self.world = world
        self.clusters = _clusters(world, rng)
        rate, size, density = self._noise(3, rng)
        self.firing_rate = np.clip(10 ** (LOG10_RATE + LOG10_RATE_SD * rate), 1e-4, 0.9)
        self.decoder_norm = np.exp(LOG_NORM_SD * (0.3 * rate + math.sqrt(1 - 0.3**2) * size))
        self.density = density + 0.3 * rate
        confound = 0.8 * rate + 0.6 * size
        self.level = np.zeros(world.n_latents, dtype=np.int64)
        if world.steps:
            # A cluster is on one level: what acts in steps acts on near-duplicates alike.
            means = np.bincount(self.clusters, weights=confound) / np.bincount(self.clusters)
            ranks = (rankdata(means) - 0.5) / len(means)
            level = np.floor(ranks * world.steps).astype(np.int64)[self.clusters]
            confound = (level - (world.steps - 1) / 2) / math.sqrt((world.steps**2 - 1) / 12)
            self.level = level if world.is_known else self.level
        if world.is_folded:  # of a standard normal value, less its mean and by its standard deviation
            confound = (np.abs(confound) - math.sqrt(2 / math.pi)) / math.sqrt(1 - 2 / math.pi)
        self.confound = confound
        self.any_change, self.any_label = self._noise(2, rng)

    def behaviors(self, n_behaviors: int, rng: np.random.Generator) -> Drawn:
        """Draw changes and explanations of `n_behaviors` behaviors on these latents."""
        world, n = self.world, self.world.n_latents
        spread = world.confounding_spread
        loads = world.confounding * LOGISTIC_SD * rng.uniform(1 - spread, 1 + spread, size=(2, n_behaviors, 1))
        shift = math.log(world.odds_ratio) + world.odds_ratio_spread * rng.normal(size=(n_behaviors, 1))
        own = self._noise(2 * n_behaviors, rng).reshape(2, n_behaviors, n)
        common = np.stack([self.any_change, self.any_label])[:, None]
        change, label = loads * self.confound + _logistic(
            math.sqrt(IN_COMMON) * common + math.sqrt(1 - IN_COMMON) * own
        )
        order = rankdata(label, axis=1)
        expected = order > n - max(1, round(world.expected_share * n))
        changes = (change + shift * expected)[:, None]
        if world.reliability < 1:
            scale = changes.std(axis=2, keepdims=True) * math.sqrt(1 / world.reliability - 1)
            noise = self._noise(n_behaviors * world.n_seeds, rng).reshape(n_behaviors, world.n_seeds, n)
            changes = changes + scale * noise
        return Drawn(
            self.firing_rate,
            self.decoder_norm,
            self.density,
            self.level,
            self.clusters,
            changes,
            expected,
            np.round(2 * (order - 0.5) / n - 1, 1),
        )

    def _noise(self, rows: int, rng: np.random.Generator) -> np.ndarray:
        """Return (rows, n) standard normal noise that near-duplicates have mostly in common."""
        own = rng.normal(size=(rows, len(self.clusters)))
        if not self.world.clustered:
            return own
        shared = rng.normal(size=(rows, int(self.clusters.max()) + 1))
        return math.sqrt(ALIKE) * shared[:, self.clusters] + math.sqrt(1 - ALIKE) * own


def _logistic(normal: np.ndarray) -> np.ndarray:
    """Return standard normal values as standard logistic ones, of the same ranks."""
    chance = ndtr(normal)
    return np.log(chance) - np.log(ndtr(-normal))


def _clusters(world: World, rng: np.random.Generator) -> np.ndarray:
    """Return (n,) int64 clusters: near-duplicates in groups of 2 to 6, the rest alone, in random places."""
    n_in_groups = round(world.clustered * world.n_latents)
    sizes: list[int] = []
    while sum(sizes) + 1 < n_in_groups:
        sizes.append(min(int(rng.choice(CLUSTER_SIZES)), n_in_groups - sum(sizes)))
    sizes += [1] * (world.n_latents - sum(sizes))
    clusters = np.repeat(np.arange(len(sizes)), sizes)
    rng.shuffle(clusters)
    return np.unique(clusters, return_inverse=True)[1].astype(np.int64)
