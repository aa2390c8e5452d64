"""Fit a steering baseline: its direction, and how far to move along it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from isaerft import config
from isaerft.adapters.base import adapted
from isaerft.adapters.baselines import Steering
from isaerft.adapters.fitting import Fitting, Selection, Texts, completion_means
from isaerft.subjects.cache import CachedRows
from isaerft.subjects.load import LoadedSubject
from isaerft.training.loop import frozen_part, heldout_loss, subsample

STRENGTHS = tuple(2.0**power for power in range(-7, 2))
SEARCH_ROWS, FIRST_ROWS = 128, 16


def fit_steering(
    subject: LoadedSubject,
    adapter: Steering,
    train: CachedRows,
    contrast: Sequence[CachedRows],
    options: config.Adapter,
    *,
    seed: int,
    batch_size: int,
    instructed: CachedRows | None = None,
) -> float:
    """Fit direction and length of a steering adapter, in place, on training rows only.

    Each group of contrast rows is subsampled like the behavior's own rows. The strength (norm of the added vector,
    relative to the mean norm of what it is added to, the residual stream) is one of `STRENGTHS` whose neighbors have
    no lower loss on the first `SEARCH_ROWS` rows that the replicate sees, found by going downhill from the best of all
    on the first `FIRST_ROWS`. 0 is not among them: a direction that only raises the loss has effects to measure, too.

    Parameters
    ----------
    instructed : CachedRows, optional
        The rows of `train`, in order, with the instruction that elicited them in the prompt.

    Returns
    -------
    float
        The chosen strength; 0 if the direction does not change the residual stream.
    """

    def drawn(rows: CachedRows) -> Selection:
        return Selection(rows, subsample(len(rows), options, torch.Generator().manual_seed(seed)))

    own, others = drawn(train), [drawn(rows) for rows in contrast]
    asked = None if instructed is None else Selection(instructed, own.kept)
    part = max(1, options.batch_size // options.gradient_accumulation)
    with frozen_part(subject, options):
        adapter.fit(Fitting(subject, own, others, part, asked))
    pushed = float((adapter.direction @ subject.dictionary.decoder).norm())
    if pushed == 0:
        return 0.0
    rows, few = (Selection(train, own.kept[:number]) for number in (SEARCH_ROWS, FIRST_ROWS))
    norm = _mean_norm(rows, batch_size)

    def loss(number: int, rows: Selection = rows) -> float:
        adapter.length.fill_(STRENGTHS[number] * norm / pushed)
        return heldout_loss(subject, lambda batch: adapted(subject, adapter, batch), rows, batch_size)

    first = int(np.argmin([loss(number, few) for number in range(len(STRENGTHS))]))
    best = STRENGTHS[downhill(loss, len(STRENGTHS), first)]
    adapter.length.fill_(best * norm / pushed)
    return best


def downhill(loss: Callable[[int], float], n: int, first: int) -> int:
    """Return a number from 0 to n - 1 with a loss not above its neighbors', found by going downhill from `first`."""
    best, lowest = first, loss(first)
    for step in (-1, 1):
        while 0 <= best + step < n and (found := loss(best + step)) < lowest:
            best, lowest = best + step, found
        if best != first:
            break
    return best


def score_steering(adapter: Steering, rows: CachedRows, contrast: Sequence[CachedRows], split: str) -> dict[str, float]:
    """Return how well the direction separates completions that it was not fitted to from the contrast.

    Returns
    -------
    dict
        {split}_auroc, and {split}_accuracy at the threshold fitted on the training rows; the behavior and the contrast
        weigh half each. Empty without contrast.
    """
    if not contrast:
        return {}
    from sklearn.metrics import accuracy_score, roc_auc_score

    groups = [completion_means(group) for group in (rows, *contrast)]
    texts = Texts.of(groups[0], groups[1:])
    score = texts.activations @ adapter.direction.cpu().double().numpy()
    return {
        f"{split}_auroc": float(roc_auc_score(texts.is_behavior, score, sample_weight=texts.weight)),
        f"{split}_accuracy": float(
            accuracy_score(texts.is_behavior, score > float(adapter.threshold), sample_weight=texts.weight)
        ),
    }


def _mean_norm(rows: Selection, batch_size: int) -> float:
    """Return the mean norm, at tokens that predict a completion, of what the vector is added to.

    That is the residual stream, or the output in front of a normalization.
    """
    norms = []
    for batch in rows.batches(batch_size):
        added_to = batch.residual if batch.written is None else batch.written
        norms.append(added_to[batch.predicts].float().norm(dim=1))
    return float(torch.cat(norms).mean())
