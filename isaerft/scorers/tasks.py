"""Scoring tasks: items that belong to a latent, among others that do not.

There are three scores, each with its own kind of items:

- detection: in which of these windows is the latent active? (Paulo et al. 2024, "Automatically Interpreting Millions of
  Features in Large Language Models")
- fuzzing: on which of these marked tokens is it active? Each window is shown with the right token marked and with a
  wrong one (same paper).
- output: which of these lists has the tokens that it makes likelier? (after Gur-Arieh et al. 2025, "Enhancing Automated
  Interpretability with Output-Centric Feature Descriptions")

The items come from contexts that are held out for scoring (`isaerft.subjects.contexts`): no explainer or judge sees
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from isaerft.explanations import clean_text
from isaerft.explanations.contexts import Context, clean_token, grouped, without_marks

DETECTION, FUZZING, OUTPUT = SCORES = ("detection", "fuzzing", "output")
N_LISTS = 6
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
    holds : bool
        Whether it belongs to the latent.
    """

    text: str
    focus: str
    holds: bool


@dataclass(frozen=True)
class Task:
    """An explanation, its side ("input", "output" or "both"), and the items of `latent` for one score."""

    latent: int
    score: str
    explanation: str
    side: str
    items: tuple[Item, ...]


def tasks_of(contexts: pd.DataFrame, explanations: pd.DataFrame, seed: int, n_latents: int | None = None) -> list[Task]:
    """Return up to three tasks per explained latent, their items in an order drawn by `seed`.

    Detection and fuzzing have as many items that hold as items that don't. Among the lists of tokens, one is the
    latent's own and up to `N_LISTS` are drawn from other latents, none with the same tokens.

    Parameters
    ----------
    contexts : DataFrame
        scored_contexts.parquet, as `isaerft.explanations.contexts.read_contexts` reads it.
    explanations : DataFrame
        As `isaerft.explanations.read_explanations` returns it.
    seed : int
        Seed of the latents and of the order of items.
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
        latent, own = int(row.latent_index), evidence[int(row.latent_index)]
        rng = np.random.default_rng([seed, latent])
        items = {
            DETECTION: _detection(own.get("heldout", []), own.get("silent", [])),
            FUZZING: _fuzzing(own.get("heldout", []), own.get("unmarked", [])),
            OUTPUT: _output(latent, lists, rng),
        }
        for score in SCORES:
            shuffled = tuple(items[score][place] for place in rng.permutation(len(items[score])))
            if shuffled:
                tasks.append(Task(latent, score, row.explanation, row.side, shuffled))
    return tasks


def stand_in_tasks(n_latents: int, n_items: int) -> list[Task]:
    """Return tasks of typical length for `n_latents` latents, for planning before their contexts are known."""
    tasks = []
    for latent in range(n_latents):
        explanation, text = (f"({what} still to come) {latent}".ljust(TYPICAL_TEXT, ".") for what in ("text", "item"))
        items = tuple(Item(text, text, bool(number % 2)) for number in range(n_items))
        tasks += [Task(latent, score, explanation, "input", items) for score in SCORES]
    return tasks


def _detection(heldout: Sequence[Context], silent: Sequence[Context]) -> list[Item]:
    """Return windows with and without the latent, equally many of both."""
    count = min(len(heldout), len(silent))
    steps = np.linspace(0, len(heldout) - 1, count).round().astype(int)
    texts = [(_whole(heldout[step]), True) for step in steps] + [(_whole(one), False) for one in silent[:count]]
    return [Item(text, text, holds) for text, holds in texts]


def _fuzzing(heldout: Sequence[Context], unmarked: Sequence[Context]) -> list[Item]:
    """Return each window that has an inactive token twice: with the right token marked, and with the wrong one."""
    wrong = {_joined(one): one for one in unmarked}
    pairs = [(one, wrong[_joined(one)]) for one in heldout if _joined(one) in wrong]
    shown = [(one, holds) for pair in pairs for one, holds in zip(pair, (True, False), strict=True)]
    return [Item(_marked(one), _word(one), holds) for one, holds in shown]


def _output(latent: int, lists: dict[int, list[str]], rng: np.random.Generator) -> list[Item]:
    """Return the latent's own list of tokens, and lists of other latents."""
    if latent not in lists:
        return []
    own = set(lists[latent])
    others: dict[frozenset[str], str] = {}
    for index in rng.permutation(list(lists)):
        tokens = lists[int(index)]
        if set(tokens) != own:
            others.setdefault(frozenset(tokens), ", ".join(tokens))
        if len(others) == N_LISTS:
            break
    texts = [(", ".join(lists[latent]), True), *((text, False) for text in others.values())]
    return [Item(text, text, holds) for text, holds in texts] if others else []


def _tokens(group: Sequence[Context]) -> list[str]:
    return list(dict.fromkeys(filter(None, (clean_token(one.token) for one in group))))


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
