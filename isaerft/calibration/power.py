"""Power: how often each test finds an agreement, by odds ratio and number of latents."""

from __future__ import annotations

from isaerft.calibration.nulls import TESTS, without_interval
from isaerft.calibration.results import Row, setting, share, stream
from isaerft.calibration.worlds import World, draw
from isaerft.config import Calibration
from isaerft.errors import InputError
from isaerft.stats.agreement import agreement_tests
from isaerft.stats.power import Design, auroc_of_odds_ratio, power_of
from isaerft.stats.seeds import mean_rank

ALPHA = 0.05
# Near-duplicates, but no confound: what strata leave of one would be found too, and look like power.
CLUSTERED = 0.3
# Larger worlds are in proportion fewer, because nearly everything is found in them.
FULL, MIN_WORLDS = 2000, 50


def power_rows(n_latents: int, sizes: Calibration) -> list[Row]:
    """Return the power at level 0.05 of every test, one behavior, five seeds, for every odds ratio.

    "planned_power" is what `isaerft.stats.power` predicts for independent latents.
    """
    worlds = {ratio: World(n_latents, odds_ratio=ratio, clustered=CLUSTERED) for ratio in sizes.odds_ratios}
    found: dict[tuple[str, float], list[bool]] = {(test, ratio): [] for test in TESTS for ratio in worlds}
    n_worlds = max(min(sizes.power_worlds, MIN_WORLDS), sizes.power_worlds * FULL // max(FULL, n_latents))
    for index in range(n_worlds):
        part = f"power {n_latents}"
        # The same random numbers at every odds ratio: latents and labels are the same, so exchanges can be shared.
        drawn = {ratio: draw(world, stream(sizes.seed, part, index)) for ratio, world in worlds.items()}
        changes = {ratio: mean_rank(one.changes[0]) for ratio, one in drawn.items()}
        first = next(iter(drawn.values()))
        groups = first.groups(sizes.n_bins)
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
