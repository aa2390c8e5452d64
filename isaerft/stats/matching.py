"""Random latents that are alike to chosen ones in what else could explain a result: the control of a causal check.

>>> import numpy as np
>>> rate = np.arange(100.0)
>>> draws = matched_draws([10, 50], rate, n_draws=3, n_nearest=4, rng=np.random.default_rng(0))
>>> np.abs(rate[draws] - rate[[10, 50]]).max() <= 4
np.True_
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import rankdata

from isaerft.errors import InputError
from isaerft.stats.checks import as_count, as_finite

NO_SPREAD = 1e-5


def matched_draws(
    chosen: Any, *confounds: Any, n_draws: int, rng: np.random.Generator, n_nearest: int = 20
) -> np.ndarray:
    """Draw, again and again, one other latent for each chosen one, alike to it in all confounds.

    Each chosen latent's partner is any of the `n_nearest` latents nearest to it that are neither chosen nor already
    taken in this draw, with equal chance. Nearness is the Euclidean distance of the confounds' ranks, so that their
    units and tails do not matter; a confound that is constant but for rounding is left out.

    Parameters
    ----------
    chosen : (k,) int
        Places of the chosen latents in the confounds, without repeats.
    *confounds : (n,) float
        One or more quantities per latent, such as firing rate and decoder norm.
    n_draws : int
        Number of draws.
    n_nearest : int
        Size of the neighbourhood; a larger one gives more different draws and looser matches.

    Returns
    -------
    (n_draws, k) int64
        Places of the drawn latents, column by column the partners of `chosen`; no place twice in a row.

    Raises
    ------
    InputError
        There are fewer unchosen latents than chosen ones, or nothing was chosen.
    """
    n_draws, n_nearest = as_count("n_draws", n_draws), as_count("n_nearest", n_nearest)
    columns = [as_finite(f"confound {index}", values, n_dims=1) for index, values in enumerate(confounds)]
    if not columns or len({column.size for column in columns}) > 1:
        raise InputError(
            f"confounds have lengths {[column.size for column in columns]}", allowed="one value per latent"
        )
    picked = np.asarray(chosen, dtype=np.int64)
    free = np.setdiff1d(np.arange(columns[0].size), picked)
    if not 0 < picked.size <= free.size:
        raise InputError(
            f"{picked.size} latents are to be matched among {free.size} others", allowed="as many others, at least"
        )
    ranks = [rankdata(column) / column.size for column in columns if np.ptp(column) > NO_SPREAD * np.abs(column).max()]
    places = np.stack(ranks, axis=1) if ranks else np.zeros((columns[0].size, 1))
    # The others of a draw take at most k - 1 latents, so these candidates always hold one that is left.
    n_candidates = min(free.size, n_nearest + picked.size - 1)
    nearest = [_nearest(places[free] - places[latent], n_candidates) for latent in picked]
    draws = np.empty((n_draws, picked.size), dtype=np.int64)
    for draw in draws:
        taken: set[int] = set()
        for place in rng.permutation(picked.size):
            left = [candidate for candidate in nearest[place] if candidate not in taken][:n_nearest]
            drawn = left[rng.integers(len(left))]
            taken.add(drawn)
            draw[place] = free[drawn]
    return draws


def _nearest(offsets: np.ndarray, n: int) -> list[int]:
    """Return the places of the `n` shortest offsets, (n_free, n_confounds), shortest first."""
    distance = (offsets**2).sum(1)
    return np.argsort(distance, kind="stable")[:n].tolist()
