"""Scoring tasks: what a scorer is asked about an explanation, and the items that it reads.

A question is asked about items of a latent among others, each with the truth about it. The scorer says how well the
explanation fits each item, and sees no truth. What becomes of that is up to the scores (`isaerft.scorers.scores`).
Several can share a question, which is then asked once.

The items come from contexts that are held out for scoring (`isaerft.subjects.contexts`): no explainer or judge sees
them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import pandas as pd

from isaerft.explanations import clean_text
from isaerft.explanations.contexts import Context, clean_token, grouped, without_marks

N_LISTS = 6
N_SHOWN = 5
"""Windows among which an intruder is to be found, as in delphi."""
TYPICAL_TEXT = 100


@dataclass(frozen=True)
class Item:
    """Something that an explanation may fit or not.

    Attributes
    ----------
    text : str
        As a reader sees it; a marked token is between << and >>.
    focus : str
        The part in question: the marked word, otherwise the whole text.
    truth : float
        0 if it does not belong to the latent, else how strongly it does: the size of the activation, the strength of
        steering, or 1.
    group : int
        Items of one group are read together.
    """

    text: str
    focus: str
    truth: float
    group: int = 0

    @property
    def holds(self) -> bool:
        """Whether it belongs to the latent."""
        return self.truth > 0


@dataclass(frozen=True)
class Evidence:
    """Held-out contexts of a latent by side, and the tokens that amplifying makes likelier, of every latent."""

    latent: int
    contexts: Mapping[str, Sequence[Context]]
    lists: Mapping[int, Sequence[str]]

    def of(self, side: str) -> Sequence[Context]:
        """Return the contexts of a side, the strongest first; none if there are none."""
        return self.contexts.get(side, ())


@dataclass(frozen=True)
class Question:
    """A question about a latent's items.

    Attributes
    ----------
    name : str
        What the items are, in a word.
    text : str
        What a language model is asked about each item, or about a group.
    answer : {"yes", "degree", "odd"}
        yes: whether it fits. degree: how well, from 0 to 10. odd: no explanation is read; which item of the group does
        not belong there.
    items : callable
        `items(evidence, rng)` returns the items, in any order; none if there is not enough evidence.
    """

    name: str
    text: str
    answer: Literal["yes", "degree", "odd"]
    items: Callable[[Evidence, np.random.Generator], list[Item]]


@dataclass(frozen=True)
class Task:
    """An explanation, its side ("input", "output" or "both"), and the items of `latent` that a question is about."""

    latent: int
    question: Question
    explanation: str
    side: str
    items: tuple[Item, ...]


def tasks_of(
    contexts: pd.DataFrame,
    explanations: pd.DataFrame,
    questions: Sequence[Question],
    seed: int,
    n_latents: int | None = None,
) -> list[Task]:
    """Return a task per explained latent and question, their items in an order drawn by `seed`.

    Parameters
    ----------
    contexts : DataFrame
        scored_contexts.parquet, as `isaerft.explanations.contexts.read_contexts` reads it.
    explanations : DataFrame
        As `isaerft.explanations.read_explanations` returns it.
    questions : sequence of Question
        What is asked; a latent without the evidence for a question gets no task.
    seed : int
        Seed of the latents and of the order of items. The draws of one question do not depend on the others.
    n_latents : int, optional
        At most this many of the latents with contexts and explanation are drawn; all by default.
    """
    evidence: dict[int, dict[str, list[Context]]] = {}
    for latent, side, group in grouped(contexts):
        evidence.setdefault(latent, {})[side] = group
    lists = {latent: _tokens(own.get("amplified_heldout", [])) for latent, own in evidence.items()}
    lists = {latent: tokens for latent, tokens in lists.items() if tokens}
    explained = explanations[explanations["latent_index"].isin(list(evidence))]
    if n_latents is not None and len(explained) > n_latents:
        drawn = np.random.default_rng(seed).permutation(len(explained))[:n_latents]
        explained = explained.iloc[np.sort(drawn)]
    tasks = []
    for row in explained.itertuples():
        latent = int(row.latent_index)
        own = Evidence(latent, evidence[latent], lists)
        for question in questions:
            rng = np.random.default_rng([seed, latent, zlib.crc32(question.name.encode())])
            items = question.items(own, rng)
            # Groups stay whole and, as tokens of a window must, in their order.
            shuffled = items if question.answer == "degree" else [items[place] for place in rng.permutation(len(items))]
            ordered = tuple(sorted(shuffled, key=lambda item: item.group))
            if ordered:
                tasks.append(Task(latent, question, row.explanation, row.side, ordered))
    return tasks


def stand_in_tasks(questions: Sequence[Question], n_latents: int, n_windows: int) -> list[Task]:
    """Return tasks of typical length for `n_latents` latents, for planning before their contexts are known."""
    tasks = []
    for latent in range(n_latents):
        explanation, text = (f"({what} still to come) {latent}".ljust(TYPICAL_TEXT, ".") for what in ("text", "item"))
        windows = [Context(text, "", "", value, (text,), (value,)) for value in (1.0, 0.0) for _ in range(n_windows)]
        sides = {"heldout": windows[:n_windows], "unmarked": windows[:n_windows], "silent": windows[n_windows:]}
        sides |= {"steered": windows[:n_windows] * 2, "unsteered": windows[n_windows:]}
        lists = {latent - number: [f"{text}{number}"] for number in range(N_LISTS + 1)}
        rng = np.random.default_rng(latent)
        for question in questions:
            items = question.items(Evidence(latent, sides, lists), rng)
            tasks.append(Task(latent, question, explanation, "input", tuple(items)))
    return tasks


def _windows(evidence: Evidence, rng: np.random.Generator) -> list[Item]:
    """Return windows with and without the latent, equally many of both."""
    shown, silent = _balanced(evidence)
    texts = [(_whole(one), abs(one.value)) for one in shown] + [(_whole(one), 0.0) for one in silent]
    return [Item(text, text, truth) for text, truth in texts]


def _marked_tokens(evidence: Evidence, rng: np.random.Generator) -> list[Item]:
    """Return each window that has an inactive token twice: with the right token marked, and with the wrong one."""
    wrong = {_joined(one): one for one in evidence.of("unmarked")}
    pairs = [(one, wrong[_joined(one)]) for one in evidence.of("heldout") if _joined(one) in wrong]
    shown = [(one, holds) for pair in pairs for one, holds in zip(pair, (1.0, 0.0), strict=True)]
    return [Item(_marked(one), _word(one), holds) for one, holds in shown]


def _token_lists(evidence: Evidence, rng: np.random.Generator) -> list[Item]:
    """Return the latent's own list of tokens, and up to `N_LISTS` of other latents, none with the same tokens."""
    lists = evidence.lists
    if evidence.latent not in lists:
        return []
    own = set(lists[evidence.latent])
    others: dict[frozenset[str], str] = {}
    for index in rng.permutation(list(lists)):
        tokens = lists[int(index)]
        if set(tokens) != own:
            others.setdefault(frozenset(tokens), ", ".join(tokens))
        if len(others) == N_LISTS:
            break
    texts = [(", ".join(lists[evidence.latent]), 1.0), *((text, 0.0) for text in others.values())]
    return [Item(text, text, holds) for text, holds in texts] if others else []


