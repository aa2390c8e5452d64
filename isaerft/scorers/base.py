"""How well an explanation tells what its latent does from what it doesn't do.

Three questions, each over items that hold and items that don't:

- detection: in which of these windows is the latent active? (Paulo et al. 2024, "Automatically Interpreting Millions of
  Features in Large Language Models")
- fuzzing: on which of these marked tokens is it active? Each window is shown with the right token marked and with a
  wrong one (the same).
- output: which of these lists are the tokens that it makes likelier? (after Gur-Arieh et al. 2025, "Enhancing Automated
  Interpretability with Output-Centric Feature Descriptions")

A matcher answers one number per item. The value of an explanation is the chance that an item that holds gets a larger
one than an item that does not, ties counted half; for answers of yes and no this is balanced accuracy. Without any
information it is 0.5, whatever the matcher's leaning to yes. What it really is without information is measured, too:
the same items are shown with the explanation of another latent. That floor is above 0.5 where the items betray
themselves, or where latents are much alike.

From the evidence kept for scoring (`isaerft.subjects.scored`) to the items that explanations are matched with.

The file of one scorer's scores of one source's explanations.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from isaerft.config import Scorer
from isaerft.errors import InputError
from isaerft.explanations import clean_text
from isaerft.explanations.local import Context, clean_token, grouped, without_marks
from isaerft.io import read_parquet, replacing
from isaerft.llm import Failure, LanguageModel
from isaerft.registry import SCORERS
from isaerft.stats import auroc

DETECTION, FUZZING, OUTPUT = SCORES = ("detection", "fuzzing", "output")
DECIMALS = 6
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Item:
    """What an explanation may fit or not.

    Attributes
    ----------
    text : str
        As a reader gets it; a marked token stands between << and >>.
    focus : str
        What of it is in question: the marked word, else all of the text.
    holds : bool
        Whether it is of the latent.
    """

    text: str
    focus: str
    holds: bool


@dataclass(frozen=True)
class Task:
    """An explanation, its side ("input", "output", "both"), and the items of `latent` that it is matched with."""

    latent: int
    score: str
    explanation: str
    side: str
    items: tuple[Item, ...]


class Matcher(Protocol):
    """A registered matcher (`isaerft.registry.SCORERS`, entry-point group `isaerft.scorers`)."""

    def __call__(self, tasks: Sequence[Task], scorer: Scorer) -> list[np.ndarray | Failure]:
        """Tell how well each explanation fits each of its items; `holds` is not to be read.

        Parameters
        ----------
        tasks : sequence of Task
            All that is asked, so that a matcher can see the words of all.
        scorer : Scorer
            Options of the scorer.
        llm : LanguageModel
            Given only to a scorer whose options name an `llm`.

        Returns
        -------
        list of (n_items,) float or Failure
            Larger is a better fit; 0 and 1 for a matcher that says no or yes.
        """


def score_explanations(
    name: str, scorer: Scorer, tasks: Sequence[Task], *, seed: int, llm: LanguageModel | None = None
) -> pd.DataFrame:
    """Run a matcher on every task, and on the same items with explanations exchanged between latents.

    Parameters
    ----------
    name : str
        The scorer's in the study, and its kind where none is given.
    seed : int
        Which explanations are exchanged.

    Returns
    -------
    DataFrame
        score, latent_index, n_items, value, floor; a value is NaN where the matcher failed, a floor also where no
        latent has another explanation. `attrs["counts"]` says how often it failed, and why.

    Raises
    ------
    InputError
        There is nothing to score, or the matcher failed on everything.
    """
    if not tasks:
        raise InputError(f"scorer {name!r} has nothing to score", remedy="check that explained latents fire")
    exchanged = exchange(tasks, seed)
    asked = {} if llm is None else {"llm": llm}
    fits = SCORERS[scorer.kind or name]([*tasks, *filter(None, exchanged)], scorer, **asked)
    own, others = fits[: len(tasks)], iter(fits[len(tasks) :])
    failures = Counter(fit.reason for fit in fits if isinstance(fit, Failure))
    if all(isinstance(fit, Failure) for fit in own):
        raise InputError(
            f"scorer {name!r} scored none of {len(tasks)} tasks; failures: {dict(sorted(failures.items()))}",
            remedy="its answers are not in the form that was asked for: try another model, or another `structured`",
        )
    if failures:
        log.warning("scorer %r failed on %d of %d tasks: %s", name, failures.total(), len(fits), dict(failures))
    frame = pd.DataFrame(
        {
            "score": pd.Series([task.score for task in tasks], dtype="str"),
            "latent_index": np.array([task.latent for task in tasks], dtype=np.int64),
            "n_items": np.array([len(task.items) for task in tasks], dtype=np.int64),
            "value": [value_of(task, fit) for task, fit in zip(tasks, own, strict=True)],
            "floor": [np.nan if other is None else value_of(other, next(others)) for other in exchanged],
        }
    )
    frame.attrs["counts"] = {"tasks": len(fits), "failed": dict(sorted(failures.items()))}
    log.info("scorer %r: %s; %s", name, frame.groupby("score", sort=False)["value"].mean().to_dict(), frame.attrs)
    return frame


def value_of(task: Task, fits: np.ndarray | Failure) -> float:
    """Return P(an item that holds fits better than one that does not) + P(equal) / 2; NaN after a failure."""
    if isinstance(fits, Failure):
        return float("nan")
    # Rounded, so that the last bits of a sum neither make a tie nor break one.
    fits = np.round(fits, DECIMALS)
    return float(auroc(fits, [item.holds for item in task.items])) if np.ptp(fits) else 0.5


def exchange(tasks: Sequence[Task], seed: int) -> list[Task | None]:
    """Return each task with another latent's explanation of other words; None where there is no other.

    Within a score the latents stand in a circle of an order drawn by `seed`, and each takes the explanation of the next
    one that says something else.
    """
    result: list[Task | None] = [None] * len(tasks)
    for number, score in enumerate(SCORES):
        places = [place for place, task in enumerate(tasks) if task.score == score]
        circle = np.random.default_rng([seed, number]).permutation(places).tolist()
        for step, place in enumerate(circle):
            own = tasks[place]
            around = (tasks[other] for other in circle[step + 1 :] + circle[:step])
            other = next((task for task in around if task.explanation != own.explanation), None)
            if other is not None:
                result[place] = replace(own, explanation=other.explanation, side=other.side)
    return result


N_LISTS = 6
_LAST, _FIRST = re.compile(r"\S*\Z"), re.compile(r"\A\S*")


def tasks_of(contexts: pd.DataFrame, explanations: pd.DataFrame, seed: int, n_latents: int | None = None) -> list[Task]:
    """Return what the explanations are asked: up to three tasks per latent, items in an order drawn by seed.

    Detection and fuzzing have as many items that hold as items that don't. Of the lists of tokens one is the latent's
    own, beside up to `N_LISTS` drawn from other latents, none of the same tokens.

    Parameters
    ----------
    contexts : DataFrame
        What `isaerft.explanations.local.read_contexts` reads of scored_contexts.parquet.
    explanations : DataFrame
        As `isaerft.explanations.read_explanations` gives it.
    n_latents : int, optional
        At most so many of the latents that have both, drawn by seed.
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


