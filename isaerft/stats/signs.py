"""Sign agreement: did the latents expected to rise rise, and those expected to fall fall?

>>> import numpy as np
>>> float(sign_agreement(np.array([0.2, -1.0, 3.0, 0.0]), np.array([1.0, -0.5, -1.0, 0.0])).round(3))
0.333
"""

from __future__ import annotations

from typing import Any

import numpy as np

from isaerft.registry import STATISTICS
from isaerft.stats.checks import as_change, as_graded
from isaerft.stats.statistics import LinearScorer, Statistic


def mean_change(changes: np.ndarray) -> np.ndarray:
    """Return (n,) the mean signed change over the seeds of `changes` (n_seeds, n), in the measure's unit."""
    return np.asarray(changes, dtype=np.float64).mean(axis=0)


def sign_agreement(change: Any, expected: Any) -> np.ndarray:
    """Return how much more often latents moved the way they were expected to than the other way.

    Parameters
    ----------
    change : (n,) float
        Signed change of each latent; only its sign counts.
    expected : (..., n) float
        Expected effect, positive where a latent should rise; 0 expects no direction and leaves the latent out.

    Returns
    -------
    (...) float
        Share of latents with an expected direction that moved that way, less the share that moved against it, -1 to
        1; a latent that did not move is neither. NaN where no direction is expected.

    Notes
    -----
    Its value without agreement is not 0 but the product of how often latents rise and how often they are expected
    to: where training lifts every latent, so does the guess "all rise". Read it beside its null's mean.
    """
    signs = np.sign(np.asarray(expected, dtype=np.float64))
    directed = np.abs(signs).sum(axis=-1)
    return signs @ np.sign(as_change(change)) / np.where(directed > 0, directed, np.nan)


def _bind(change: np.ndarray, expected: Any, strata: np.ndarray) -> LinearScorer:
    signs = np.sign(as_graded(expected, change.size))
    return LinearScorer(signs, np.sign(change), 1 / float(np.abs(signs).sum()))


STATISTICS("sign_agreement")(Statistic(_bind, graded=True, combine=mean_change, directed=True))
