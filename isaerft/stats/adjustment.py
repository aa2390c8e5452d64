"""What confounds explain of changes and of labels, taken out of both before labels are exchanged.

Strata leave a rest: within a bin, latents that fire more still change more and are still expected more. So what a
smooth function of the confounds explains, beside a level of its own for each stratum, is regressed out. For a statistic
that is linear in the labels this changes nothing of its value, only of its null. With Q an orthonormal basis of these
functions, w = QQ'w + r the weights (ranks of the changes) and l = QQ'l + s the labels,

    sum_i w_i l_i = sum_i (QQ'w)_i l_i + sum_i r_i s_i

because r and s are both orthogonal to Q. The first sum is what confounds alone explain, and stays; in the second,
labels are exchanged: the residuals s against r (Kennedy 1995, J. Educ. Behav. Stat. 20:79; for exchanges in linear
models see Winkler et al. 2014, NeuroImage 92:381). The mean of r s is 0 without agreement if either the changes or the
labels depend on the confounds as Q can say, so the test errs only where both don't. How that sum is studentised, and
why, says `isaerft.stats.studentised`.

>>> import numpy as np
>>> rate = np.random.default_rng(0).normal(size=400)
>>> smooth = SmoothConfounds.of(rate[None], np.zeros(400, int), n_blocks=400)
>>> smooth.n_terms, float(np.abs(rate**2 - smooth.fitted(rate**2)).mean().round(2))
(3, 0.02)
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from scipy.stats import norm, rankdata

from isaerft.errors import InputError
from isaerft.stats.checks import as_finite

MAX_DEGREE = 3
BLOCKS_PER_TERM = 20
"""Fewest blocks that exchange labels (latents, or clusters) per function fitted; otherwise the degree is lower."""


@dataclass(frozen=True)
class SmoothConfounds:
    """Smooth functions of confounds, beside a level for each stratum.

    Attributes
    ----------
    basis : (n, n_strata + n_terms) float
        Orthonormal columns that span the strata's levels and the polynomials of the confounds' normal scores.
    n_terms : int
        Functions fitted besides the levels; 0 where there are too few latents to fit any.
    n_blocks : int
        Latents or clusters that exchange labels.
    """

    basis: np.ndarray
    n_terms: int
    n_blocks: int

    @property
    def inflation(self) -> float:
        """By how much the errors' spread exceeds the residuals': the fit takes degrees of freedom (HC1).

        Those of the levels don't count: every exchange is within strata, too.
        """
        return float(np.sqrt((self.n_blocks - 1) / (self.n_blocks - 1 - self.n_terms)))

    @classmethod
    def of(cls, confounds: Any, strata: np.ndarray, *, n_blocks: int) -> SmoothConfounds:
        """Return all polynomials up to the third degree, or as many degrees as the number of blocks allows.

        Parameters
        ----------
        confounds : (k, n) float
            Only ranks count.
        strata : (n,) int
            Codes from 0.
        n_blocks : int
            Latents or clusters that exchange labels.

        Raises
        ------
        InputError
            NaN, or not two-dimensional.
        """
        values = as_finite("confounds", confounds, n_dims=2)
        scores = norm.ppf((rankdata(values, axis=1) - 0.5) / values.shape[1])
        terms: list[np.ndarray] = []
        for degree in range(1, MAX_DEGREE + 1):
            chosen = combinations_with_replacement(range(len(scores)), degree)
            further = [scores[list(factors)].prod(axis=0) for factors in chosen]
            if BLOCKS_PER_TERM * (len(terms) + len(further)) > n_blocks:
                break
            terms += further
        levels = (strata == np.arange(strata.max() + 1)[:, None]).astype(np.float64)
        basis = _orthonormal(np.stack([*levels, *terms], axis=1))
        return cls(basis, basis.shape[1] - len(levels), n_blocks)

    def fitted(self, values: np.ndarray) -> np.ndarray:
        """Return what strata and confounds explain of `values` (..., n)."""
        return (values @ self.basis) @ self.basis.T


def smooth_confounds(confounds: Any, strata: np.ndarray, clusters: np.ndarray) -> SmoothConfounds | None:
    """Return the smooth functions of `confounds` (k, n), given strata (n,) and the clusters (n,) that exchange labels.

    None where no confounds are given, or too few latents to fit any function of them.

    Raises
    ------
    InputError
        Confounds are not (k, n) finite numbers.
    """
    if confounds is None:
        return None
    values = as_finite("confounds", confounds, n_dims=2)
    if values.shape[1] != len(clusters):
        raise InputError(f"confounds have shape {values.shape}", allowed=f"(k, {len(clusters)})")
    smooth = SmoothConfounds.of(values, strata, n_blocks=len(np.unique(clusters)))
    return smooth if smooth.n_terms else None


def _orthonormal(columns: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis of the span of the columns (n, p); what depends on others, or is 0, adds nothing."""
    norms = np.linalg.norm(columns, axis=0)
    left, sizes, _ = np.linalg.svd(columns[:, norms > 0] / norms[norms > 0], full_matrices=False)
    return left[:, sizes > 1e-8 * sizes[0]]