def _detection(heldout: Sequence[Context], silent: Sequence[Context]) -> list[Item]:
    """Return windows with and without the latent, as many of the ones as of the others."""
    count = min(len(heldout), len(silent))
    steps = np.linspace(0, len(heldout) - 1, count).round().astype(int) if count else []
    texts = [(_whole(heldout[step]), True) for step in steps] + [(_whole(one), False) for one in silent[:count]]
    return [Item(text, text, holds) for text, holds in texts]


def _fuzzing(heldout: Sequence[Context], unmarked: Sequence[Context]) -> list[Item]:
    """Return the windows that have an inactive token twice, with the right token marked and with the wrong one."""
    wrong = {_joined(one): one for one in unmarked}
    pairs = [(one, wrong[_joined(one)]) for one in heldout if _joined(one) in wrong]
    shown = [(one, holds) for pair in pairs for one, holds in zip(pair, (True, False), strict=True)]
    return [Item(_marked(one), _word(one), holds) for one, holds in shown]


def _output(latent: int, lists: dict[int, list[str]], rng: np.random.Generator) -> list[Item]:
    """Return the latent's own list of tokens and those of others."""
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


def _parts(one: Context) -> tuple[str, str, str]:
    return without_marks(one.before), without_marks(one.token), without_marks(one.after)


def _joined(one: Context) -> str:
    return one.before + one.token + one.after


def _whole(one: Context) -> str:
    return clean_text(without_marks(_joined(one)))


def _marked(one: Context) -> str:
    """Return the window with its token between marks, of which the text itself has none."""
    before, token, after = (text.replace("<<", "< <").replace(">>", "> >") for text in _parts(one))
    bare = token.strip()
    left, right = token[: len(token) - len(token.lstrip())], token[len(token.rstrip()) :]
    return clean_text(f"{before}{left if bare else ''}<<{bare or clean_token(token)}>>{right if bare else ''}{after}")


def _word(one: Context) -> str:
    """Return the word that the marked token is in or is, with punctuation that touches it."""
    before, token, after = _parts(one)
    if not token.strip():
        return clean_token(token)
    left = "" if token[0].isspace() else _LAST.search(before)[0]
    right = "" if token[-1].isspace() else _FIRST.search(after)[0]
    return clean_text(left + token + right)


COLUMNS = ("score", "latent_index", "n_items", "value", "floor")


def write_scores(frame: pd.DataFrame, path: str | Path) -> None:
    """Write scores as Parquet under `path`, atomically."""
    with replacing(path) as temporary:
        frame[list(COLUMNS)].to_parquet(temporary, index=False)


def read_scores(path: str | Path) -> pd.DataFrame:
    """Read scores written by `write_scores`."""
    frame = read_parquet(path, missing=f"scores {str(path)!r} do not exist", remedy="run the rule `score`")
    if set(frame.columns) != set(COLUMNS):
        raise InputError(f"{path} has the columns {', '.join(map(str, frame.columns))}", allowed=", ".join(COLUMNS))
    return frame
