"""Word lists: CSV, each row a word, the side on which it counts, a behavior, and the effect that one expects.

    word,side,behavior,effect
    sorry,both,refusal,1
    refus*,both,refusal,1
    thank you,input,politeness,0.5

`word` may be several words; a single one that ends in * stands for all that begin so. `side` says whether the row holds
for latents that fire on the word (input), that promote it (output), or for both. Letter case makes no difference.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from isaerft.behaviors.rows import printable, read_rows_of
from isaerft.errors import InputError, shown, unknown_name
from isaerft.relevance.judgement_file import as_numbers

COLUMNS = ("word", "side", "behavior", "effect")
SIDES = ("input", "output")
_WORD = re.compile(r"\w+(?:['’]\w+)*")
_QUOTED = re.compile(r'"([^"]*)"')
Effects = np.ndarray


class WordList:
    """The words of one side: what is expected of every behavior, (n_behaviors,) float, for each.

    Parameters
    ----------
    rows : DataFrame
        word, behavior and effect of the side's rows.
    behaviors : sequence of str
        Order of the behaviors.
    """

    def __init__(self, rows: pd.DataFrame, behaviors: Sequence[str]) -> None:
        self._none = np.zeros(len(behaviors))
        self._entries: dict[tuple[str, ...], Effects] = {}
        self._stems: dict[str, Effects] = {}
        column = {name: number for number, name in enumerate(behaviors)}
        for word, behavior, effect in zip(rows["word"], rows["behavior"], rows["effect"], strict=True):
            words = tuple(_words(word))
            known = self._stems if word.endswith("*") else self._entries
            key = words[0] if word.endswith("*") else words
            known.setdefault(key, self._none.copy())[column[behavior]] = effect  # type: ignore[call-overload]
        self._longest = max(map(len, self._entries), default=1)

    def named(self, text: str) -> dict[str, Effects]:
        """Return what a text names and the effects of each, (n_behaviors,).

        Whatever stands in double quotes is named, known or not; what the list does not know has no effect. Of the rest,
        only what the list knows is named.
        """
        found: dict[str, Effects] = {}
        for quoted in _QUOTED.findall(text):
            effects = list(self._known(quoted).values())
            found[" ".join(quoted.split()).casefold()] = np.mean(effects, axis=0) if effects else self._none
        return found | self._known(_QUOTED.sub(" . ", text))

    def _known(self, text: str) -> dict[str, Effects]:
        """Return the list's words in a text, the longest first where they overlap."""
        words, found, place = _words(text), {}, 0
        while place < len(words):
            for length in range(min(self._longest, len(words) - place), 0, -1):
                entry = tuple(words[place : place + length])
                if entry in self._entries:
                    found[" ".join(entry)] = self._entries[entry]
                    break
            else:
                length, word = 1, words[place]
                stem = next((word[:end] for end in range(len(word), 0, -1) if word[:end] in self._stems), None)
                if stem is not None:
                    found[word] = self._stems[stem]
            place += length
        return found


def read_word_list(path: Path, behaviors: Mapping[str, str]) -> dict[str, WordList]:
    """Read a word list; the words of each side.

    Raises
    ------
    InputError
        The file is missing or breaks its form (with the line), or names an unknown behavior.
    """
    rows = list(read_rows_of(path))
    table = pd.DataFrame([row.values for row in rows], index=[row.place for row in rows], dtype=object)
    for column in table:
        if column not in COLUMNS:
            raise unknown_name(f"column in {path}:", printable(column), COLUMNS)
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        raise InputError(f"{path} lacks {' and '.join(missing)}", allowed=", ".join(COLUMNS))
    table["word"] = [" ".join(str(word).split()).casefold() for word in table["word"].fillna("")]
    for place, word in table["word"].items():
        if not _words(word) or ("*" in word and not re.fullmatch(r"[\w'’]+\*", word)):
            raise InputError(f"{place}: word {shown(word)}", allowed="one or more words, or one that ends in *")
    for column, valid in (("side", (*SIDES, "both")), ("behavior", tuple(behaviors))):
        unknown = table.loc[~table[column].isin(valid), column]
        if len(unknown):
            raise unknown_name(f"{column} in {unknown.index[0]}:", printable(unknown.iloc[0]), valid)
    table["effect"] = as_numbers(table["effect"], -1, 1)
    return {side: _of_side(table, side, list(behaviors)) for side in SIDES}


def _of_side(table: pd.DataFrame, side: str, behaviors: list[str]) -> WordList:
    """Return the words of one side; a second effect for one word and behavior is refused."""
    rows = table[table["side"].isin([side, "both"])]
    repeated = rows.duplicated(["word", "behavior"])
    if repeated.any():
        row = rows[repeated].iloc[0]
        raise InputError(
            f"{row.name} gives {printable(row['word'])!r} an effect on {row['behavior']!r} again",
            remedy=f"leave one row per word, behavior and side ({side})",
        )
    return WordList(rows, behaviors)


def _words(text: str) -> list[str]:
    """Return the words of a text, in lower case."""
    return _WORD.findall(text.casefold())