def _every_token(evidence: Evidence, rng: np.random.Generator) -> list[Item]:
    """Return every token of windows with and without the latent, equally many of both, a group per window."""
    shown, silent = _balanced(evidence)
    windows = [one for one in (*shown, *silent) if one.tokens]
    items = []
    for group, one in enumerate(windows):
        text, words = _by_word(one.tokens)
        items += [
            Item(text, word, abs(float(value)), group) for word, value in zip(words, one.activations, strict=True)
        ]
    return items


def _intruders(evidence: Evidence, rng: np.random.Generator) -> list[Item]:
    """Return one group for each silent window: the window, and four that are drawn from those that the latent fires in.

    In all of them a token is marked: the strongest, or one at random. Fewer than four give no group.
    """
    heldout = evidence.of("heldout")
    if len(heldout) < N_SHOWN - 1:
        return []
    items = []
    for group, silent in enumerate(evidence.of("silent")):
        drawn = [heldout[place] for place in rng.permutation(len(heldout))[: N_SHOWN - 1]]
        items += [Item(_marked(one), _whole(one), 1.0, group) for one in drawn]
        items.append(Item(_marked(silent), _whole(silent), 0.0, group))
    return items


def _continuations(evidence: Evidence, rng: np.random.Generator) -> list[Item]:
    """Return what the model writes while the latent is amplified, and what it writes as it is, after the same words."""
    texts = [
        (clean_text(without_marks(one.after)), one.value)
        for side in ("steered", "unsteered")
        for one in evidence.of(side)
    ]
    return [Item(text, text, strength) for text, strength in texts]


