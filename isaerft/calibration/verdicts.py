"""How well verdicts tell wrong explanations from right ones, by the share of wrong ones and the odds ratio."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from isaerft.calibration.results import Row, mean, stream
from isaerft.calibration.worlds import World, draw
from isaerft.config import Calibration
from isaerft.stats.seeds import mean_rank
from isaerft.stats.statistics import auroc
from isaerft.stats.verdicts import match_profiles

# A latent is expected to change for few behaviors, so that explanations differ.
EXPECTED_SHARE = 0.05
WORLD = World(0, clustered=0.3, confounding=0.3, expected_share=EXPECTED_SHARE)
# Fewest wrong (and right) explanations in a world that counts.
FEWEST = 3


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
