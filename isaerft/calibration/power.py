"""How often each test finds an agreement that is there, by odds ratio and number of latents.

How well the verdicts tell wrong explanations from right ones, by the share that is wrong and by the odds ratio.
"""

from __future__ import annotations

import numpy as np

from isaerft.calibration.nulls import TESTS, groups_in, without_interval
from isaerft.calibration.rows import Row, Sizes, setting, share, stream
from isaerft.calibration.worlds import World, draw
from isaerft.errors import InputError
from isaerft.stats.agreement import agreement_tests
from isaerft.stats.power import Design, auroc_of_odds_ratio, power_of
from isaerft.stats.seeds import mean_rank
from isaerft.stats.statistics import auroc
from isaerft.stats.verdicts import match_profiles

ALPHA = 0.05
# Near-duplicates, but no confound: one that strata leave a rest of would be found too, and look like power.
CLUSTERED = 0.3
# Larger worlds are in proportion fewer, for nearly everything is found in them.
FULL, MIN_WORLDS = 2000, 50


def power_rows(n_latents: int, sizes: Sizes) -> list[Row]:
    """Return the power at level 0.05 of every test, one behavior, five seeds, for every odds ratio.

    Beside it stands what `isaerft.stats.power` plans with for independent latents ("planned_power").
    """
    worlds = {ratio: World(n_latents, odds_ratio=ratio, clustered=CLUSTERED) for ratio in sizes.odds_ratios}
    found = {(test, ratio): [] for test in TESTS for ratio in worlds}
    n_worlds = max(min(sizes.power_worlds, MIN_WORLDS), sizes.power_worlds * FULL // max(FULL, n_latents))
    for index in range(n_worlds):
        part = f"power {n_latents}"
        # The same random numbers at every odds ratio: latents and labels are the same, so exchanges can be shared.
        drawn = {ratio: draw(world, stream(sizes.seed, part, index)) for ratio, world in worlds.items()}
        changes = {ratio: mean_rank(one.changes[0]) for ratio, one in drawn.items()}
        first = next(iter(drawn.values()))
        groups = groups_in(first, sizes.n_bins)
        for test in TESTS:
            labels = first.effect[0] if test == "spearman" else first.expected[0]
            results = agreement_tests(
                [(change, labels) for change in changes.values()],
                statistic=without_interval(test),
                n_resamples=sizes.n_resamples,
                rng=index,
                **groups,
            )
            for ratio, result in zip(worlds, results, strict=True):
                found[test, ratio].append(not isinstance(result, InputError) and result.pvalue <= ALPHA)
    world = next(iter(worlds.values()))
    same = {"n": n_latents, "seeds": world.n_seeds, "reliability": world.reliability, "level": ALPHA}
    rows = [share("power", hits, test=test, odds_ratio=f"{ratio:g}", **same) for (test, ratio), hits in found.items()]
    design = Design(
        n_latents=n_latents,
        expected_share=world.expected_share,
        n_seeds=world.n_seeds,
        seed_reliability=world.reliability,
    )
    return rows + [
        Row(
            "planned_power",
            setting(test="auroc", odds_ratio=f"{ratio:g}", **same),
            power_of(auroc_of_odds_ratio(ratio), design, alpha=ALPHA),
        )
        for ratio in worlds
    ]


# Of each behavior; a latent is expected to change for few behaviors, so that explanations differ.
EXPECTED_SHARE = 0.05
WORLD = {"clustered": 0.3, "confounding": 0.3, "expected_share": EXPECTED_SHARE}
FEWEST = 3


def verdict_rows(wrong: float, sizes: Sizes) -> list[Row]:
    """Return the mean AUROC of wrong explanations, ranked by the p-value of being contradicted, per odds ratio.

    Among explanations that predict something, the share `wrong` is exchanged, none keeping what it predicts. Beside it
    stands how many of the wrong ones are called contradicted at q < 0.05, and how many right ones.
    """
    rows = []
    for ratio in sizes.verdict_odds_ratios:
        world = World(sizes.coverage_latents, n_behaviors=sizes.verdict_behaviors, odds_ratio=ratio, **WORLD)
        found, called = [], {True: [], False: []}
        for index in range(sizes.verdict_worlds):
            rng = stream(sizes.seed, f"verdicts {wrong:g}", index)
            drawn = draw(world, rng)
            said, is_wrong = exchanged(drawn.expected, wrong, rng)
            changes = np.array([mean_rank(seeds) for seeds in drawn.changes])
            match = match_profiles(changes, said.astype(float), **groups_in(drawn, sizes.n_bins))
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
            _mean("wrong_explanations_auroc", found, same),
            _mean("wrong_called_contradicted", called[True], same),
            _mean("right_called_contradicted", called[False], same),
        ]
    return rows


def exchanged(expected: np.ndarray, wrong: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return labels (B, n) in which a share `wrong` of the columns that expect something got another's, and which.

    A column that got one equal to its own is right.
    """
    speaking = np.flatnonzero(expected.any(axis=0))
    chosen = rng.choice(speaking, size=max(2, round(wrong * len(speaking))), replace=False)
    said = expected.copy()
    said[:, chosen] = expected[:, np.roll(chosen, 1)]
    return said, (said != expected).any(axis=0)


def _mean(quantity: str, values: list[float], same: dict[str, object]) -> Row:
    """Return the row of a mean over worlds with its normal interval."""
    mean, count = float(np.mean(values)) if values else np.nan, len(values)
    half = 1.96 * float(np.std(values, ddof=1)) / np.sqrt(count) if count > 1 else np.nan
    return Row(quantity, setting(**same, worlds=count), mean, (mean - half, mean + half))
