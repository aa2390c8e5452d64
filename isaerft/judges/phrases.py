"""Phrases of a list, found in a text: the longest first where they overlap, and stems that end in *."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Generic, TypeVar

Meaning = TypeVar("Meaning")
_WORD = re.compile(r"\w+(?:['’]\w+)*")


class Phrases(Generic[Meaning]):
    """Phrases, each with what it means.

    Parameters
    ----------
    entries : iterable of (str, meaning)
        One or more words, or one that ends in * and stands for all words with that prefix. Case is ignored.
    """

    def __init__(self, entries: Iterable[tuple[str, Meaning]]) -> None:
        self._whole: dict[tuple[str, ...], Meaning] = {}
        self._stems: dict[str, Meaning] = {}
        for phrase, meaning in entries:
            words = tuple(words_of(phrase))
            if phrase.endswith("*"):
                self._stems[words[0]] = meaning
            else:
                self._whole[words] = meaning
        self._longest = max(map(len, self._whole), default=1)

    def named(self, text: str) -> dict[str, Meaning]:
        """Return the phrases in a text with their meanings."""
        words, place = words_of(text), 0
        found: dict[str, Meaning] = {}
        while place < len(words):
            for length in range(min(self._longest, len(words) - place), 0, -1):
                phrase = tuple(words[place : place + length])
                if phrase in self._whole:
                    found[" ".join(phrase)] = self._whole[phrase]
                    break
            else:
                length, word = 1, words[place]
                stem = next((word[:end] for end in range(len(word), 0, -1) if word[:end] in self._stems), None)
                if stem is not None:
                    found[word] = self._stems[stem]
            place += length
        return found


def words_of(text: str) -> list[str]:
    """Return the words of a text, in lower case."""
    return _WORD.findall(text.casefold())
