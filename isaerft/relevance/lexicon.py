"""The lexicon judge: an explanation is expected to do what the words that it names do, by a word list.

Any list of words by category serves (LIWC's way of reading: Tausczik and Pennebaker 2010, "The Psychological Meaning of
Words"), where each word has an effect on a behavior (`isaerft.relevance.word_list`). No language model is asked.

The effect of an explanation on a behavior is the mean effect of what it names on its side, each once: its quoted
tokens, known to the list or not, and the listed words of the rest. So `promotes "sorry", "cannot", "tree", "."` is half
about refusal. This assumes that a latent does what its words do on average, that all weigh alike, and that a word means
the same wherever it stands ("not sorry" names "sorry"). An explanation of both sides is read side by side
(`isaerft.explanations.clauses`); what either does is enough for a change, so the larger effect counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from isaerft.config import Judge
from isaerft.errors import InputError, unknown_name
from isaerft.explanations.clauses import clauses
from isaerft.registry import JUDGES
from isaerft.relevance.base import DECIMALS, EXPECTED_ABOVE, judgements
from isaerft.relevance.word_list import SIDES, WordList, read_word_list

TOP_WORDS = 3


class Reading(NamedTuple):
    """Effects, (n_behaviors,) float, of one explanation, and for each why."""

    effects: np.ndarray
    reasons: list[str]


@JUDGES("lexicon")
def lexicon(
    explanations: pd.DataFrame, behaviors: Mapping[str, str], judge: Judge, *, subject_dir: Path
) -> pd.DataFrame:
    """Judge by a word list; see `isaerft.relevance.base.RelevanceJudge`.

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
