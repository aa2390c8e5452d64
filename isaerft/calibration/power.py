"""Power: how often each test finds an agreement, by odds ratio and number of latents."""

from __future__ import annotations

from collections import defaultdict

from isaerft.calibration.nulls import evidence_of, results_of
from isaerft.calibration.results import Row, share, stream
from isaerft.calibration.worlds import World, draw
from isaerft.config import Calibration

ALPHA = 0.05
# Near-duplicates, but no confound: what a fit leaves of one would be found too, and look like power.
CLUSTERED = 0.3


def power_rows(n_latents: int, sizes: Calibration) -> list[Row]:
    """Return the power at level 0.05 of every test that a study reports, for every odds ratio.

    Tests of one behavior are those of the first; the test of specificity is of all behaviors.
    """
    rows = []
    for ratio in sizes.odds_ratios:
        world = World(
            n_latents,
            n_behaviors=sizes.n_behaviors,
            n_placebos=sizes.n_placebos,
            odds_ratio=ratio,
            clustered=CLUSTERED,
        )
        found: dict[str, list[bool]] = defaultdict(list)
        for index in range(sizes.power_worlds):
            # The same random numbers at every odds ratio, so that curves are smooth.
            rng = stream(sizes.seed, f"power {n_latents}", index)
            evidence = evidence_of(draw(world, rng), sizes.n_bins)
            for test, result in results_of(evidence, 0, n_resamples=sizes.n_resamples, rng=rng):
                found[test].append(result.pvalue <= ALPHA)
        same = {"odds_ratio": f"{ratio:g}", "n": n_latents, "behaviors": sizes.n_behaviors, "level": ALPHA}
        rows += [share("power", hits, test=test, **same) for test, hits in found.items()]
    return rows
