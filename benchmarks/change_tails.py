"""How often `isaerft.stats.tail_of` keeps the true family of a tail, and refutes the others.

    python benchmarks/change_tails.py --draws 500

Sizes are drawn from a known distribution: all independent, or 30 % of them near-duplicates in groups of 2 to 6, as in
the simulated worlds (`isaerft.calibration.worlds`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from scipy.stats import norm

from isaerft.calibration.worlds import Dictionary, World
from isaerft.stats.tails import FAMILIES, tail_of

Quantile = Callable[[np.ndarray], np.ndarray]
"""Sizes at probabilities."""
TRUTHS: dict[str, tuple[str, Quantile]] = {
    "normal": ("normal", lambda p: norm.ppf((1 + p) / 2)),
    "exponential": ("exponential", lambda p: -np.log1p(-p)),
    "lognormal, sd 1": ("lognormal", lambda p: np.exp(norm.ppf(p))),
    "lognormal, sd 2": ("lognormal", lambda p: np.exp(2 * norm.ppf(p))),
    "power law, exponent 2.5": ("power_law", lambda p: (1 - p) ** (-1 / 1.5)),
    "power law, exponent 3.5": ("power_law", lambda p: (1 - p) ** (-1 / 2.5)),
}


def kept(quantile: Quantile, n: int, clustered: float, draws: int, seed: int = 0) -> dict[str, float]:
    """Return the share of draws of `n` sizes in which each family is kept."""
    rng = np.random.default_rng(seed)
    counts = dict.fromkeys(FAMILIES, 0)
    for _ in range(draws):
        normal = Dictionary(World(n, clustered=clustered), rng).rows(1, rng)[0]
        tail = tail_of(quantile(norm.cdf(normal)))
        for family in tail.fitting if tail else ():
            counts[family] += 1
    return {family: count / draws for family, count in counts.items()}


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=500)
    draws = parser.parse_args().draws
    print("| truth | latents | near-duplicates | " + " | ".join(FAMILIES) + " |")
    print("|---" * (3 + len(FAMILIES)) + "|")
    for name, (_, quantile) in TRUTHS.items():
        for n, clustered in ((1024, 0.0), (1024, 0.3), (8192, 0.0)):
            shares = kept(quantile, n, clustered, draws)
            print(f"| {name} | {n} | {clustered:.0%} | " + " | ".join(f"{shares[one]:.2f}" for one in FAMILIES) + " |")


if __name__ == "__main__":
    main()
