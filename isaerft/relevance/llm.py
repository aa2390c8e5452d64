"""The LLM judge: a language model reads each distinct explanation once, beside all behaviors.

A model that refuses, breaks off or answers in no valid form has not judged: the explanation's latents get no row, and
`attrs["counts"]` says how many failed and why. They leave the universe of every test by this judge, which nothing that
training changed can influence, for the judge never sees it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from isaerft.config import Judge
from isaerft.errors import InputError, unknown_name
from isaerft.llm import Failure, LanguageModel, Plan, Prompt, Reply, marker_of, parsed
from isaerft.registry import JUDGES
from isaerft.relevance.base import EXPECTED_ABOVE, judgements
from isaerft.relevance.questions import order_of, question

OPTIONS = ("order_seed", "sample_seed")
log = logging.getLogger(__name__)


@JUDGES("llm")
def llm(
    explanations: pd.DataFrame, behaviors: Mapping[str, str], judge: Judge, *, subject_dir: Path, llm: LanguageModel
) -> pd.DataFrame:
    """Judge by a language model; see `isaerft.relevance.base.RelevanceJudge`.

    Effects are +-1/3, 2/3 or 1 by the model's word (weak, moderate, strong); `expected` are those promoted above 0.5.
    Options: `order_seed` (another order of the behaviors) and `sample_seed` (another sampling seed), both 0: a judge of
    the same model with another of them shows how far its answers hang on the order, or on chance.

    Raises
    ------
    InputError
        No explanation at all could be judged, or the language model cannot be asked.
    """
    texts, position, prompts, orders = _questions(explanations, behaviors, judge, llm.seed)
    replies = llm.ask(prompts)
    n_behaviors = len(behaviors)
    effects = np.full((len(texts), n_behaviors), np.nan)
    confidence, rationale = effects.copy(), np.full(effects.shape, "", dtype=object)
    failures: Counter[str] = Counter()
    for row, reply in enumerate(replies):
        answer = _answer(prompts[row], reply, texts[row][0])
        if isinstance(answer, Failure):
            failures[answer.reason] += 1
            continue
        for place, behavior in enumerate(orders[row], 1):
            one = getattr(answer, f"behavior_{place}")
            effects[row, behavior], confidence[row, behavior] = one.expected_effect, one.confidence
            rationale[row, behavior] = one.rationale
    judged = np.isfinite(effects).all(axis=1)
    if not judged.any():
        raise InputError(
            f"llm {llm.name!r} judged none of {len(texts)} explanations; failures: {dict(sorted(failures.items()))}",
            remedy="its answers are not in the form that was asked for: try another model, or another `structured`",
        )
    if failures:
        log.warning(
            "llm %r failed on %d of %d explanations: %s", llm.name, sum(failures.values()), len(texts), failures
        )
    kept = judged[position]
    rows = position[kept]
    frame = judgements(
        explanations[kept],
        behaviors,
        effects[rows],
        expected=effects[rows] > EXPECTED_ABOVE,
        confidence=confidence[rows],
        rationale=rationale[rows],
    )
    frame.attrs["counts"] = {
        "explanations": len(texts),
        "failed": dict(sorted(failures.items())),
        "unjudged_pairs": int((~kept).sum()) * n_behaviors,
    }
    return frame


def plan(explanations: pd.DataFrame, behaviors: Mapping[str, str], judge: Judge, llm: LanguageModel) -> Plan:
    """Return what judging these explanations will take; nothing is sent."""
    return llm.plan(_questions(explanations, behaviors, judge, llm.seed)[2])


def _questions(
    explanations: pd.DataFrame, behaviors: Mapping[str, str], judge: Judge, seed: int
) -> tuple[list[tuple[str, str]], np.ndarray, list[Prompt], list[np.ndarray]]:
    """Return the distinct (text, side), each row's position among them, and each one's prompt and order."""
    for option in judge.options:
        if option not in OPTIONS:
            raise unknown_name("option of an LLM judge:", option, OPTIONS)
    order_seed, sample_seed = (_seed(judge, option) for option in OPTIONS)
    pairs = list(zip(explanations["explanation"], explanations["side"], strict=True))
    texts = sorted(set(pairs))
    index = {pair: number for number, pair in enumerate(texts)}
    position = np.array([index[pair] for pair in pairs], dtype=np.int64)
    orders = [order_of(text, len(behaviors), (seed, order_seed)) for text, _ in texts]
    prompts = [
        question(text, side, list(behaviors.values()), order, seed=seed + sample_seed)
        for (text, side), order in zip(texts, orders, strict=True)
    ]
    return texts, position, prompts, orders


def _seed(judge: Judge, option: str) -> int:
    value = judge.options.get(option, 0)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InputError(f"option {option} of an LLM judge: {value!r}", allowed="a whole number from 0")
    return value


def _answer(prompt: Prompt, reply: Reply, text: str) -> object:
    """Return the answer in its form, or a `Failure`; one that does not name this explanation is "of_another"."""
    answer = parsed(reply, prompt.form)
    if not isinstance(answer, Failure) and answer.explanation_id != marker_of(text):  # type: ignore[attr-defined]
        return Failure("of_another")
    return answer
