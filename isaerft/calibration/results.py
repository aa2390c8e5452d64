"""Rows of calibration.csv: a quantity in a setting, its value and its interval.

>>> share("power", [True, True, False, True], test="auroc")
Row(quantity='power', setting='test=auroc; worlds=4', value=0.75, interval=(0.3006..., 0.9544...))
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import binomtest

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Row:
    """A row of calibration.csv.

    Attributes
    ----------
    quantity : str
    setting : str
        "key=value" pairs, see `setting`.
    value : float
    interval : (float, float)
        Ends of the 95 % confidence interval; NaN where there is none.
    """

    quantity: str
    setting: str
    value: float
    interval: tuple[float, float] = (math.nan, math.nan)


def setting(**parts: object) -> str:
    """Return a setting as text, such as "test=auroc; n=1000"."""
    return "; ".join(f"{key}={value}" for key, value in parts.items())


def table_of(rows: Iterable[Row]) -> pd.DataFrame:
    """Return rows as the columns of calibration.csv."""
    columns = ["quantity", "setting", "value", "ci_low", "ci_high"]
    return pd.DataFrame([(row.quantity, row.setting, row.value, *row.interval) for row in rows], columns=columns)


def share(quantity: str, hits: ArrayLike, **parts: object) -> Row:
    """Return the row of the share of worlds with a hit, `hits` (n_worlds,) bool, with Wilson's interval."""
    hits = np.asarray(hits, dtype=bool)
    found = binomtest(int(hits.sum()), len(hits))
    low, high = found.proportion_ci(CONFIDENCE, method="wilson")
    return Row(quantity, setting(**parts, worlds=len(hits)), float(hits.mean()), (float(low), float(high)))


def mean(quantity: str, values: Sequence[float], **parts: object) -> Row:
    """Return the row of a mean over worlds, with a normal interval; NaN without values."""
    average, count = float(np.mean(values)) if values else math.nan, len(values)
    half = 1.96 * float(np.std(values, ddof=1)) / math.sqrt(count) if count > 1 else math.nan
    return Row(quantity, setting(**parts, worlds=count), average, (average - half, average + half))


def stream(seed: int, part: str, world: int) -> np.random.Generator:
    """Return the random numbers of one world of one part, which do not depend on the order worlds are drawn in."""
    return np.random.default_rng([seed, world, *part.encode()])
