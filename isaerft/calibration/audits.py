"""Audits of two sets of rows that have one origin: how often is a difference found, and do intervals hold chance?

Training on rows moves each latent by the mean of what the rows do to it. Every seed sees its own share of the rows, and
latents move together as in the world that they are drawn from.
"""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np

from isaerft.calibration.results import Row, mean, share, stream
from isaerft.calibration.worlds import Dictionary, world_of
from isaerft.config import Calibration
from isaerft.stats.audit import MIN_SEEDS, taught_differently, variance_factor
from isaerft.stats.moderated import moderated_means
from isaerft.stats.multiple_testing import qvalues

WORLDS = ("plain", "clustered", "co_moving", "geometry")
SHARES = (0.5, 0.8)
N_ROWS = 240
LEVELS = (0.05, 0.01)


def audit_null_rows(sizes: Calibration) -> list[Row]:
    """Return for each world and share of rows how often audits with `MIN_SEEDS` seeds are wrong.

    `audit_false_positive_rate` of single candidates and of single latents, `audit_any_found` (any candidate with
    q < 0.05) and `audit_coverage` (intervals of candidates that hold chance).
    """
    rows = []
    for name in WORLDS:
        for seen in SHARES:
            found: dict[str, list[float]] = defaultdict(list)
            for index in range(sizes.coverage_worlds):
                rng = stream(sizes.seed, f"audit {name} {seen:g}", index)
                for quantity, value in audit_errors(name, seen, sizes, rng).items():
                    found[quantity].append(value)
            same = {"world": name, "rows": f"{seen:g}", "n": sizes.coverage_latents}
            for tested in ("candidate", "latent"):
                for level in LEVELS:
                    values = found[f"{tested} {level}"]
                    rows.append(mean("audit_false_positive_rate", values, test=tested, level=level, **same))
            rows.append(share("audit_any_found", np.array(found["any found"]) > 0, **same))
            rows.append(mean("audit_coverage", found["covered"], **same))
    return rows


def audit_errors(name: str, seen: float, sizes: Calibration, rng: np.random.Generator) -> dict[str, float]:
    """Return the shares of candidates and of latents that one audit finds, and of intervals that hold chance.

    Parameters
    ----------
    name : str
        The world that the latents are from.
    seen : float
        Share of the rows that a seed sees.
    """
    dictionary = Dictionary(world_of(name, sizes.coverage_latents), rng)
    expected = dictionary.behaviors(sizes.n_behaviors, rng).expected
    clean, suspect = (_trained(dictionary.rows(N_ROWS, rng), seen, rng) for _ in range(2))
    audited = taught_differently(clean, suspect, expected, share=seen)
    latents = moderated_means(suspect - clean, variance_factor(seen, MIN_SEEDS)).pvalue
    pvalues = {"candidate": np.array([one.pvalue for one in audited]), "latent": latents}
    intervals = [one.confidence_interval for one in audited]
    return {
        **{f"{test} {level}": float((p <= level).mean()) for test, p in pvalues.items() for level in LEVELS},
        "any found": float((qvalues(pvalues["candidate"]) < LEVELS[0]).any()),
        "covered": float(np.mean([low <= 0.5 <= high for low, high in intervals])),
    }


def _trained(rows: np.ndarray, seen: float, rng: np.random.Generator) -> np.ndarray:
    """Return the changes (MIN_SEEDS, n) of seeds that each see a random share of the rows (n_rows, n)."""
    n_seen = math.ceil(seen * len(rows))
    return np.array([rows[rng.permutation(len(rows))[:n_seen]].mean(axis=0) for _ in range(MIN_SEEDS)])
