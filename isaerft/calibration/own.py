"""A study's own false-positive rates: random directions in the residual stream, read through its own dictionary.

A bias on the latents that is trained by gradient descent is W_dec g, for some direction g in the residual stream. With
g random, no explanation has anything to do with what changed, but latents move together as they do in the study: so
its tests, on its own labels, strata and confounds, should reject at their level. g is isotropic, or has the covariance
of the reconstructed residual stream.

Beside the tests that the study reports stands the p-value under rotation (Langsrud 2005, Stat. Comput. 15:53; ROAST,
Wu et al. 2010, Bioinformatics 26:2176): the rank of a behavior's own statistic among those of isotropic directions. It
is exact where isotropic is what the noise of training is, and needs no further training.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from isaerft.calibration.nulls import NAIVE, Counts, Evidence, Outcome, latents_exchanged, results_of
from isaerft.calibration.results import Row, setting, stream
from isaerft.stats.seeds import mean_rank
from isaerft.stats.specificity import specificity_matrix
from isaerft.stats.trainings import placebo_pvalue

RELIABILITY = 0.7
"""Share of the variance of one seed's direction that all seeds of a training have in common."""
N_ROTATIONS = 999
_BATCH = 100


@dataclass(frozen=True)
class Directions:
    """Trainings whose changes are random directions in the residual stream.

    Attributes
    ----------
    rows : (n, d) float
        The change of each latent is its row times a standard normal vector.
    n_seeds : int
        Seeds of a training.
    """

    rows: np.ndarray
    n_seeds: int

    def changes(self, n_trainings: int, rng: np.random.Generator) -> np.ndarray:
        """Return the changes of trainings, combined over seeds, (n_trainings, n)."""
        d = self.rows.shape[1]
        own, noise = rng.normal(size=(n_trainings, 1, d)), rng.normal(size=(n_trainings, self.n_seeds, d))
        seeds = math.sqrt(RELIABILITY) * own + math.sqrt(1 - RELIABILITY) * noise
        return np.array([mean_rank(training @ self.rows.T) for training in seeds]).reshape(n_trainings, -1)


def directions_of(decoder: np.ndarray, power: np.ndarray, latents: np.ndarray, n_seeds: int) -> dict[str, Directions]:
    """Return isotropic directions, and those with the covariance of the reconstructed residual stream.

    Parameters
    ----------
    decoder : (d_sae, d_in) float
        W_dec. A change is measured in the units of the residual stream, so it is <W_dec, g> times the row's length.
    power : (d_sae,) float
        Mean square activation of each latent over all tokens; latents are taken to fire independently.
    latents : (n,) int64
        The universe.
    n_seeds : int
    """
    rows = decoder[latents] * np.linalg.norm(decoder[latents], axis=1, keepdims=True)
    sizes, axes = np.linalg.eigh((decoder * power[:, None]).T @ decoder)
    root = axes * np.sqrt(np.maximum(sizes, 0))
    return {"isotropic": Directions(rows, n_seeds), "residual_covariance": Directions(rows @ root, n_seeds)}


def own_rows(
    evidence: Evidence,
    directions: dict[str, Directions],
    behaviors: Sequence[str],
    *,
    n_draws: int,
    n_placebos: int,
    n_resamples: int,
    seed: int,
) -> list[Row]:
    """Return a study's own false-positive rates and coverage, and the p-values of its result beside those of rotation.

    Parameters
    ----------
    evidence : Evidence
        Of the study, its changes included.
    directions : dict of str to Directions
        As `directions_of` returns them.
    behaviors : sequence of str
        Names of the B behaviors. Each draw tests the next.
    n_draws : int
        Draws of all trainings.
    n_placebos : int
        Placebo trainings in each.
    """
    count = len(behaviors)
    rotated = _rotated(evidence, directions["isotropic"], stream(seed, "rotations", 0))
    rows = []
    for kind, drawn in directions.items():
        counts = Counts()
        for index in range(n_draws):
            rng, own = stream(seed, f"own {kind}", index), index % count
            changes = drawn.changes(count + n_placebos, rng)
            null = replace(evidence, changes=changes[:count], placebos=changes[count:])
            counts.add(_tested(null, own, rotated, n_resamples, rng))
        rows += counts.rows(directions=kind, n=len(evidence.texts))
    for own, behavior in enumerate(behaviors):
        for test, found in _tested(evidence, own, rotated, n_resamples, stream(seed, "result", own)):
            if test != "specificity":
                rows.append(Row("pvalue", setting(test=test, behavior=behavior), found.pvalue))
            elif own == 0:
                rows.append(Row("pvalue", setting(test=test), found.pvalue))
    return rows


def _tested(
    evidence: Evidence, own: int, rotated: np.ndarray, n_resamples: int, rng: np.random.Generator
) -> Iterator[tuple[str, Outcome]]:
    """Yield the results of the study's tests, of rotation, and of the exchange of latents."""
    yield from results_of(evidence, own, n_resamples=n_resamples, rng=rng)
    labels = evidence.expected[own : own + 1]
    value = float(specificity_matrix(evidence.changes[own : own + 1], labels, **evidence.groups)[0, 0])
    yield "rotation", Outcome(placebo_pvalue(value, rotated[:, own]))
    exchanged = latents_exchanged(evidence, own, n_resamples=n_resamples, rng=rng)
    yield f"{NAIVE}exchange_of_latents", Outcome(exchanged)


def _rotated(evidence: Evidence, directions: Directions, rng: np.random.Generator) -> np.ndarray:
    """Return the adjusted statistic of random directions with the labels of every behavior, (N_ROTATIONS, B)."""
    sizes = [min(_BATCH, N_ROTATIONS - start) for start in range(0, N_ROTATIONS, _BATCH)]
    parts = [specificity_matrix(directions.changes(size, rng), evidence.expected, **evidence.groups) for size in sizes]
    return np.concatenate(parts)
