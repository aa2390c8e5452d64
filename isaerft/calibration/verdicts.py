"""How well verdicts tell wrong explanations from right ones, and how many of them are false.

`verdict_rows` exchanges a share of the explanations in the worlds of `isaerft.calibration.worlds`. `verdict_error_rows`
counts false verdicts in worlds that are made for them (`VERDICT_WORLDS`): speaking latents, those whose explanation
names a behavior, react more to any training; latents of one concept move together; behaviors are near-duplicates;
right explanations have unequal effects.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from isaerft.calibration.results import Row, mean, share, stream
from isaerft.calibration.worlds import World, draw
from isaerft.config import Calibration
from isaerft.stats.seeds import mean_rank
from isaerft.stats.statistics import auroc
from isaerft.stats.verdicts import decide, match_profiles

# A latent is expected to change for few behaviors, so that explanations differ.
EXPECTED_SHARE = 0.05
WORLD = World(0, clustered=0.3, confounding=0.3, expected_share=EXPECTED_SHARE)
# Fewest wrong (and right) explanations in a world that counts.
FEWEST = 3
N_LATENTS, N_SPEAKING, N_STRATA = 500, 120, 5


def verdict_rows(wrong: float, sizes: Calibration) -> list[Row]:
    """Return the mean AUROC of wrong explanations, ranked by the p-value of being contradicted, per odds ratio.

    Among explanations that predict something, the share `wrong` is exchanged. Further rows hold the share of wrong
    explanations that are called contradicted at q < 0.05, and that of right ones.
    """
    rows = []
    for ratio in sizes.verdict_odds_ratios:
        world = replace(WORLD, n_latents=sizes.coverage_latents, n_behaviors=sizes.verdict_behaviors, odds_ratio=ratio)
        found: list[float] = []
        called: dict[bool, list[float]] = {True: [], False: []}
        for index in range(sizes.verdict_worlds):
            rng = stream(sizes.seed, f"verdicts {wrong:g}", index)
            drawn = draw(world, rng)
            said, is_wrong = exchange_wrong(drawn.expected, wrong, rng)
            changes = np.array([mean_rank(seeds) for seeds in drawn.changes])
            match = match_profiles(changes, said.astype(float), **drawn.groups(sizes.n_bins))
            tested = np.isfinite(match.contradiction_pvalue)
            truth = is_wrong[tested]
            if min(truth.sum(), (~truth).sum()) < FEWEST:
                continue
            badness = -match.contradiction_pvalue[tested]
            # Where explanations have no effect nothing is contradicted, and wrong ones are as bad as right ones.
            found.append(float(auroc(badness, truth)) if np.ptp(badness) else 0.5)
            for kind, shares in called.items():
                shares.append(float((match.contradiction_qvalue[tested][truth == kind] < 0.05).mean()))
        same = {
            "wrong": f"{wrong:g}",
            "odds_ratio": f"{ratio:g}",
            "n": sizes.coverage_latents,
            "behaviors": sizes.verdict_behaviors,
        }
        rows += [
            mean("wrong_explanations_auroc", found, **same),
            mean("wrong_called_contradicted", called[True], **same),
            mean("right_called_contradicted", called[False], **same),
        ]
    return rows


def exchange_wrong(expected: np.ndarray, wrong: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Exchange a share `wrong` of the columns of `expected` (B, n) that expect something.

    Returns the labels (B, n) and which columns are wrong, (n,) bool; one that got a column equal to its own is right.
    """
    speaking = np.flatnonzero(expected.any(axis=0))
    chosen = rng.choice(speaking, size=max(2, round(wrong * len(speaking))), replace=False)
    said = expected.copy()
    said[:, chosen] = expected[:, np.roll(chosen, 1)]
    return said, (said != expected).any(axis=0)


