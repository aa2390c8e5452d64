"""How well the verdicts tell wrong explanations from right ones, by the share that is wrong and by the odds ratio."""

from __future__ import annotations

import numpy as np

from isaerft.stats.calibration.nulls import groups_in
from isaerft.stats.calibration.rows import Row, Sizes, setting, stream
from isaerft.stats.calibration.worlds import World, draw
from isaerft.stats.seeds import mean_rank
from isaerft.stats.statistics import auroc
from isaerft.stats.verdicts import match_profiles

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
