"""Word lists: CSV, each row a word, the side on which it counts, a behavior, and the effect that one expects.

    word,side,behavior,effect
    sorry,both,refusal,1
    refus*,both,refusal,1
    thank you,input,politeness,0.5

`word` may be several words; a single one that ends in * stands for all that begin so. `side` says whether the row holds
for latents that fire on the word (input), that promote it (output), or for both. Letter case makes no difference.

The lexicon judge: an explanation is expected to do what the words that it names do, by a word list.

Any list of words by category serves (LIWC's way of reading: Tausczik and Pennebaker 2010, "The Psychological Meaning of
Words"), where each word has an effect on a behavior (`isaerft.judgements.word_list`). No language model is asked.

The effect of an explanation on a behavior is the mean effect of what it names on its side, each once: its quoted
tokens, known to the list or not, and the listed words of the rest. So `promotes "sorry", "cannot", "tree", "."` is half
about refusal. This assumes that a latent does what its words do on average, that all weigh alike, and that a word means
the same wherever it stands ("not sorry" names "sorry"). An explanation of both sides is read side by side
(`isaerft.explanations.clauses`); what either does is enough for a change, so the larger effect counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from isaerft.config import Judge
from isaerft.errors import InputError, printable, shown, unknown_name
from isaerft.explanations.base import clauses
from isaerft.io import read_data_file
from isaerft.judges.base import DECIMALS, EXPECTED_ABOVE, judgements
from isaerft.judges.file import as_numbers

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
    rows = list(read_data_file(path))
    table = pd.DataFrame([row.values for row in rows], index=[row.location for row in rows], dtype=object)
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


TOP_WORDS = 3


class Reading(NamedTuple):
    """Effects, (n_behaviors,) float, of one explanation, and for each why."""

    effects: np.ndarray
    reasons: list[str]


def lexicon(
    explanations: pd.DataFrame, behaviors: Mapping[str, str], judge: Judge, *, subject_dir: Path
) -> pd.DataFrame:
    """Judge by a word list; see `isaerft.judges.base.RelevanceJudge`.

    A pair is expected where its effect is above half of the largest that any explanation has for the behavior: with a
    full effect of 1 somewhere, above 0.5. What counts is a word's effect beside the others', so a list whose effects
    are all ten times smaller gives the same expectations.

    `attrs["counts"]` of the result: latents whose explanation is read, and those without_words, which names nothing
    that has an effect (effect 0 on every behavior).

    Raises
    ------
    InputError
        The list is missing or breaks its form (with the line), names an unknown behavior, or no explanation names a
        word of it.
    """
    for option in judge.options:
        raise unknown_name("option of a lexicon judge:", option, ())
    if judge.path is None:
        raise InputError("judge of kind 'lexicon' without a path", remedy="add `path:`")
    path = Path(judge.path.replace("{subject_dir}", str(subject_dir)))
    lists = read_word_list(path, behaviors)
    pairs = list(zip(explanations["explanation"], explanations["side"], strict=True))
    readings = {pair: _read(*pair, lists, len(behaviors)) for pair in dict.fromkeys(pairs)}
    effects = np.round([readings[pair].effects for pair in pairs], DECIMALS) + 0.0
    if not effects.any():
        raise InputError(f"no explanation names a word of {path}", remedy="check its words and their sides")
    largest = effects.max(axis=0)
    without = int((effects == 0).all(axis=1).sum())
    frame = judgements(
        explanations,
        behaviors,
        effects,
        expected=(effects > 0) & (effects > EXPECTED_ABOVE * largest),
        rationale=np.array([readings[pair].reasons for pair in pairs], dtype=object),
    )
    frame.attrs["counts"] = {"read": len(pairs) - without, "without_words": without}
    return frame


def _read(text: str, side: str, lists: Mapping[str, WordList], n_behaviors: int) -> Reading:
    """Read one explanation on each of its sides and take, for every behavior, the larger effect; input at a tie."""
    effects, reasons = np.zeros(n_behaviors), [""] * n_behaviors
    parts = clauses(text, side)
    for part in SIDES:
        named: dict[str, np.ndarray] = {}
        for clause in parts:
            if clause.side in (part, "both"):
                named |= lists[part].named(clause.text)
        if not named:
            continue
        mean = np.mean(list(named.values()), axis=0)
        for behavior in np.flatnonzero(np.abs(mean) > np.abs(effects)):
            effects[behavior], reasons[behavior] = mean[behavior], _reason(named, behavior, part)
    return Reading(effects, reasons)


def _reason(named: Mapping[str, np.ndarray], behavior: int, side: str) -> str:
    """Name the words that speak for an effect, those with the largest first."""
    telling = sorted((word for word in named if named[word][behavior]), key=lambda word: -abs(named[word][behavior]))
    words = ", ".join(f'"{word}"' for word in telling[:TOP_WORDS])
    more = ", ..." if len(telling) > TOP_WORDS else ""
    return f"{side}: {words}{more} ({len(telling)} of {len(named)} words)"
