"""The lexicon judge: a word list says what latents do that explanations name by these words.

Any word list by category will do, such as LIWC (Tausczik and Pennebaker 2010, "The Psychological Meaning of Words").
No language model is asked. The list is CSV (or JSONL, JSON, Parquet), one effect of a word on a behavior per row:

    word,side,behavior,effect
    sorry,both,refusal,1
    refus*,both,refusal,1
    thank you,input,politeness,0.5

`word` may be several words; a single word that ends in * matches every word with that prefix. `side` says whether
the row applies to latents that fire on the word (input), to latents that promote it (output), or to both. Case is
ignored.

The effect of an explanation on a behavior is the mean effect of the distinct words that it names on a side: all quoted
tokens, listed or not, and the listed words of the rest. So `promotes "sorry", "cannot", "tree", "."` is half about
refusal. This assumes that a latent does what its words do on average, that all words weigh the same, and that a word
means the same everywhere ("not sorry" names "sorry"). An explanation of both sides is read for each side
(`isaerft.explanations.local.clauses`), and the larger effect counts, because either side is enough for a change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from isaerft.config import Judge
from isaerft.errors import InputError, printable, shown
from isaerft.explanations.local import clauses
from isaerft.judges.base import DECIMALS, judgements
from isaerft.judges.file import as_numbers, check_names, judge_file, read_columns
from isaerft.judges.phrases import Phrases, words_of

COLUMNS = ("word", "side", "behavior", "effect")
SIDES = ("input", "output")
TOP_WORDS = 3
QUOTED = re.compile(r'"([^"]*)"')


class Reading(NamedTuple):
    """The effects of one explanation, (n_behaviors,) float, and the reason for each."""

    effects: np.ndarray
    reasons: list[str]


def lexicon(
    explanations: pd.DataFrame, behaviors: Mapping[str, str], judge: Judge, *, subject_dir: Path
) -> pd.DataFrame:
    """Judge by a word list; see `isaerft.judges.base.JudgeFunction`.

    A pair is expected if its effect is above `judge.expected_above` times the largest effect that any explanation has
    on the behavior. Only relative effects count: a list whose effects are all ten times smaller gives the same
    expectations.

    `attrs["counts"]` of the result: latents read, and latents without_words, whose explanation names nothing with an
    effect (effect 0 on every behavior).

    Raises
    ------
    InputError
        The list is missing or malformed (with the line), names an unknown behavior, or no explanation names a word of
        it.
    """
    path = judge_file(judge, "lexicon", subject_dir)
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
        expected=(effects > 0) & (effects > judge.expected_above * largest),
        rationale=np.array([readings[pair].reasons for pair in pairs], dtype=object),
    )
    frame.attrs["counts"] = {"read": len(pairs) - without, "without_words": without}
    return frame


def read_word_list(path: Path, behaviors: Mapping[str, str]) -> dict[str, WordList]:
    """Read a word list; return the words of each side.

    Raises
    ------
    InputError
        The file is missing or malformed (with the line), or names an unknown behavior.
    """
    table = read_columns(path, COLUMNS, needed=COLUMNS)
    table["word"] = [encodable(" ".join(str(word).split())).casefold() for word in table["word"].fillna("")]
    for place, word in table["word"].items():
        if not words_of(word) or ("*" in word and not re.fullmatch(r"[\w'’]+\*", word)):
            raise InputError(f"{place}: word {shown(word)}", allowed="one or more words, or one that ends in *")
    check_names(table["side"], (*SIDES, "both"))
    check_names(table["behavior"], behaviors)
    table["effect"] = as_numbers(table["effect"], -1, 1)
    return {side: _of_side(table, side, list(behaviors)) for side in SIDES}


class WordList:
    """The words of one side, each with its effects on the behaviors, (n_behaviors,) float.

    Parameters
    ----------
    rows : DataFrame
        word, behavior and effect of the side's rows.
    behaviors : sequence of str
        Order of the behaviors.
    """

    def __init__(self, rows: pd.DataFrame, behaviors: Sequence[str]) -> None:
        self._none = np.zeros(len(behaviors))
        column = {name: number for number, name in enumerate(behaviors)}
        entries: dict[str, np.ndarray] = {}
        for word, behavior, effect in zip(rows["word"], rows["behavior"], rows["effect"], strict=True):
            phrase = " ".join(words_of(word)) + "*" * word.endswith("*")
            entries.setdefault(phrase, self._none.copy())[column[behavior]] = effect
        self._phrases = Phrases(entries.items())

    def named(self, text: str) -> dict[str, np.ndarray]:
        """Return the words that a text names with their effects, (n_behaviors,) float each.

        Everything in double quotes is named, listed or not; what is not listed has no effect. Of the rest of the text,
        only listed words are named.
        """
        found: dict[str, np.ndarray] = {}
        for quoted in QUOTED.findall(text):
            effects = list(self._phrases.named(quoted).values())
            found[" ".join(quoted.split()).casefold()] = np.mean(effects, axis=0) if effects else self._none
        return found | self._phrases.named(QUOTED.sub(" . ", text))


def _read(text: str, side: str, lists: Mapping[str, WordList], n_behaviors: int) -> Reading:
    """Read an explanation on each of its sides; keep the larger effect on each behavior, of equal ones the input's."""
    effects, reasons = np.zeros(n_behaviors), [""] * n_behaviors
    text_clauses = clauses(text, side)
    for part in SIDES:
        named: dict[str, np.ndarray] = {}
        for clause in text_clauses:
            if clause.side in (part, "both"):
                named |= lists[part].named(clause.text)
        if not named:
            continue
        mean = np.mean(list(named.values()), axis=0)
        for behavior in np.flatnonzero(np.abs(mean) > np.abs(effects)):
            effects[behavior], reasons[behavior] = mean[behavior], _reason(named, int(behavior), part)
    return Reading(effects, reasons)


def _reason(named: Mapping[str, np.ndarray], behavior: int, side: str) -> str:
    """Return a text that names the words behind an effect, the largest effect first."""
    telling = sorted((word for word in named if named[word][behavior]), key=lambda word: -abs(named[word][behavior]))
    words = ", ".join(f'"{word}"' for word in telling[:TOP_WORDS])
    more = ", ..." if len(telling) > TOP_WORDS else ""
    return f"{side}: {words}{more} ({len(telling)} of {len(named)} words)"


def encodable(text: str) -> str:
    """Return text with half surrogate pairs, which no file can hold, written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _of_side(table: pd.DataFrame, side: str, behaviors: list[str]) -> WordList:
    """Return the words of one side; two effects of one word on one behavior are refused."""
    rows = table[table["side"].isin([side, "both"])]
    repeated = rows.duplicated(["word", "behavior"])
    if repeated.any():
        row = rows[repeated].iloc[0]
        raise InputError(
            f"{row.name} repeats the effect of {printable(row['word'])!r} on {row['behavior']!r}",
            remedy=f"leave one row per word, behavior and side ({side})",
        )
    return WordList(rows, behaviors)
