"""Simulated worlds of latents: an odds ratio sets the effect of an explanation on a change.

A latent has a firing rate (log-normal, over decades), a decoder norm and a density; near-duplicates come in clusters.
How much a latent changes and whether it is expected to can both depend on firing rate and decoder norm: that is
confounding. Given these, changes follow the proportional-odds model: those of expected latents are shifted by the log
of the odds ratio on the logistic scale, as in `isaerft.stats.power`.

Latents may belong to concepts. Those of one concept carry one explanation and move together, either by a shared part
of their change or because every change is a direction in the residual stream, read through decoder rows that are alike
within a concept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr
from scipy.stats import rankdata

from isaerft.stats.checks import NullOptions
from isaerft.stats.confounds import strata_of
from isaerft.stats.seeds import mean_rank

# Share of the variance of whatever is drawn that near-duplicates have in common.
ALIKE = 0.8
LOG10_RATE, LOG10_RATE_SD = -2.5, 0.8
LOG_NORM_SD = 0.25
LOGISTIC_SD = math.pi / math.sqrt(3)
# Share of the noise that behaviors have in common: some latents change, or seem relevant, whatever the behavior.
IN_COMMON = 0.3
CLUSTER_SIZES = (2, 3, 4, 5, 6)
N_NEIGHBOURS = 10
Noise = Callable[[int, np.random.Generator], np.ndarray]
"""A function of a number of rows that returns that many rows of noise, (rows, n)."""


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
    expected_spread : float
        Every behavior draws its own share, 1 minus to 1 plus this times `expected_share`; at least one latent.
    odds_ratio : float
        Odds of a larger change, expected latents over others; 1 is the null.
    odds_ratio_spread : float
        Standard deviation over behaviors of its logarithm.
    confounding : float
        Shift of the change, and of the log odds of being expected, per standard deviation of the confound, in
        standard deviations of the logistic noise.
    confounding_spread : float
        Every training, and every behavior's explanations, draw their own confounding, 1 minus to 1 plus this times
        `confounding`.
    is_shared : bool
        Whether a behavior's explanations are as confounded as its training, instead of drawing their own confounding.
    is_measured : bool
        Whether the confound is made of firing rate and decoder norm; otherwise nothing that is known tells of it.
    steps : int
        Levels at which the confound acts; 0: smoothly.
    is_known : bool
        Whether the levels are known, so that strata follow them and leave no confounding.
    is_folded : bool
        Whether the confound acts by its distance from the middle, which no straight line can capture.
    clustered : float
        Share of the latents that are near-duplicates of others.
    concept_size : int
        Mean number of latents per concept; 1: each latent has an explanation of its own.
    alike : float
        Share of the variance of a change that latents of one concept have in common; with `n_directions` the cosine
        of their decoder rows.
    n_directions : int
        Dimensions of the residual stream, in which every change is a random direction; 0: changes are not linear.
    n_families : int
        Families of behaviors that are variants of one another, of about one size; 0: every behavior is distinct.
    changed_share : float
        Share of the latents that one seed changes at all, those with the largest changes of either sign.
    n_placebos : int
        Further trainings, of as many seeds each, that belong to no behavior.
    placebos_alike : bool
        Whether the confound acts on placebo trainings as on those of behaviors, instead of not at all.
    """

    n_latents: int
    n_behaviors: int = 1
    n_seeds: int = 5
    reliability: float = 0.7
    expected_share: float = 0.15
    expected_spread: float = 0.0
    odds_ratio: float = 1.0
    odds_ratio_spread: float = 0.0
    confounding: float = 0.0
    confounding_spread: float = 0.5
    is_shared: bool = False
    is_measured: bool = True
    steps: int = 0
    is_known: bool = False
    is_folded: bool = False
    clustered: float = 0.0
    concept_size: int = 1
    alike: float = 0.0
    n_directions: int = 0
    n_families: int = 0
    changed_share: float = 1.0
    n_placebos: int = 0
    placebos_alike: bool = True


