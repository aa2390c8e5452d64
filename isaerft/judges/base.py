"""What a judge is, and the table that every judge returns: explanation + behavior -> expected effect.

A judge is a callable registered under a name (`isaerft.registry.JUDGES`, entry-point group `isaerft.judges`). It reads
each distinct explanation once, sees all behaviors at once, and never sees what training changed:

>>> @JUDGES("my_judge")    # doctest: +SKIP
... def my_judge(explanations, behaviors, judge, *, subject_dir):
...     texts, position = distinct_texts(explanations)
...     effects = my_model(texts, list(behaviors.values()))     # (n_texts, n_behaviors)
...     return judgements(explanations, behaviors, effects[position], expected=effects[position] > 0.5)

A judge that asks a language model of the study is registered with `asks=True` and is called with `llm`. If it also has
a method `requests`, `isaerft cost` can count its requests in advance (see `AskingJudge`):

>>> class MyJudge:    # doctest: +SKIP
...     def requests(self, explanations, behaviors, judge, *, subject_dir, llm):
...         return [Prompt(...) for text in distinct_texts(explanations)[0]]
...     def __call__(self, explanations, behaviors, judge, *, subject_dir, llm):
...         replies = llm.ask(self.requests(explanations, behaviors, judge, subject_dir=subject_dir, llm=llm))
...         ...
>>> JUDGES("my_judge", asks=True)(MyJudge())    # doctest: +SKIP
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd

from isaerft.config import Judge
from isaerft.errors import InputError, shown, unknown_name
from isaerft.explanations import clean_text
from isaerft.io import read_parquet, replacing, typed
from isaerft.llm import LanguageModel, Prompt
from isaerft.registry import JUDGES

COLUMNS = ("latent_index", "behavior", "expected_effect", "expected", "confidence", "rationale")
_DTYPES = {
    "latent_index": "int64",
    "behavior": "str",
    "expected_effect": "float64",
    "expected": "bool",
    "confidence": "float64",
}
DECIMALS = 6
log = logging.getLogger(__name__)


class JudgeFunction(Protocol):
    """A registered judge."""

    def __call__(
        self, explanations: pd.DataFrame, behaviors: Mapping[str, str], judge: Judge, *, subject_dir: Path
    ) -> pd.DataFrame:
        """Predict from each explanation the effect of training on each behavior.

        Parameters
        ----------
        explanations : DataFrame
            As `isaerft.explanations.read_explanations` returns it.
        behaviors : mapping of str to str
            Name of each behavior -> its description.
        judge : Judge
            Options of the judge. If they name an `llm`, the language model is passed as the argument `llm`.
        subject_dir : Path
            Folder of the subject's own files.

        Returns
        -------
        DataFrame
            One row per (latent, behavior), each pair once. Pairs that could not be judged have no row; their number is
            `attrs["counts"]["unjudged_pairs"]`. latent_index : int64; behavior : str; expected_effect : float64 in
            [-1, 1] (1 promoted, 0 unaffected, -1 suppressed); expected : bool, whether the latent is among those
            expected to change; confidence : float64 in [0, 1], NaN where the judge has none; rationale : str.
        """


@runtime_checkable
class AskingJudge(Protocol):
    """A judge that asks a language model and can list its requests in advance."""

    def requests(
        self,
        explanations: pd.DataFrame,
        behaviors: Mapping[str, str],
        judge: Judge,
        *,
        subject_dir: Path,
        llm: LanguageModel,
    ) -> Sequence[Prompt]:
        """Return the prompts of a call with the same arguments; nothing is sent.

        Explanations that do not exist yet are replaced by different texts of typical length.
        """


def judge_explanations(
    name: str,
    judge: Judge,
    explanations: pd.DataFrame,
    behaviors: Mapping[str, str],
    *,
    subject_dir: str | Path,
    llm: LanguageModel | None = None,
) -> pd.DataFrame:
    """Run a judge and check its table; see `JudgeFunction` for the arguments and the columns.

    Parameters
    ----------
    name : str
        The judge's name in the study, and its kind if `judge.kind` is empty.
    llm : LanguageModel, optional
        The model that the judge asks.

    Raises
    ------
    InputError
        There are no behaviors or explanations, or the table breaks the contract.
    """
    if not behaviors:
        raise InputError(f"judge {name!r} without behaviors", remedy="give at least one behavior")
    if explanations.empty:
        raise InputError(f"judge {name!r} without explanations", remedy="choose a source that explains some latents")
    model = {} if llm is None else {"llm": llm}
    frame = JUDGES[judge.kind or name](explanations, behaviors, judge, subject_dir=Path(subject_dir), **model)
    frame = checked_judgements(frame, latents=explanations["latent_index"], behaviors=behaviors)
    n_expected = frame.groupby("behavior", sort=False)["expected"].sum().to_dict()
    log.info("judge %r on %d latents; expected: %s; %s", name, len(explanations), n_expected, frame.attrs)
    return frame


def refuse_options(judge: Judge, kind: str) -> None:
    """Refuse options of a kind of judge that has none."""
    for option in judge.options:
        raise unknown_name(f"option of {kind} judge:", option, ())


def distinct_texts(explanations: pd.DataFrame) -> tuple[list[str], np.ndarray]:
    """Return the distinct explanations, sorted, and each row's position among them, (n_latents,) int."""
    texts, position = np.unique(explanations["explanation"].to_numpy(dtype=object), return_inverse=True)
    return [str(text) for text in texts], position