WINDOWS = Question(
    "windows",
    "Each item is an excerpt of text. Say for each whether, by the description, the latent is active somewhere in it: "
    "true or false.",
    "yes",
    _windows,
)
MARKED_TOKENS = Question(
    "marked_tokens",
    "Each item is an excerpt of text in which one token is marked <<so>>. Say for each whether, by the description, "
    "the latent is active on the marked token: true or false.",
    "yes",
    _marked_tokens,
)
TOKEN_LISTS = Question(
    "token_lists",
    "Each item is a list of tokens. Say for each whether, by the description, these are the tokens that the latent "
    "makes the model more likely to say: true or false.",
    "yes",
    _token_lists,
)
EVERY_TOKEN = Question(
    "every_token",
    "The items are the words of one excerpt of text, in order. Say for each how active the latent is there, by the "
    "description: a whole number from 0 (silent) to 10 (as active as it gets). On most words most latents are silent.",
    "degree",
    _every_token,
)
INTRUDERS = Question(
    "intruders",
    "Each item is an excerpt of text in which one token is marked <<so>>. All but one have something in common. Give "
    "the number of the one that does not belong.",
    "odd",
    _intruders,
)
CONTINUATIONS = Question(
    "continuations",
    "Each item is a text that a language model wrote, in some of them while the latent was amplified. Say for each "
    "whether it clearly shows what the description says: true or false.",
    "yes",
    _continuations,
)


def _balanced(evidence: Evidence) -> tuple[list[Context], list[Context]]:
    """Return windows in which the latent fires, at even steps from strong to weak, and as many where it is silent."""
    heldout, silent = evidence.of("heldout"), evidence.of("silent")
    count = min(len(heldout), len(silent))
    steps = np.linspace(0, len(heldout) - 1, count).round().astype(int)
    return [heldout[step] for step in steps], list(silent[:count])


def _tokens(group: Sequence[Context]) -> list[str]:
    return list(dict.fromkeys(filter(None, (clean_token(one.token) for one in group))))


@lru_cache(maxsize=2**16)
def _by_word(tokens: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Return a window's text, and for each of its tokens the word that it is part of."""
    whole = "".join(tokens)
    words, start = [], 0
    for token in tokens:
        end = start + len(token)
        words.append(_word(Context(token, whole[:start], whole[end:])))
        start = end
    return clean_text(without_marks(whole)), tuple(words)


def _unmarked(one: Context) -> tuple[str, str, str]:
    return without_marks(one.before), without_marks(one.token), without_marks(one.after)


def _joined(one: Context) -> str:
    return one.before + one.token + one.after


def _whole(one: Context) -> str:
    return clean_text(without_marks(_joined(one)))


def _marked(one: Context) -> str:
    """Return the window with its token between marks; marks in the text itself are broken up."""
    before, token, after = (text.replace("<<", "< <").replace(">>", "> >") for text in _unmarked(one))
    bare = token.strip()
    left, right = token[: len(token) - len(token.lstrip())], token[len(token.rstrip()) :]
    return clean_text(f"{before}{left if bare else ''}<<{bare or clean_token(token)}>>{right if bare else ''}{after}")


def _word(one: Context) -> str:
    """Return the word that contains the marked token, with adjacent punctuation."""
    before, token, after = _unmarked(one)
    if not token.strip():
        return clean_token(token)
    left = "" if token[0].isspace() or not before or before[-1].isspace() else before.split()[-1]
    right = "" if token[-1].isspace() or not after or after[0].isspace() else after.split()[0]
    return clean_text(left + token + right)
