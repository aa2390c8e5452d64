"""What a scorer is, and how what it says becomes scores of an explanation.

A scorer is a callable registered under a name (`isaerft.registry.SCORERS`, entry-point group `isaerft.scorers`). It
gives each item of a task a number: how well the explanation fits it. One scorer serves every score
(`isaerft.registry.SCORES`): a score asks one of the questions in `isaerft.scorers.tasks`, and has the formula that
turns the fits into a value.

Items can give themselves away, and latents can resemble each other. So the value without information is also measured:
the same items are scored with the explanation of another latent. This is the floor.

A scorer that turns each text into a vector is registered with `embeds=True` and is an `EmbeddingScorer`: a study with
several sources then does this once. A scorer that asks a language model of the study is registered with `asks=True` and
is called with `llm`. If it also has a method `requests`, `isaerft cost` can count its requests in advance (see
`AskingScorer`).
"""

from __future__ import annotations

import logging
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd

from isaerft.config import Scorer
from isaerft.errors import InputError
from isaerft.io import read_parquet, replacing
from isaerft.judges.file import in_subject
from isaerft.llm import ASK_AGAIN, NO_ANSWER, Failure, LanguageModel, Prompt
from isaerft.registry import SCORERS, SCORES
from isaerft.scorers.scores import Score
from isaerft.scorers.tasks import Question, Task
from isaerft.scorers.windows import Windows

COLUMNS = ("score", "latent_index", "n_items", "value", "floor")
DECIMALS = 6
log = logging.getLogger(__name__)


class ScorerFunction(Protocol):
    """A registered scorer."""

    def __call__(self, tasks: Sequence[Task], scorer: Scorer) -> list[np.ndarray | Failure]:
        """Return how well each explanation fits each of its items, without reading their `truth`.

        Parameters
        ----------
        tasks : sequence of Task
            All tasks, so that a scorer can use the words of all. Where `question.answer` is "odd", how well each item
            fits the others of its group.
        scorer : Scorer
            Options of the scorer. If they name an `llm`, the language model is passed as the argument `llm`.

        Returns
        -------
        list of (n_items,) float or Failure
            Larger is a better fit; 0 and 1 for a scorer that says no or yes.
        """


def questions_of(scores: Iterable[str]) -> list[Question]:
    """Return what these scores ask, each question once."""
    return list(dict.fromkeys(SCORES[score].question for score in scores))


class EmbeddingScorer(Protocol):
    """A scorer that is registered with `embeds=True`: where vectors of windows are kept, it is called with them."""

    def __call__(self, tasks: Sequence[Task], scorer: Scorer, *, windows: Windows | None = None) -> list[np.ndarray]:
        """Return what a `ScorerFunction` does; `windows` has the vectors of most texts that `tasks` show."""

    def embed(self, texts: Sequence[str], scorer: Scorer) -> np.ndarray:
        """Return the vectors of texts, (n_texts, d) float."""


@runtime_checkable
class AskingScorer(Protocol):
    """A scorer that asks a language model and can list its requests in advance."""

    def requests(self, tasks: Sequence[Task], scorer: Scorer, *, llm: LanguageModel) -> Sequence[Prompt]:
        """Return the prompts of a call with the same arguments; nothing is sent."""


def score_explanations(
    name: str,
    scorer: Scorer,
    tasks: Sequence[Task],
    *,
    seed: int,
    subject_dir: Path | None = None,
    llm: LanguageModel | None = None,
    windows: Windows | None = None,
) -> pd.DataFrame:
    """Run a scorer on every task, and on the same items with explanations exchanged between latents.

    Parameters
    ----------
    name : str
        The scorer's name in the study, and its kind if `scorer.kind` is empty.
    scorer : Scorer
        Options of the scorer.
    tasks : sequence of Task
        What is scored.
    seed : int
        Seed of the exchange.
    subject_dir : Path, optional
        What {subject_dir} in the scorer's path stands for.
    llm : LanguageModel, optional
        The model that the scorer asks.
    windows : Windows, optional
        Vectors that the scorer has made before.

    Returns
    -------
    DataFrame
        score, latent_index, n_items, value, floor. A value is NaN if the scorer failed; a floor also if no latent has
        another explanation, or the score reads none. `attrs["counts"]` says how often the scorer failed, and why.

    Raises
    ------
    InputError
        There are no tasks, or the scorer failed on all of them.
    """
    if not tasks:
        raise InputError(
            f"scorer {name!r} has nothing to score",
            remedy="check that explained latents fire, and make the subject's scored contexts again",
        )
    exchanged = exchange_explanations(tasks, seed)
    if scorer.path is not None and subject_dir is not None:
        scorer = replace(scorer, path=str(in_subject(scorer.path, subject_dir)))
    given = {name: part for name, part in (("llm", llm), ("windows", windows)) if part is not None}
    fits = SCORERS[scorer.kind or name]([*tasks, *filter(None, exchanged)], scorer, **given)
    own, others = fits[: len(tasks)], iter(fits[len(tasks) :])
    failures = Counter(fit.reason for fit in fits if isinstance(fit, Failure))
    if all(isinstance(fit, Failure) for fit in own):
        raise InputError(
            f"scorer {name!r} scored none of {len(tasks)} tasks; failures: {dict(sorted(failures.items()))}",
            remedy=NO_ANSWER,
        )
    if failures:
        failed = dict(sorted(failures.items()))
        log.warning("scorer %r failed on %d of %d tasks: %s; %s", name, failures.total(), len(fits), failed, ASK_AGAIN)
    rows = []
    for task, fit, other in zip(tasks, own, exchanged, strict=True):
        others_fit = Failure("none") if other is None else next(others)
        for score in dict.fromkeys(scorer.scores):
            if SCORES[score].question == task.question:
                floor = value_of(SCORES[score], task, others_fit) if SCORES.facts(score).reads_explanation else np.nan
                rows.append((score, task.latent, len(task.items), value_of(SCORES[score], task, fit), floor))
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"latent_index": np.int64, "n_items": np.int64})
    for score in set(scorer.scores) - set(frame["score"]):
        log.warning("scorer %r: no latent has the evidence that the score %r reads", name, score)
    frame.attrs["counts"] = {"tasks": len(fits), "failed": dict(sorted(failures.items()))}
    log.info("scorer %r: %s; %s", name, frame.groupby("score", sort=False)["value"].mean().to_dict(), frame.attrs)
    return frame


def value_of(score: Score, task: Task, fits: np.ndarray | Failure) -> float:
    """Return the value of a score; NaN for a failure."""
    # Rounded, so that rounding errors neither make nor break ties.
    return float("nan") if isinstance(fits, Failure) else score.value(np.round(fits, DECIMALS), task.items)


def exchange_explanations(tasks: Sequence[Task], seed: int) -> list[Task | None]:
    """Return each task with another latent's, different explanation; None where there is none.

    Within a question, the latents form a circle in an order drawn by `seed`; each gets the explanation of the next one
    whose text differs.
    """
    result: list[Task | None] = [None] * len(tasks)
    for question in dict.fromkeys(task.question for task in tasks):
        places = [place for place, task in enumerate(tasks) if task.question == question]
        drawn = np.random.default_rng([seed, zlib.crc32(question.name.encode())])
        circle = drawn.permutation(places).tolist()
        for step, place in enumerate(circle):
            own = tasks[place]
            around = (tasks[other] for other in circle[step + 1 :] + circle[:step])
            other = next((task for task in around if task.explanation != own.explanation), None)
            if other is not None:
                result[place] = replace(own, explanation=other.explanation, side=other.side)
    return result


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
