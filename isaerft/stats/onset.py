"""When changes begin: how much of its final change each latent has reached on the way, and when it reached half.

>>> course = np.array([[1.0, 0.0], [4.0, -1.0], [4.0, -4.0]])
>>> onsets(course, [1, 2, 4], [4.0, -4.0]).round(2).tolist()
[1.33, 2.67]
>>> share_reached(course, [4.0, -4.0]).tolist()
[0.125, 0.625, 1.0]
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from isaerft.errors import InputError
from isaerft.stats.checks import as_finite, as_share

HALF = 0.5


def onsets(course: ArrayLike, steps: ArrayLike, final: ArrayLike, *, share: float = HALF) -> np.ndarray:
    """Return the step at which each latent first reached a share of its final change, (n,) float.

    Changes are taken to be straight between checkpoints, and from 0 before the first step. Infinite for a latent that
    never reached it, or whose final change is 0.

    Parameters
    ----------
    course : (n_steps, n) float
        Change of each latent at each checkpoint.
    steps : (n_steps,) int
        Ascending, above 0.
    final : (n,) float
    share : float

    Raises
    ------
    InputError
        Shapes differ, NaN, or steps that do not rise.
    """
    changes, end = _checked(course, final)
    times = np.append(0.0, as_finite("steps", steps, n_dims=1))
    if len(times) != len(changes) + 1 or (np.diff(times) <= 0).any():
        raise InputError(f"steps {times[1:].tolist()} of {len(changes)} checkpoints", allowed="rising, one of each")
    target = as_share("share", share) * np.abs(end)
    toward = np.vstack([np.zeros_like(end), changes * np.sign(end)])
    reached = (toward >= target) & (target > 0)
    first, columns = reached.argmax(axis=0), np.arange(len(end))
    before = np.maximum(first - 1, 0)
    low, high = toward[before, columns], toward[first, columns]
    part = np.divide(target - low, high - low, out=np.zeros_like(end), where=high > low)
    found: np.ndarray = times[before] + part * (times[first] - times[before])
    return np.where(reached.any(axis=0), found, np.inf)


def share_reached(course: ArrayLike, final: ArrayLike) -> np.ndarray:
    """Return how much of the sum of all final changes was reached at each checkpoint, (n_steps,) float.

    What moves against its final direction counts as less than nothing. NaN where no latent changed in the end.

    Parameters
    ----------
    course : (n_steps, n) float
    final : (n,) float
    """
    changes, end = _checked(course, final)
    whole = np.abs(end).sum()
    return changes @ np.sign(end) / whole if whole > 0 else np.full(len(changes), np.nan)


def _checked(course: ArrayLike, final: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    changes, end = as_finite("course", course, n_dims=2), as_finite("final", final, n_dims=1)
    if changes.shape[1] != end.size:
        raise InputError(f"course has shape {changes.shape} and final {end.shape}", allowed="(n_steps, n) and (n,)")
    return changes, end
