"""Scores of answers that need nothing but their words: phrases, words, length.

A score is made from its options and then turns texts into numbers, higher where the behavior shows more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from isaerft import config
from isaerft.registry import SCORES

Score = Callable[[Sequence[str]], np.ndarray]
"""Returns the score of every text, (n_texts,) float."""

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")


def make_score(options: config.Score) -> Score:
    """Make a registered score."""
    return SCORES[options.kind](options)


@SCORES("phrases")
def phrases(options: config.Score) -> Score:
    """Score 1 where a text holds one of `options.phrases`, else 0; case and kind of apostrophe do not matter."""
    wanted = [_plain(phrase) for phrase in options.phrases]
    return lambda texts: np.array([float(any(phrase in _plain(text) for phrase in wanted)) for text in texts])


@SCORES("words")
def words(options: config.Score) -> Score:
    """Score the share of a text's words that are among `options.words`; 0 for a text without words."""
    wanted = {_plain(word) for word in options.words}

    def share(text: str) -> float:
        found = _WORD.findall(_plain(text))
        return sum(word in wanted for word in found) / len(found) if found else 0.0

    return lambda texts: np.array([share(text) for text in texts])


@SCORES("length")
def length(options: config.Score) -> Score:
    """Score the number of words in a text."""
    return lambda texts: np.array([float(len(_WORD.findall(text))) for text in texts])


def _plain(text: str) -> str:
    return " ".join(text.replace("\u2019", "'").casefold().split())