WORLDS: dict[str, World] = {
    "plain": World(0),
    "clustered": World(0, clustered=0.3),
    "stepwise": World(0, clustered=0.3, confounding=0.5, steps=3, is_known=True),
    "confounded": World(0, clustered=0.3, confounding=0.3),
    "strongly_confounded": World(0, clustered=0.3, confounding=0.6),
    "rare_confounded": World(0, clustered=0.3, confounding=0.3, expected_share=0.04),
    "folded_confounded": World(0, clustered=0.3, confounding=0.4, is_folded=True),
    "jump_confounded": World(0, clustered=0.3, confounding=0.4, steps=2),
    "shared_loads": World(0, clustered=0.3, confounding=0.3, confounding_spread=2, is_shared=True),
    "unmeasured": World(0, confounding=0.3, is_measured=False),
    "unlike_placebos": World(0, confounding=0.3, is_measured=False, placebos_alike=False),
    "co_moving": World(0, expected_share=0.05, concept_size=10, alike=0.2),
    "geometry": World(0, expected_share=0.05, concept_size=10, alike=0.2, n_directions=64),
    "families": World(0, n_families=5),
    "few_expected": World(0, expected_share=0.005, expected_spread=0.7),
    "sparse_changes": World(0, expected_share=0.05, changed_share=0.05),
}


@dataclass(frozen=True)
class Drawn:
    """One draw of a world; B behaviors, P placebo trainings, S seeds, n latents.

    Attributes
    ----------
    firing_rate, decoder_norm, density : (n,) float
    level : (n,) int64
        The confound's level where it acts in known steps; 0 elsewhere.
    clusters : (n,) int64
    texts : (n,) int64
        The explanation that each latent carries; labels follow it.
    changes : (B, S, n) float
    placebos : (P, S, n) float
    expected : (B, n) bool
    effect : (B, n) float
        The graded expectation behind `expected`, in steps of 0.1 from -1 to 1.
    families : (B,) int64
        The family of each behavior.
    log_odds : (B,) float
        Logarithm of each behavior's odds ratio.
    """

    firing_rate: np.ndarray
    decoder_norm: np.ndarray
    density: np.ndarray
    level: np.ndarray
    clusters: np.ndarray
    texts: np.ndarray
    changes: np.ndarray
    placebos: np.ndarray
    expected: np.ndarray
    effect: np.ndarray
    families: np.ndarray
    log_odds: np.ndarray

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

    def mean_changes(self) -> np.ndarray:
        """Return the changes combined over seeds as a study combines them, (B, n)."""
        return np.array([mean_rank(seeds) for seeds in self.changes])

    def mean_placebos(self) -> np.ndarray:
        """Return the placebo changes combined over seeds, (P, n)."""
        return np.array([mean_rank(seeds) for seeds in self.placebos]).reshape(-1, len(self))


def world_of(name: str, n_latents: int, n_behaviors: int = 1, n_placebos: int = 0) -> World:
    """Return a world of `WORLDS` with this many latents, behaviors and placebo trainings."""
    return replace(WORLDS[name], n_latents=n_latents, n_behaviors=n_behaviors, n_placebos=n_placebos)


def draw(world: World, rng: np.random.Generator) -> Drawn:
    """Draw latents, changes and explanations of a world; the same `rng` at another odds ratio differs in that alone."""
    dictionary = Dictionary(world, rng)
    return dictionary.behaviors(world.n_behaviors, rng)


