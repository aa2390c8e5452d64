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
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pandas as pd

from isaerft.config import Scorer
from isaerft.errors import InputError
from isaerft.llm import Failure, LanguageModel
from isaerft.registry import MATCHERS
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
    """A registered matcher (`isaerft.registry.MATCHERS`, entry-point group `isaerft.matchers`)."""

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
    fits = MATCHERS[scorer.kind or name]([*tasks, *filter(None, exchanged)], scorer, **asked)
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