@dataclass(frozen=True)
class VerdictWorld:
    """How changes of latents, and what explanations say of them, are generated.

    Parameters
    ----------
    effect : float
        Mean effect of a behavior on latents that truly belong to it, in standard deviations of the noise.
    effect_spread : float
        Standard deviation over latents of the logarithm of the effect.
    weak : float
        Share of the latents whose effect is a third.
    wrong : float
        Share of the explanations that are exchanged; with all wrong, no behavior has an effect.
    idle : bool
        Whether the latents of wrong explanations have no effect; otherwise that of other behaviors than those named.
    noisier : float
        Standard deviation of the changes of speaking latents, in that of the others.
    shift : float
        Standard deviation over behaviors by which speaking latents all change.
    together : float
        Share of the noise that latents of one concept (those that are said alike) have in common.
    alike : float
        Share of the noise that the two behaviors of a pair have in common.
    lasting : float
        Share of the noise of a latent that all behaviors have in common.
    n_behaviors, n_named : int
        Behaviors, and those that an explanation names, one after the other.
    in_families : bool
        Whether pairs of behaviors are declared as families.
    """

    effect: float = 0.0
    effect_spread: float = 0.0
    weak: float = 0.0
    wrong: float = 1.0
    idle: bool = False
    noisier: float = 1.0
    shift: float = 0.0
    together: float = 0.0
    alike: float = 0.0
    lasting: float = 0.0
    n_behaviors: int = 8
    n_named: int = 1
    in_families: bool = False


VERDICT_WORLDS: dict[str, VerdictWorld] = {
    "null": VerdictWorld(),
    "null_noisier_1.25": VerdictWorld(noisier=1.25),
    "null_noisier_1.5": VerdictWorld(noisier=1.5),
    "null_noisier_2": VerdictWorld(noisier=2),
    "null_shifted": VerdictWorld(shift=0.5),
    "null_together": VerdictWorld(together=0.3),
    "null_pairs_one_named": VerdictWorld(alike=0.8),
    "null_pairs_both_named": VerdictWorld(alike=0.8, n_named=2, in_families=True),
    "right": VerdictWorld(effect=4, wrong=0),
    "right_spread_0.3": VerdictWorld(effect=4, wrong=0, effect_spread=0.3),
    "right_spread_0.5": VerdictWorld(effect=4, wrong=0, effect_spread=0.5),
    "right_spread_0.8": VerdictWorld(effect=4, wrong=0, effect_spread=0.8),
    "right_spread_1.1": VerdictWorld(effect=4, wrong=0, effect_spread=1.1),
    "right_pairs_both_named": VerdictWorld(
        effect=4, wrong=0, effect_spread=0.8, alike=0.8, n_named=2, in_families=True
    ),
    "right_weak_0.3": VerdictWorld(effect=5, wrong=0, weak=0.3),
    "wrong_0.2": VerdictWorld(effect=5, wrong=0.2, effect_spread=0.7),
    "wrong_0.2_noisier_2": VerdictWorld(effect=5, wrong=0.2, effect_spread=0.7, noisier=2),
    "wrong_0.2_idle": VerdictWorld(effect=5, wrong=0.2, idle=True, effect_spread=0.7),
    "wrong_0.5_idle_noisier_1.5": VerdictWorld(effect=5, wrong=0.5, idle=True, effect_spread=0.7, noisier=1.5),
    "right_spread_0.8_precise": VerdictWorld(
        effect=4, wrong=0, effect_spread=0.8, lasting=0.7, n_behaviors=16, n_named=4
    ),
    "right_weak_0.3_precise": VerdictWorld(effect=5, wrong=0, weak=0.3, lasting=0.7, n_behaviors=16, n_named=4),
    "wrong_0.1_precise": VerdictWorld(effect=5, wrong=0.1, lasting=0.7, n_behaviors=16, n_named=4),
}


@dataclass(frozen=True)
class Told:
    """One draw of a `VerdictWorld`; B behaviors, n latents.

    Attributes
    ----------
    changes, said : (B, n) float
    strata : (n,) int64
    families : (B,) int64
    is_wrong : (n,) bool
    """

    changes: np.ndarray
    said: np.ndarray
    strata: np.ndarray
    families: np.ndarray
    is_wrong: np.ndarray


