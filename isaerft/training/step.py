"""One training step: the gradient of the objective, in as many parts as memory asks for."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from isaerft.subjects.cache import Batch
from isaerft.subjects.load import LoadedSubject
from isaerft.training.objective import Adapt, Objective


def add_gradients(subject: LoadedSubject, objective: Objective, adapt: Adapt, parts: Sequence[Batch]) -> float:
    """Add the gradient of the objective on a step's rows to the parameters' own, and return its value.

    Parameters
    ----------
    parts : sequence of Batch
        The step's rows, cut as memory asks for. An objective is a mean over a batch's terms, so a part counts by its
        terms, and the gradient is that of all rows at once.
    """
    n_terms = sum(part.n_terms for part in parts)
    total = 0.0
    for part in parts:
        moved = part.to(subject.model.device)
        loss = objective(subject, moved, adapt(moved)) * (part.n_terms / n_terms)
        # Autocast belongs to the forward pass; backward follows its types by itself.
        with torch.autocast(subject.model.device.type, enabled=False):
            loss.backward()
        total += float(loss.detach())
    return total
