"""Scores of answers that need nothing but their words: phrases, words, length.

A score is made from its options and then turns texts into numbers, higher where the behavior shows more.

classifier: the probability of a class under a text-classification model from the Hugging Face hub.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
from transformers import pipeline

from isaerft import config
from isaerft.errors import InputError, unknown_name
from isaerft.registry import METRICS

Metric = Callable[[Sequence[str]], np.ndarray]
"""Returns the score of every text, (n_texts,) float."""

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")


def make_metric(options: config.Metric) -> Metric:
    """Make a registered score."""
    return METRICS[options.kind](options)


def phrases(options: config.Metric) -> Metric:
    """Score 1 where a text holds one of `options.phrases`, else 0; case and kind of apostrophe do not matter."""
    wanted = [_plain(phrase) for phrase in options.phrases]
    return lambda texts: np.array([float(any(phrase in _plain(text) for phrase in wanted)) for text in texts])


def words(options: config.Metric) -> Metric:
    """Score the share of a text's words that are among `options.words`; 0 for a text without words."""
    wanted = {_plain(word) for word in options.words}

    def share(text: str) -> float:
        found = _WORD.findall(_plain(text))
        return sum(word in wanted for word in found) / len(found) if found else 0.0

    return lambda texts: np.array([share(text) for text in texts])


def length(options: config.Metric) -> Metric:
    """Score the number of words in a text."""
    return lambda texts: np.array([float(len(_WORD.findall(text))) for text in texts])


def _plain(text: str) -> str:
    return " ".join(text.replace("\u2019", "'").casefold().split())


def classifier(options: config.Metric) -> Metric:
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
