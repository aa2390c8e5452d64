"""Samples of latents: random ones matched to chosen latents, and a case-control sample.

`matched_draws` draws latents that resemble chosen ones in the confounds, as controls of a causal check:

>>> import numpy as np
>>> rate = np.arange(100.0)
>>> draws = matched_draws([10, 50], rate, n_draws=3, n_nearest=4, rng=np.random.default_rng(0))
>>> np.abs(rate[draws] - rate[[10, 50]]).max() <= 4
np.True_

`case_control` takes the most changed latents, and controls from the same strata. The null of the exchange test says
that labels are exchangeable within strata, given all changes. The sample depends on changes, strata and random numbers,
never on labels, so labels in the sample are exchangeable within the same strata and a test on it keeps its level. That
holds only with the strata of the draw: bins cut anew in the sample would join latents that were never exchangeable.
Clusters are drawn whole for the same reason.

>>> strata = np.array([0, 0, 0, 0, 1, 1, 1, 1])
>>> sample = case_control(np.arange(8.0)[None], strata, n_cases=1, controls_per_case=2, rng=0)
>>> sample.latents[sample.is_case].tolist(), sample.latents.min() >= 4, len(sample.latents)
([7], np.True_, 3)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from isaerft.errors import InputError
from isaerft.stats.checks import as_count, as_finite
from isaerft.stats.exchange import exchange_within
from isaerft.stats.ranks import midranks

NO_SPREAD = 1e-5


def matched_draws(
    chosen: ArrayLike, *confounds: ArrayLike, n_draws: int, rng: np.random.Generator, n_nearest: int = 20
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
        Size of the neighborhood; larger: more varied draws, looser matches.

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
    ranks = [midranks(column) / column.size for column in columns if np.ptp(column) > NO_SPREAD * np.abs(column).max()]
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


@dataclass(frozen=True)
class CaseControl:
    """A sample of m of n latents.

    Attributes
    ----------
    latents : (m,) int64
        Places of the sampled latents, ascending.
    is_case : (m,) bool
        Whether each is a case of any group (or in a cluster with one).
    matched_to : (m,) int64
        Place of the case that a control was drawn for; a case's own place.
    drawn_for : (n_groups, m) bool
        Groups of which each, or the case it is matched to, is a case.
    n_lacking : int
        Controls that were asked for and that the strata did not have.
    """

    latents: np.ndarray
    is_case: np.ndarray
    matched_to: np.ndarray
    drawn_for: np.ndarray
    n_lacking: int


def case_control(
    change: Iterable[ArrayLike],
    strata: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    *,
    n_cases: int,
    controls_per_case: int,
    rng: np.random.Generator | int,
) -> CaseControl:
    """Draw the most changed latents of each group, and for each of them controls that are no case of any group.

    Parameters
    ----------
    change : (n_groups, n) float
        Size of each latent's change in each group, such as a behavior and an adapter. A latent that changed no more
        than the least changed one of its group is no case of it. Groups may come one at a time, each (n,).
    strata, clusters : (n,) int, optional
        As for `agreement_test`. Controls come from their case's stratum; a cluster is drawn whole, and its controls are
        clusters of its size.
    n_cases : int
        Most changed latents per group; ties go to the earlier latent.
    controls_per_case : int
        Controls per case, without repeats, fewer where the stratum has no more.
    rng : numpy.random.Generator or int
        Draws the controls.

    Raises
    ------
    InputError
        `change` is not finite, counts are below 1, or no group has a latent that changed more than another.
    """
    n_cases, per_case = as_count("n_cases", n_cases), as_count("controls_per_case", controls_per_case)
    n, cases = 0, list[np.ndarray]()
    for size in change:
        sizes = as_finite("change", size, n_dims=1)
        if cases and sizes.size != n:
            raise InputError(f"a group of change has {sizes.size} latents", allowed=f"{n}, as the first")
        n = sizes.size
        cases.append(_cases(sizes, n_cases))
    if not any(len(own) for own in cases):
        raise InputError(
            f"no latent changed more than another in any of {len(cases)} groups",
            remedy="check that the adapters were trained and that the measure sees them",
        )
    generator = np.random.default_rng(rng)
    exchange = exchange_within(n, strata, clusters)
    is_picked, block_of, n_blocks = np.zeros(n, dtype=bool), np.empty(n, dtype=np.int64), 0
    is_picked[np.concatenate(cases)] = True
    matched_to = np.full(n, -1)
    is_case, lacking = np.zeros(n, dtype=bool), 0
    for cell in exchange.cells:
        blocks = cell.blocks(exchange.order)
        block_of[blocks] = n_blocks + np.arange(len(blocks))[:, None]
        n_blocks += len(blocks)
        with_case = is_picked[blocks].any(axis=1)
        drawn, free = blocks[with_case], generator.permutation(blocks[~with_case])
        is_case[drawn] = True
        matched_to[drawn] = drawn
        wanted = per_case * len(drawn)
        for place, control in enumerate(free[:wanted]):
            matched_to[control] = drawn[place % len(drawn), 0]
        lacking += max(0, wanted - len(free)) * cell.size
    latents = np.flatnonzero(matched_to >= 0)
    blocks_drawn = block_of[matched_to[latents]]
    drawn_for = np.array([np.isin(blocks_drawn, block_of[own]) for own in cases])
    return CaseControl(latents, is_case[latents], matched_to[latents], drawn_for, lacking)


def _cases(sizes: np.ndarray, n_cases: int) -> np.ndarray:
    """Return the places of the most changed latents of `sizes` (n,), at most `n_cases`."""
    top = np.argsort(-sizes, kind="stable")[:n_cases]
    return top[sizes[top] > sizes.min()]
