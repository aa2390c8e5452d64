"""Rows of calibration.csv: what was counted, over how many worlds, with its interval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Sizes:
    """How large the calibration study is; `isaerft.config.Calibration` explains the fields and holds the defaults."""

    seed: int
    n_resamples: int
    n_bins: int
    n_tokens: int
    null_worlds: int
    power_worlds: int
    coverage_worlds: int
    coverage_latents: int
    n_behaviors: int
    verdict_behaviors: int
    verdict_worlds: int
    verdict_odds_ratios: Sequence[float]
    odds_ratios: Sequence[float]


@dataclass(frozen=True)
class Row:
    """One row: `setting` is a list of key=value, `interval` the ends of a 95 % confidence interval (NaN: none)."""

    quantity: str
    setting: str
    value: float
    interval: tuple[float, float] = (math.nan, math.nan)


def setting(**parts: Any) -> str:
    """Return the parts of a setting as one text, `test=auroc; n=1000`."""
    return "; ".join(f"{key}={value}" for key, value in parts.items())


def table_of(rows: Iterable[Row]) -> pd.DataFrame:
    """Return rows as the columns of calibration.csv."""
    columns = ["quantity", "setting", "value", "ci_low", "ci_high"]
    return pd.DataFrame([(row.quantity, row.setting, row.value, *row.interval) for row in rows], columns=columns)


def share(quantity: str, hits: Any, **parts: Any) -> Row:
    """Return the row of a share: of worlds, (n_worlds,) bool, those where something held; Wilson's interval."""
    hits = np.asarray(hits, dtype=bool)
    found = binomtest(int(hits.sum()), len(hits))
    low, high = found.proportion_ci(CONFIDENCE, method="wilson")
    return Row(quantity, setting(**parts, worlds=len(hits)), float(hits.mean()), (float(low), float(high)))


def stream(seed: int, part: str, world: int) -> np.random.Generator:
    """Return the random numbers of one world of one part: the same wherever and in whatever order worlds are drawn."""
    return np.random.default_rng([seed, world, *part.encode()])
