"""Erase a concept from vectors, so that a linear reader no longer tells two classes of them apart.

Every eraser is affine, x -> x - (x - center) @ read @ write, and idempotent. A change of x passes through its linear
part, so what is erased cannot be written back by adding to x.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RIDGE = 1e-3
"""Added to the covariance within a discriminant, as a share of the mean variance over dimensions."""
ONE_SIDED_95 = 1.645


@dataclass(frozen=True)
class Samples:
    """Vectors of two classes, drawn text by text.

    Attributes
    ----------
    vectors : (n, d) float64
    is_behavior : (n,) bool
    weight : (n,) float
        Sums to 1 over each class.
    text : (n,) int64
        The text that a vector is of; all vectors of a text are of one class.
    """

    vectors: np.ndarray
    is_behavior: np.ndarray
    weight: np.ndarray
    text: np.ndarray

    def mean(self, is_behavior: bool) -> np.ndarray:
        """Return the weighted mean of a class, (d,)."""
        chosen = self.is_behavior == is_behavior
        mean: np.ndarray = self.weight[chosen] @ self.vectors[chosen]
        return mean

    @property
    def difference(self) -> np.ndarray:
        """The difference of the class means, (d,)."""
        return self.mean(True) - self.mean(False)

    @property
    def center(self) -> np.ndarray:
        """The mean of all, the classes weighing alike, (d,)."""
        return (self.mean(True) + self.mean(False)) / 2

    def covariance(self) -> np.ndarray:
        """Return the covariance of all, the classes weighing alike, (d, d)."""
        centered = self.vectors - self.center
        covariance: np.ndarray = centered.T @ (centered * (self.weight / 2)[:, None])
        return covariance

    def of_texts(self, kept: np.ndarray) -> Samples:
        """Return the vectors of the texts with these numbers, with weights that sum to 1 again."""
        chosen = np.isin(self.text, kept)
        is_behavior, weight = self.is_behavior[chosen], self.weight[chosen]
        totals = np.array([weight[~is_behavior].sum(), weight[is_behavior].sum()])
        return Samples(self.vectors[chosen], is_behavior, weight / totals[is_behavior.astype(int)], self.text[chosen])

    def erased(self, eraser: Eraser) -> Samples:
        """Return the same with what an eraser leaves of the vectors."""
        return Samples(eraser(self.vectors), self.is_behavior, self.weight, self.text)


@dataclass(frozen=True)
class Eraser:
    """x -> x - (x - center) @ read @ write.

    Attributes
    ----------
    center : (d,)
        What does not change.
    read : (d, k)
    write : (k, d)
        With write @ read = 1, so that erasing twice is erasing once.
    """

    center: np.ndarray
    read: np.ndarray
    write: np.ndarray

    @property
    def n_directions(self) -> int:
        """Number of directions that are erased."""
        return len(self.write)

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Return what is left of vectors (n, d)."""
        left: np.ndarray = vectors - ((vectors - self.center) @ self.read) @ self.write
        return left


def nothing_erased(samples: Samples) -> Eraser:
    """Return the eraser that changes nothing."""
    d = samples.vectors.shape[1]
    return Eraser(samples.center, np.empty((d, 0)), np.empty((0, d)))


def mean_ablation(samples: Samples) -> Eraser:
    """Project out the difference of the class means, at right angles."""
    difference = samples.difference
    length = np.linalg.norm(difference)
    if length == 0:
        return nothing_erased(samples)
    unit = difference / length
    return Eraser(samples.center, unit[:, None], unit[None])


def leace(samples: Samples) -> Eraser:
    """Make the class means equal by the least change, in mean square (Belrose et al. 2023, arXiv 2306.03819).

    Of two classes their Theorem 4.2 is one direction: with d the difference of means and S the covariance,
    x - d (d' S+ (x - center)) / (d' S+ d). Then no linear reader does better than a constant, by any convex loss.
    """
    difference = samples.difference
    read = np.linalg.pinv(samples.covariance(), hermitian=True) @ difference
    scale = read @ difference
    if not scale > 0:
        return nothing_erased(samples)
    return Eraser(samples.center, read[:, None] / scale, difference[None])


def iterative(samples: Samples, rng: np.random.Generator) -> Eraser:
    """Project out one discriminant after the other until texts are no longer told apart (Ravfogel et al. 2020).

    Iterative nullspace projection, arXiv 2004.07667. Each discriminant is fitted to a random half of each class's
    texts. It ends once a discriminant classifies the other half no better than chance allows (one-sided, 95 %), or when
    half of the dimensions are gone. Where it ends and what is gone depends on the halves drawn.
    """
    d = samples.vectors.shape[1]
    basis = np.empty((0, d))
    for _ in range(d // 2):
        drawn, left_out = _halves(samples, rng)
        eraser = Eraser(samples.center, basis.T, basis)
        fitted = discriminant(samples.of_texts(drawn).erased(eraser))
        correct, standard_error = accuracy(samples.of_texts(left_out).erased(eraser), *fitted)
        if correct <= 0.5 + ONE_SIDED_95 * standard_error:
            break
        basis = _with_direction(basis, fitted[0])
    return Eraser(samples.center, basis.T, basis)


def random_directions(samples: Samples, n_directions: int, rng: np.random.Generator) -> Eraser:
    """Project out so many random directions."""
    d = samples.vectors.shape[1]
    basis = np.linalg.qr(rng.standard_normal((d, n_directions)))[0].T
    return Eraser(samples.center, basis.T, basis)


def discriminant(samples: Samples) -> tuple[np.ndarray, float]:
    """Return Fisher's linear discriminant, (d,), and the threshold halfway between the classes."""
    covariance = samples.covariance()
    ridge = RIDGE * np.trace(covariance) / len(covariance)
    direction = np.linalg.solve(covariance + (ridge or 1.0) * np.eye(len(covariance)), samples.difference)
    return direction, float(samples.center @ direction)


def accuracy(samples: Samples, direction: np.ndarray, threshold: float) -> tuple[float, float]:
    """Return the share of texts whose mean lies on their class's side, the classes weighing alike.

    Returns
    -------
    float, float
        The share, and its standard error under chance, from the numbers of texts.
    """
    _, number = np.unique(samples.text, return_inverse=True)
    weight = np.bincount(number, samples.weight)
    score = np.bincount(number, samples.weight * (samples.vectors @ direction)) / weight
    is_behavior = np.bincount(number, samples.weight * samples.is_behavior) > weight / 2
    hit = (score > threshold) == is_behavior
    shares = [weight[chosen] @ hit[chosen] / weight[chosen].sum() for chosen in (is_behavior, ~is_behavior)]
    # A class's share has the variance 1/4 of each text, the mean of both a quarter of the sum.
    effective = [weight[chosen].sum() ** 2 / (weight[chosen] ** 2).sum() for chosen in (is_behavior, ~is_behavior)]
    return float(np.mean(shares)), float(np.sqrt(sum(1 / n for n in effective)) / 4)


def _halves(samples: Samples, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a random half of each class's texts, and all others."""
    halves: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for is_behavior in (True, False):
        texts = rng.permutation(np.unique(samples.text[samples.is_behavior == is_behavior]))
        for half, part in zip(halves, np.array_split(texts, 2), strict=True):
            half.append(part)
    return np.concatenate(halves[0]), np.concatenate(halves[1])


def _with_direction(basis: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis (k, d) with one direction more."""
    # Twice: once leaves rounding errors where most of the direction lies in the basis.
    for _ in range(2):
        direction = direction - (direction @ basis.T) @ basis
    return np.vstack([basis, direction / np.linalg.norm(direction)])
