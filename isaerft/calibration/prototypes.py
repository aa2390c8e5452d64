"""Prototypes, to be replaced."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm, rankdata
from scipy.stats import t as student

from isaerft.stats.checks import NullOptions
from isaerft.stats.confounds import SmoothConfounds
from isaerft.stats.overall import overall_specificity


def smooth_of(groups: NullOptions) -> SmoothConfounds:
    return SmoothConfounds.of(groups["confounds"], groups["strata"], n_blocks=len(np.unique(groups["clusters"])))


def adjusted_matrix(changes: np.ndarray, expected: np.ndarray, groups: NullOptions) -> np.ndarray:
    smooth = smooth_of(groups)
    ranks = rankdata(changes, axis=1) - (changes.shape[1] + 1) / 2
    ranks = ranks - smooth.fitted(ranks)
    labels = expected.astype(float)
    labels = labels - smooth.fitted(labels)
    k = expected.sum(axis=1)
    return 0.5 + (ranks @ labels.T) / (k * (changes.shape[1] - k))


def column_pvalue(column: np.ndarray, own: int, families: np.ndarray) -> float:
    others = column[families != families[own]]
    codes = families[families != families[own]]
    means = np.array([others[codes == code].mean() for code in np.unique(codes)])
    n = len(means)
    t = (column[own] - means.mean()) / (means.std(ddof=1) * np.sqrt(1 + 1 / n))
    return float(student.sf(t, n - 1))


def placebo_pvalue(value: float, placebos: np.ndarray) -> float:
    return (1 + np.count_nonzero(placebos >= value - 1e-12)) / (len(placebos) + 1)


def family_specificity(matrix: np.ndarray, families: np.ndarray):
    codes = np.unique(families)
    k = len(codes)
    small = np.empty((k, k))
    for i, a in enumerate(codes):
        for j, b in enumerate(codes):
            block = matrix[np.ix_(families == a, families == b)]
            small[i, j] = np.diagonal(block).mean() if a == b else block.mean()
    return overall_specificity(small)


def negative_controls(ranks: np.ndarray, labels: np.ndarray, smooth: SmoothConfounds, own: int, families: np.ndarray):
    others = families != families[own]
    standard = lambda v: (v - v.mean()) / max(v.std(), 1e-9)
    m, g = standard(ranks[others].mean(axis=0)), standard(labels[others].mean(axis=0))
    m = norm.ppf((rankdata(m) - 0.5) / len(m))
    columns = np.vstack([smooth.basis.T, m, m**2, m**3, g, g**2, m * g])
    q, s, _ = np.linalg.svd(columns.T / np.maximum(np.linalg.norm(columns, axis=1), 1e-9), full_matrices=False)
    q = q[:, s > 1e-8 * s[0]]
    return ranks[own] - (ranks[own] @ q) @ q.T


def text_pvalue(r: np.ndarray, label: np.ndarray, texts: np.ndarray, n_resamples: int, rng, n_bins: int = 4) -> float:
    k = texts.max() + 1
    m = np.bincount(texts)
    y, share = np.bincount(texts, weights=r), np.bincount(texts, weights=label) / m
    bins = np.minimum((rankdata(m, method="ordinal") - 1) * n_bins // k, n_bins - 1).astype(int)
    found = (y * share).sum()
    order = np.tile(np.arange(k), (n_resamples, 1))
    for code in range(n_bins):
        here = np.flatnonzero(bins == code)
        order[:, here] = rng.permuted(order[:, here], axis=1)
    null = share[order] @ y
    return (1 + np.count_nonzero(null >= found - 1e-9)) / (n_resamples + 1)


def against_others(column, own, families, confidence_level=0.95):
    others = column[families != families[own]]
    codes = families[families != families[own]]
    means = np.array([others[codes == code].mean() for code in np.unique(codes)])
    n = len(means)
    if n < 4:
        return np.nan, None
    difference, scale = column[own] - means.mean(), means.std(ddof=1) * np.sqrt(1 + 1 / n)
    half = student.ppf((1 + confidence_level) / 2, n - 1) * scale
    from isaerft.stats.intervals import ConfidenceInterval

    return float(student.sf(difference / scale, n - 1)), ConfidenceInterval(difference - half, difference + half)


def texts_p(evidence, own, n_resamples, rng):
    smooth = smooth_of(evidence.groups)
    ranks = rankdata(evidence.changes, axis=1) - (evidence.changes.shape[1] + 1) / 2
    labels = evidence.expected - evidence.expected.mean(axis=1, keepdims=True)
    r = negative_controls(ranks, labels, smooth, own, evidence.families)
    return text_pvalue(r, evidence.expected[own], evidence.texts, n_resamples, rng)
