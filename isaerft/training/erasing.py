"""What the controls `erased_...` erase: a behavior's directions in the residual stream, or as many random ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from isaerft import config
from isaerft.io import write_json
from isaerft.stats.erasure import (
    Eraser,
    Samples,
    accuracy,
    discriminant,
    iterative,
    leace,
    mean_ablation,
    random_directions,
)
from isaerft.subjects.cache import CachedRows, read_cache
from isaerft.subjects.erasure import Erasure, write_erasures
from isaerft.training.replicates import contrast_rows


def _random(samples: Samples, rng: np.random.Generator) -> Eraser:
    return random_directions(samples, iterative(samples, rng).n_directions, rng)


ERASERS: dict[str, Callable[[Samples, np.random.Generator], Eraser]] = {
    "erased_mean": lambda samples, rng: mean_ablation(samples),
    "erased_leace": lambda samples, rng: leace(samples),
    "erased_iterative": iterative,
    "erased_random": _random,
}
"""Control -> what fits its eraser. `erased_random` erases as many directions as `erased_iterative` in the same seed."""


def fit_erasures(
    plan: config.Plan, twin: str, cache: str | Path, contrast: str | Path, out: str | Path, facts: str | Path
) -> None:
    """Fit what is erased for every seed of a behavior's twin, and write it (safetensors) with its facts (JSON).

    Parameters
    ----------
    twin : str
        One of `plan.erased_behaviors`.
    cache : path
        Cache of the behavior itself; what is erased is fitted to its training rows and those of its contrast.
    contrast : path
        Folder with the caches of other behaviors.
    facts : path
        File to write: a list with, for each seed, n_directions; variance_removed, their share of the variance of the
        completions' tokens; and the accuracies of a discriminant of training tokens on held-out completions before
        (heldout_accuracy) and after (erased_accuracy).
    """
    groups = contrast_rows(plan, twin, cache, contrast)
    train, heldout = (
        samples_of(read_cache(cache, split), [getattr(group, split) for group in groups])
        for split in ("train", "heldout")
    )
    before = accuracy(heldout, *discriminant(train))[0]
    control = plan.erased_behaviors[twin].control
    erasures, found = [], []
    for seed in range(plan.n_seeds_of(plan.study.primary.adapter)):
        eraser = ERASERS[control](train, np.random.default_rng(plan.replicate_seed(seed)))
        left = train.erased(eraser)
        removed = train.weight @ ((train.vectors - left.vectors) ** 2).sum(axis=1)
        found.append(
            {
                "seed": seed,
                "n_directions": eraser.n_directions,
                "variance_removed": float(removed / 2 / np.trace(train.covariance())),
                "heldout_accuracy": before,
                "erased_accuracy": accuracy(heldout.erased(eraser), *discriminant(left))[0],
            }
        )
        erasures.append(erasure_of(eraser))
    write_erasures(erasures, out)
    write_json(facts, found)


def erasure_of(eraser: Eraser) -> Erasure:
    """Return what an eraser of vectors of the residual stream does to text."""
    return Erasure(*(torch.from_numpy(part.copy()).float() for part in (eraser.center, eraser.read, eraser.write)))


def samples_of(behavior: CachedRows, contrast: Sequence[CachedRows]) -> Samples:
    """Return the residual stream at the tokens of all completions.

    Each completion of a group weighs alike, and so does each group of the contrast.
    """
    vectors, weights, texts, n_texts = [], [], [], 0
    for number, rows in enumerate([behavior, *contrast]):
        inside = torch.zeros_like(rows.predicts)
        # The last token of a row predicts nothing.
        inside[1:] = rows.predicts[:-1]
        row = torch.repeat_interleave(torch.arange(len(rows)), rows.starts.diff())[inside].numpy()
        vectors.append(rows.residual[inside].double().numpy())
        weights.append(1 / np.bincount(row)[row] / len(rows) / (len(contrast) if number else 1))
        texts.append(row + n_texts)
        n_texts += len(rows)
    is_behavior = np.repeat([True, *[False] * len(contrast)], [len(part) for part in texts])
    return Samples(np.concatenate(vectors), is_behavior, np.concatenate(weights), np.concatenate(texts))