class Dictionary:
    """The latents of one draw, and what all behaviors have in common on them; any number of behaviors can be drawn."""

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        self.world = world
        self.clusters = _clusters(world, rng)
        self.texts = _concepts(world, rng)
        rate, size, density = self._noise(3, rng)
        self.firing_rate = np.clip(10 ** (LOG10_RATE + LOG10_RATE_SD * rate), 1e-4, 0.9)
        self.decoder_norm = np.exp(LOG_NORM_SD * (0.3 * rate + math.sqrt(1 - 0.3**2) * size))
        self.density = density + 0.3 * rate
        if world.n_directions:
            self.decoder = self._decoder(rng)
            cosines = self.decoder @ self.decoder.T
            np.fill_diagonal(cosines, -1)
            self.density = np.sort(cosines, axis=1)[:, -N_NEIGHBOURS:].mean(axis=1)
        confound = 0.8 * rate + 0.6 * size if world.is_measured else self._noise(1, rng)[0]
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
        self.any_change, self.any_label = self._moves(1, rng)[0], self._said(1, rng)[0]

    def behaviors(self, n_behaviors: int, rng: np.random.Generator) -> Drawn:
        """Draw changes and explanations of `n_behaviors` behaviors, and the placebo trainings, on these latents."""
        world, n = self.world, self.world.n_latents
        families = np.arange(n_behaviors) % (world.n_families or max(1, n_behaviors))
        loads = self._loads((2, n_behaviors, 1), rng)
        log_odds = math.log(world.odds_ratio) + world.odds_ratio_spread * rng.normal(size=n_behaviors)
        own = [_in_families(draw(n_behaviors, rng), families, draw, rng) for draw in (self._moves, self._said)]
        label = self._of_texts(loads[0 if world.is_shared else 1] * self.confound) + _with_common(
            self.any_label, own[1]
        )
        order = rankdata(label, axis=1, method="max")
        spread = world.expected_spread
        shares = world.expected_share * (rng.uniform(1 - spread, 1 + spread, (n_behaviors, 1)) if spread else 1.0)
        expected = order > n - np.maximum(1, np.round(shares * n))
        change = loads[0] * self.confound + _with_common(self.any_change, own[0]) + log_odds[:, None] * expected
        placebo = _with_common(self.any_change, self._moves(world.n_placebos, rng))
        if world.placebos_alike:
            placebo += self._loads((world.n_placebos, 1), rng) * self.confound
        return Drawn(
            self.firing_rate,
            self.decoder_norm,
            self.density,
            self.level,
            self.clusters,
            self.texts,
            self._seeds(change, rng),
            self._seeds(placebo, rng),
            expected,
            np.round(2 * (order - 0.5) / n - 1, 1),
            families,
            log_odds,
        )

    def trainings(
        self, expected: np.ndarray, log_odds: float, n_trainings: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Return (n_trainings, S, n) changes of independent trainings on a behavior with these expectations (n,)."""
        noise = _with_common(self.any_change, self._moves(n_trainings, rng))
        return self._seeds(self._loads((n_trainings, 1), rng) * self.confound + noise + log_odds * expected, rng)

    def rows(self, n_rows: int, rng: np.random.Generator) -> np.ndarray:
        """Return what each row of training data does to the latents, (n_rows, n); no row teaches anything."""
        return self._moves(n_rows, rng)

    def _seeds(self, changes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the changes (b, n) of trainings as each of their seeds finds them, (b, n_seeds, n)."""
        world, (b, n) = self.world, changes.shape
        seeds = np.repeat(changes[:, None], world.n_seeds, axis=1)
        if world.reliability < 1:
            scale = changes.std(axis=1)[:, None, None] * math.sqrt(1 / world.reliability - 1)
            seeds += scale * self._moves(b * world.n_seeds, rng).reshape(b, world.n_seeds, n)
        if world.changed_share < 1:
            smallest = np.quantile(np.abs(seeds), 1 - world.changed_share, axis=2, keepdims=True)
            seeds[np.abs(seeds) < smallest] = 0
        return seeds

    def _loads(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Return how much the confound acts, per training or behavior."""
        spread = self.world.confounding_spread
        return self.world.confounding * LOGISTIC_SD * rng.uniform(1 - spread, 1 + spread, size=shape)

    def _noise(self, rows: int, rng: np.random.Generator) -> np.ndarray:
        """Return (rows, n) standard normal noise that near-duplicates have mostly in common."""
        own = rng.normal(size=(rows, len(self.clusters)))
        return _shared(own, self.clusters, ALIKE, rng) if self.world.clustered else own

    def _moves(self, rows: int, rng: np.random.Generator) -> np.ndarray:
        """Return (rows, n) standard normal noise as of changes."""
        if self.world.n_directions:
            return rng.normal(size=(rows, self.world.n_directions)) @ self.decoder.T
        noise = self._noise(rows, rng)
        return _shared(noise, self.texts, self.world.alike, rng) if self.world.alike else noise

    def _said(self, rows: int, rng: np.random.Generator) -> np.ndarray:
        """Return (rows, n) standard normal noise as of what explanations say: latents of one text have one value."""
        if self.world.concept_size > 1:
            return rng.normal(size=(rows, int(self.texts.max()) + 1))[:, self.texts]
        return self._noise(rows, rng)

    def _of_texts(self, values: np.ndarray) -> np.ndarray:
        """Return the mean of `values` (b, n) over the latents of each text."""
        if self.world.concept_size == 1:
            return values
        sums = np.array([np.bincount(self.texts, weights=row) for row in values])
        return (sums / np.bincount(self.texts))[:, self.texts]

    def _decoder(self, rng: np.random.Generator) -> np.ndarray:
        """Return (n, n_directions) decoder rows of length 1 whose cosine is `alike` within a concept, else about 0."""
        rows = _unit(rng.normal(size=(len(self.texts), self.world.n_directions)))
        concepts = _unit(rng.normal(size=(int(self.texts.max()) + 1, self.world.n_directions)))
        alike = self.world.alike
        return _unit(math.sqrt(alike) * concepts[self.texts] + math.sqrt(1 - alike) * rows)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _shared(own: np.ndarray, groups: np.ndarray, alike: float, rng: np.random.Generator) -> np.ndarray:
    """Return noise `own` (rows, n), the share `alike` of whose variance latents of one group (n,) have in common."""
    shared = rng.normal(size=(len(own), int(groups.max()) + 1))
    return math.sqrt(alike) * shared[:, groups] + math.sqrt(1 - alike) * own


def _in_families(
    own: np.ndarray,
    families: np.ndarray,
    draw: Callable[[int, np.random.Generator], np.ndarray],
    rng: np.random.Generator,
) -> np.ndarray:
    """Return noise `own` (B, n) of which behaviors of one family (B,) have most in common; alone it stays as it is."""
    if len(np.unique(families)) == len(families):
        return own
    return math.sqrt(ALIKE) * draw(int(families.max()) + 1, rng)[families] + math.sqrt(1 - ALIKE) * own


def _with_common(common: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Return logistic noise (b, n) of normal noise `own` (b, n) and what all rows have in common, (n,)."""
    return _logistic(math.sqrt(IN_COMMON) * common + math.sqrt(1 - IN_COMMON) * own)


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
    return _shuffled([*sizes, *[1] * (world.n_latents - sum(sizes))], rng)


def _concepts(world: World, rng: np.random.Generator) -> np.ndarray:
    """Return (n,) int64 concepts of Poisson sizes, in random places; every latent alone with a mean size of 1."""
    if world.concept_size == 1:
        return np.arange(world.n_latents)
    sizes: list[int] = []
    while sum(sizes) < world.n_latents:
        sizes.append(min(1 + int(rng.poisson(world.concept_size - 1)), world.n_latents - sum(sizes)))
    return _shuffled(sizes, rng)


def _shuffled(sizes: list[int], rng: np.random.Generator) -> np.ndarray:
    """Return (n,) int64 codes of groups of these sizes, in random places."""
    codes = np.repeat(np.arange(len(sizes)), sizes)
    rng.shuffle(codes)
    return np.unique(codes, return_inverse=True)[1].astype(np.int64)