def judgements(
    explanations: pd.DataFrame,
    behaviors: Mapping[str, str],
    effects: np.ndarray,
    *,
    expected: np.ndarray,
    confidence: np.ndarray | None = None,
    rationale: np.ndarray | None = None,
) -> pd.DataFrame:
    """Return matrices of judgements as a judge's table, latent by latent.

    Parameters
    ----------
    explanations : DataFrame
        The explanations judged, n_latents rows.
    behaviors : mapping
        The n_behaviors behaviors.
    effects : ndarray, (n_latents, n_behaviors) float
        Expected effects in [-1, 1].
    expected : ndarray, (n_latents, n_behaviors) bool
        Whether the latent is among those expected to change.
    confidence, rationale : ndarray, (n_latents, n_behaviors), optional
        Float in [0, 1] or NaN, and str; NaN and "" by default.
    """
    n_latents, names = len(explanations), list(behaviors)
    shape = (n_latents, len(names))
    return pd.DataFrame(
        {
            "latent_index": np.repeat(explanations["latent_index"].to_numpy(np.int64), len(names)),
            "behavior": pd.Series(np.tile(np.array(names, dtype=object), n_latents), dtype="str"),
            "expected_effect": effects.reshape(-1).astype(np.float64),
            "expected": expected.reshape(-1).astype(bool),
            "confidence": (np.full(shape, np.nan) if confidence is None else confidence).reshape(-1).astype(np.float64),
            "rationale": _clean(np.full(shape, "", dtype=object) if rationale is None else rationale),
        }
    )


def top_share(effects: np.ndarray, share: float) -> np.ndarray:
    """Mark, for each behavior, the `share` of latents with the largest effects, if these are positive.

    At least one latent is taken. A tie at the threshold is included as a whole: equal explanations must not differ,
    and without the tie nothing might be left.

    Parameters
    ----------
    effects : ndarray, (n_latents, n_behaviors) float
        Expected effects.
    share : float
        Share of the latents, in (0, 1).

    Returns
    -------
    ndarray, (n_latents, n_behaviors) bool
    """
    n_latents = len(effects)
    count = max(1, round(share * n_latents))
    threshold = np.partition(effects, n_latents - count, axis=0)[n_latents - count]
    return np.asarray((effects >= threshold) & (effects > 0))


def checked_judgements(
    frame: pd.DataFrame,
    *,
    latents: pd.Series | np.ndarray | None = None,
    behaviors: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Return a judge's table with its dtypes.

    Raises
    ------
    InputError
        A column is missing or unknown, a value is out of range, a pair is repeated, or, if `latents` and `behaviors`
        are given, a pair is missing and not counted as unjudged.
    """
    if set(frame.columns) != set(COLUMNS):
        raise InputError(f"judgements with columns {shown(list(frame.columns))}", allowed=", ".join(COLUMNS))
    result = typed(frame, _DTYPES, "judgements")
    result["rationale"] = _clean(frame["rationale"].to_numpy(dtype=object))
    if not result["expected_effect"].between(-1, 1).all():
        worst = result.loc[~result["expected_effect"].between(-1, 1), "expected_effect"].iloc[0]
        raise InputError(f"judgements with expected_effect {worst}", allowed="-1 to 1")
    confidence = result["confidence"].dropna()
    if not confidence.between(0, 1).all():
        worst = confidence[~confidence.between(0, 1)].iloc[0]
        raise InputError(f"judgements with confidence {worst}", allowed="0 to 1")
    pairs = result[["latent_index", "behavior"]]
    if pairs.duplicated().any():
        latent, behavior = pairs[pairs.duplicated()].iloc[0]
        raise InputError(f"latent {latent} is judged twice for behavior {shown(behavior)}", allowed="each pair once")
    if latents is not None and behaviors is not None:
        unjudged = int(frame.attrs.get("counts", {}).get("unjudged_pairs", 0))
        _check_complete(pairs, set(np.asarray(latents).tolist()), set(behaviors), unjudged)
    result.attrs = dict(frame.attrs)
    return result


def write_judgements(frame: pd.DataFrame, path: str | Path) -> None:
    """Check judgements and write them as Parquet under `path`, atomically."""
    checked = checked_judgements(frame)
    with replacing(path) as temporary:
        checked.to_parquet(temporary, index=False)


def read_judgements(path: str | Path) -> pd.DataFrame:
    """Read judgements written by `write_judgements` and check them again."""
    frame = read_parquet(path, missing=f"judgements {str(path)!r} do not exist", remedy="run the rule that makes them")
    return checked_judgements(frame)


def _check_complete(pairs: pd.DataFrame, latents: set[int], behaviors: set[str], unjudged: int) -> None:
    """Refuse judgements (distinct pairs) of other latents or behaviors, and pairs that are missing but not counted."""
    others = [
        *sorted(set(pairs["latent_index"]) - latents)[:3],
        *sorted(set(pairs["behavior"]) - behaviors)[:3],
    ]
    if others:
        raise InputError(
            f"judgements of unknown latents or behaviors: {shown(others)}", allowed="the given latents and behaviors"
        )
    if len(pairs) + unjudged != len(latents) * len(behaviors):
        raise InputError(
            f"judgements of {len(pairs)} pairs, {unjudged} counted as unjudged",
            allowed=f"together all {len(latents)} latents x {len(behaviors)} behaviors",
        )


def _clean(texts: np.ndarray) -> pd.Series:
    """Return texts of any shape as one clean column; each distinct text is cleaned once."""
    hashable = [text if isinstance(text, str) else None for text in texts.reshape(-1)]
    codes, distinct = pd.factorize(np.array(hashable, dtype=object), use_na_sentinel=False)
    return pd.Series(np.array([clean_text(text) for text in distinct], dtype=object)[codes], dtype="str")
