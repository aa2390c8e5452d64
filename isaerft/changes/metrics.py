"""Metrics of answers: functions from texts to numbers, higher where the behavior shows more.

`phrases`, `words`, `pattern` and `length` read only the text; `classifier` asks a text-classification model. A
registered metric maps its options to such a function.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from isaerft import config
from isaerft.errors import unknown_name
from isaerft.outside import loading, origin_remedy
from isaerft.registry import METRICS

Metric = Callable[[Sequence[str]], np.ndarray]
"""Maps texts to their scores, (n_texts,) float."""

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")


def make_metric(options: config.Metric) -> Metric:
    """Return the metric that `options` describe."""
    metric: Metric = METRICS[options.kind](options)
    return metric


def phrases(options: config.Metric) -> Metric:
    """Score 1 if a text contains one of `options.phrases`, else 0, whatever the case and kind of apostrophe."""
    wanted = [_plain(phrase) for phrase in options.phrases]
    return lambda texts: np.array([float(any(phrase in _plain(text) for phrase in wanted)) for text in texts])


def words(options: config.Metric) -> Metric:
    """Score the share of a text's words that are in `options.words`; 0 for a text without words."""
    wanted = {_plain(word) for word in options.words}

    def share(text: str) -> float:
        found = _WORD.findall(_plain(text))
        return sum(word in wanted for word in found) / len(found) if found else 0.0

    return lambda texts: np.array([share(text) for text in texts])


def pattern(options: config.Metric) -> Metric:
    """Score 1 if `options.pattern` is found in a text, else 0, whatever the case; ^ and $ match at every line."""
    wanted = re.compile(options.pattern or "", re.IGNORECASE | re.MULTILINE)
    return lambda texts: np.array([float(wanted.search(text) is not None) for text in texts])


def length(options: config.Metric) -> Metric:
    """Score the number of words in a text."""
    return lambda texts: np.array([float(len(_WORD.findall(text))) for text in texts])


def _plain(text: str) -> str:
    return " ".join(text.replace("\u2019", "'").casefold().split())


def classifier(options: config.Metric) -> Metric:
    """Score the probability of `options.label` under `options.model`; of two labels the second is the default.

    Raises
    ------
    InputError
        The model cannot be loaded, or has no such label.
    """
    from transformers import pipeline  # the other metrics need no torch

    name = options.model or ""
    with loading(
        f"classifier {name!r}",
        name,
        allowed="a Hugging Face text-classification model, by id or folder",
        remedy=origin_remedy(name),
    ):
        run = pipeline(
            "text-classification", model=name, revision=options.revision, device="cpu", trust_remote_code=False
        )
    names: dict[Any, str] = dict(run.model.config.id2label or {})
    label = options.label or (names[1] if len(names) == 2 else "")
    if label not in names.values():
        raise unknown_name(f"label of classifier {options.model!r}:", label, names.values())

    def score(texts: Sequence[str]) -> np.ndarray:
        # Without special tokens an empty answer has no token, which no model can read.
        results: Any = run([text or " " for text in texts], top_k=None, truncation=True)
        return np.array([next(part["score"] for part in parts if part["label"] == label) for parts in results])

    return score