def draw_told(world: VerdictWorld, rng: np.random.Generator) -> Told:
    """Draw changes and explanations; the first latents are those whose explanations name behaviors."""
    n_behaviors, speaks = world.n_behaviors, np.arange(N_LATENTS) < N_SPEAKING
    concept = np.arange(N_SPEAKING) % (n_behaviors // world.n_named)
    truth = np.zeros((n_behaviors, N_LATENTS))
    for step in range(world.n_named):
        truth[concept * world.n_named + step, np.arange(N_SPEAKING)] = 1
    said, is_wrong = truth, speaks
    if world.wrong < 1:
        said, is_wrong = exchange_wrong(truth, world.wrong, rng) if world.wrong else (truth, np.zeros_like(speaks))
    pairs = np.arange(n_behaviors) // 2
    group = np.r_[concept, concept.max() + 1 + np.arange(N_LATENTS - N_SPEAKING) // 10]
    noise = _shared(
        rng.normal(size=(n_behaviors, N_LATENTS)),
        rng.normal(size=(n_behaviors, group.max() + 1))[:, group],
        world.together,
    )
    noise = _shared(noise, rng.normal(size=(n_behaviors, N_LATENTS))[pairs], world.alike)
    noise = _shared(noise, rng.normal(size=N_LATENTS), world.lasting)
    spread = world.effect_spread
    effect = world.effect * np.exp(spread * rng.normal(size=N_LATENTS) - spread**2 / 2)
    effect = np.where(rng.random(N_LATENTS) < world.weak, effect / 3, effect)
    effect = np.where(is_wrong & world.idle, 0, effect)
    changes = np.where(speaks, world.noisier, 1) * noise + effect * truth
    changes += world.shift * rng.normal(size=(n_behaviors, 1)) * speaks
    families = pairs if world.in_families else np.arange(n_behaviors)
    return Told(changes, said, rng.integers(0, N_STRATA, N_LATENTS), families, is_wrong)


def verdict_error_rows(sizes: Calibration) -> list[Row]:
    """Return for each of `VERDICT_WORLDS` how many verdicts are false, and how many explanations get their due.

    False discovery rates are means over worlds of the share of false verdicts among those of a name (0 without any).
    """
    rows = []
    for name, world in VERDICT_WORLDS.items():
        found: dict[str, list[float]] = {}
        for index in range(sizes.verdict_worlds):
            for quantity, value in errors_of(
                draw_told(world, stream(sizes.seed, f"verdict errors {name}", index))
            ).items():
                if not math.isnan(value):
                    found.setdefault(quantity, []).append(value)
        same = {"world": name, "behaviors": world.n_behaviors, "named": world.n_named}
        for quantity, values in found.items():
            rows.append((share if quantity == "any_wrong_supported" else mean)(quantity, values, **same))
    return rows


def errors_of(told: Told) -> dict[str, float]:
    """Return the shares of false and of due verdicts in one draw; NaN where no explanation could get one."""
    match = match_profiles(told.changes, told.said, strata=told.strata, families=told.families)
    verdicts = np.array([decide(match, i, told.said[:, i]).name for i in range(N_SPEAKING)])
    wrong = told.is_wrong[:N_SPEAKING]
    supported, contradicted = verdicts == "supported", verdicts == "contradicted"
    return {
        "supported_fdr": _mean(wrong[supported], 0.0),
        "any_wrong_supported": float(wrong[supported].any()),
        "contradicted_fdr": _mean(~wrong[contradicted], 0.0),
        "right_contradicted": _mean(contradicted[~wrong]),
        "right_supported": _mean(supported[~wrong]),
        "wrong_contradicted": _mean(contradicted[wrong]),
    }


def _mean(values: np.ndarray, otherwise: float = math.nan) -> float:
    return float(values.mean()) if len(values) else otherwise


def _shared(own: np.ndarray, common: np.ndarray, part: float) -> np.ndarray:
    """Return noise of which the share `part` of the variance is `common`."""
    return math.sqrt(1 - part) * own + math.sqrt(part) * common
