"""classifier: the probability of a class under a text-classification model from the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from transformers import pipeline

from isaerft import config
from isaerft.changes.scores import Score
from isaerft.errors import InputError, unknown_name
from isaerft.registry import SCORES


@SCORES("classifier")
def classifier(options: config.Score) -> Score:
    """Score the probability that `options.model` gives to `options.label`; the label may be left out if there are two,
    and is then the second (class 1).

    Raises
    ------
    InputError
        The model cannot be loaded, or has no such label.
    """
    try:
        run = pipeline("text-classification", model=options.model, revision=options.revision, device="cpu")
    except (OSError, ValueError) as error:
        raise InputError(
            f"classifier {options.model!r} cannot be loaded ({' '.join(str(error).split())[:200]})",
            allowed="a Hugging Face text-classification model, by id or folder",
            remedy="check the id and the network",
        ) from None
    names = run.model.config.id2label
    label = options.label or (names[1] if len(names) == 2 else "")
    if label not in names.values():
        raise unknown_name(f"label of classifier {options.model!r}:", label, names.values())

    def score(texts: Sequence[str]) -> np.ndarray:
        # A tokenizer without special tokens makes nothing of an empty answer, which no model can read.
        given = run([text or " " for text in texts], top_k=None, truncation=True)
        return np.array([next(part["score"] for part in parts if part["label"] == label) for parts in given])

    return score
