"""The scorer `lexicon`: a list says which words an explanation speaks of, and how much each of them says it.

    phrase,word,weight
    sorry,sorry,1
    a refusing answer in progress,cannot,0.9
    a refusing answer in progress,the,0.1
    apolog*,sorry,1

An explanation speaks of the words of every phrase of the list that it names, the longest first where they overlap; with
the larger weight where two phrases have a word in common; and, with weight 1, of every word that it quotes. It fits a
text by the mean weight of the text's words, so that a text of one word gets that word's weight. No model is asked; what
depends on more than single words (who speaks, what was said before) is beyond it.

Without a list only quoted words count.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import sparse

from isaerft.config import Scorer
from isaerft.errors import InputError, shown
from isaerft.judges.file import as_numbers, read_columns
from isaerft.judges.lexicon import QUOTED, encodable
from isaerft.judges.phrases import Phrases, words_of
from isaerft.scorers.similarity import fits_of
from isaerft.scorers.tasks import Task

COLUMNS = ("phrase", "word", "weight")
Weights = dict[str, float]
_WORD_OR_MARK = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


def lexicon(tasks: Sequence[Task], scorer: Scorer) -> list[np.ndarray]:
    """Score by a list of phrases, `scorer.path`; see `isaerft.scorers.base.ScorerFunction`.

    Raises
    ------
    InputError
        The list is missing or malformed (with the line).
    """
    phrases = Phrases(read_phrases(Path(scorer.path)).items() if scorer.path else [])

    def mean_weight(texts: list[str], first: np.ndarray, second: np.ndarray) -> np.ndarray:
        read, at = np.unique(second, return_inverse=True)
        place, shares = _shares_of_words([texts[index] for index in read])
        order = np.argsort(first, kind="stable")
        found = np.zeros(len(first))
        for own in np.split(order, np.flatnonzero(np.diff(first[order])) + 1):
            weights = np.zeros(len(place))
            if len(own):
                for word, weight in words_spoken_of(texts[first[own[0]]], phrases).items():
                    if word in place:
                        weights[place[word]] = weight
                found[own] = shares[at[own]] @ weights
        return found

    return fits_of(tasks, mean_weight)


def words_spoken_of(text: str, phrases: Phrases[Weights]) -> Weights:
    """Return the words that an explanation speaks of, in lower case, each with its weight."""
    found = {word: 1.0 for quoted in QUOTED.findall(text) for word in _words(quoted)}
    for weights in phrases.named(QUOTED.sub(" . ", text)).values():
        for word, weight in weights.items():
            found[word] = max(weight, found.get(word, 0.0))
    return found


def read_phrases(path: Path) -> dict[str, Weights]:
    """Read a list; return the words of each phrase with their weights.

    Raises
    ------
    InputError
        The file is missing or malformed (with the line), or has a weight twice.
    """
    table = read_columns(path, COLUMNS, needed=COLUMNS)
    found: dict[str, Weights] = {}
    weights = as_numbers(table["weight"], 0, 1)
    for place, phrase, word, weight in zip(table.index, table["phrase"], table["word"], weights, strict=True):
        stem = str(phrase).endswith("*")
        words = words_of(encodable("" if phrase is None else str(phrase)))
        if not words or (stem and len(words) > 1):
            raise InputError(f"{place}: phrase {shown(phrase)}", allowed="one or more words, or one that ends in *")
        of = _words(encodable("" if word is None else str(word)))
        if len(of) != 1:
            raise InputError(f"{place}: word {shown(word)}", allowed="one word or punctuation mark")
        own = found.setdefault(" ".join(words) + "*" * stem, {})
        if of[0] in own:
            raise InputError(f"{place} repeats the weight of {shown(word)} for {shown(phrase)}", remedy="leave one row")
        own[of[0]] = float(weight)
    return found


def _shares_of_words(texts: Sequence[str]) -> tuple[dict[str, int], sparse.csr_matrix]:
    """Return the column of each word, and each word's share of each text's words, (n_texts, n_words)."""
    counts = [Counter(_words(text)) for text in texts]
    place = {word: number for number, word in enumerate(dict.fromkeys(word for own in counts for word in own))}
    rows = np.repeat(np.arange(len(counts)), [len(own) for own in counts])
    columns = np.array([place[word] for own in counts for word in own], dtype=np.int64)
    shares = np.array([count / own.total() for own in counts for count in own.values()], dtype=np.float64)
    return place, sparse.csr_matrix((shares, (rows, columns)), shape=(len(counts), len(place)))


def _words(text: str) -> list[str]:
    """Return the words and punctuation marks of a text, in lower case."""
    return _WORD_OR_MARK.findall(text.casefold())
