"""The tables about the scores of explanations themselves.

explanation_scores.csv holds every score, explanation_quality.csv their means, and agreement_by_quality.csv
whether better explanations agree better with changes. They share a module because the last two are made from the first.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from isaerft import registry, stats
from isaerft.analysis.base import Analysis, ResultTable
from isaerft.analysis.columns import (
    CI_OVER_BEHAVIORS,
    JUDGE,
    LATENT_INDEX,
    SOURCE,
    SUBJECT,
    ci_columns,
)
from isaerft.analysis.readings import Expectation
from isaerft.config import Plan
from isaerft.table import Column

THIRDS = ("low", "middle", "high")
GROUP = ["subject", "source", "scorer", "score"]


def explanation_scores(analysis: Analysis) -> pd.DataFrame:
    """Return one row for each explanation, scorer and score."""
    from isaerft.scorers import read_scores

    plan = analysis.plan
    parts = [
        read_scores(analysis.results.scores(subject, source, scorer)).assign(
            subject=subject, source=source, scorer=scorer
        )
        for subject in plan.study.subjects
        for source in plan.sources_of(subject)
        for scorer in plan.scorers_of(source)
    ]
    return pd.concat(parts, ignore_index=True)


def explanation_quality(analysis: Analysis) -> pd.DataFrame:
    """Return the mean of each score and its floor over the same latents."""
    rows = []
    for names, group in analysis.frame("explanation_scores").groupby(GROUP, sort=False):
        known = group.dropna(subset="value")
        values = known["value"].to_numpy()
        low, high = stats.mean_interval(values, analysis.plan.study.agreement.confidence_level)
        rows.append(
            dict(zip(GROUP, names, strict=True))
            | {
                "n_explanations": len(known),
                "n_failed": len(group) - len(known),
                "mean": values.mean() if len(values) else np.nan,
                "ci_low": low,
                "ci_high": high,
                "floor": known["floor"].mean(),
            }
        )
    return pd.DataFrame(rows)


def agreement_by_quality(analysis: Analysis) -> pd.DataFrame:
    """Return the agreement among latents whose explanations score low, middle and high."""
    rows, plan, scores = [], analysis.plan, analysis.frame("explanation_scores").dropna(subset="value")
    adapter, measure = plan.study.primary.adapter, plan.study.primary.measure
    for subject in plan.study.subjects:
        changes = analysis.changes(subject, adapter)
        for reading in analysis.readings(subject, plan.sources_of(subject, adapter)):
            own = scores[(scores["subject"] == subject) & (scores["source"] == reading.source)]
            change = [stats.mean_rank(changes[name, measure][:, reading.latents]) for name in reading.behaviors]
            for (scorer, score), group in own.groupby(["scorer", "score"], sort=False):
                same = reading.names | {"scorer": scorer, "score": score}
                values = group.set_index("latent_index")["value"]
                rows += [same | row for row in _by_thirds(plan, reading.expectation, np.array(change), values)]
    return pd.DataFrame(rows, columns=BY_QUALITY.column_names)


def _by_thirds(
    plan: Plan, expectation: Expectation, change: np.ndarray, values: pd.Series
) -> Iterator[dict[str, object]]:
    """Yield the agreement within each third of the latents; `change` is (n_behaviors, n), `values` by latent."""
    scored = np.isin(expectation.latents, values.index)
    places = np.flatnonzero(scored)
    third = thirds_of(values.loc[expectation.latents[scored]].to_numpy())
    for number, quality in enumerate(THIRDS):
        chosen = places[third == number]
        if not len(chosen):
            continue
        pairs = zip(change[:, chosen], expectation.expected[:, chosen], strict=True)
        found = np.array(
            [float(stats.auroc(moved, expected)) for moved, expected in pairs if _testable(moved, expected)]
        )
        low, high = np.clip(stats.mean_interval(found, plan.study.agreement.confidence_level), 0, 1)
        yield {
            "quality": quality,
            "n_latents": len(chosen),
            "n_expected": int(expectation.expected[:, chosen].sum()),
            "n_behaviors": len(found),
            "estimate": found.mean() if len(found) else np.nan,
            "ci_low": low,
            "ci_high": high,
        }


def _testable(change: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.ptp(change) > 0 and expected.min() != expected.max())


def thirds_of(values: np.ndarray) -> np.ndarray:
    """Return the third of each value, 0 (low) to 2, (n,) int64; equal values share the third of their middle rank."""
    from scipy.stats import rankdata

    share = (rankdata(values) - 0.5) / max(len(values), 1)
    return np.minimum((3 * share).astype(np.int64), 2)


def _has_scorers(plan: Plan) -> bool:
    return bool(plan.study.scorers)


def _meanings() -> str:
    """Return what each score measures, from its registration."""
    return "; ".join(f"{name}: {registry.SCORES.facts(name).meaning}" for name in registry.SCORES.builtin)


def _chances() -> str:
    """Return the chance level of each score that has one."""
    levels: dict[float, list[str]] = {}
    for name in registry.SCORES.builtin:
        chance = registry.SCORES.facts(name).chance
        if chance is not None:
            levels.setdefault(chance, []).append(name)
    return "; ".join(f"{level:g} for {', '.join(names)}" for level, names in levels.items())


_CONDITION = "studies that score explanations"
_SCORER = Column(
    "scorer", "text", "What decides how well an explanation fits an item, as named in the study's config.", role="key"
)

SCORES = ResultTable(
    name="explanation_scores",
    order=500,
    caption=(
        "How well each explanation separates what its latent does from what it doesn't, on held-out evidence that its "
        "explainer never saw, and the same items with another latent's explanation."
    ),
    columns=(
        SUBJECT,
        SOURCE,
        _SCORER,
        Column("score", "text", f"What is scored. {_meanings()}."),
        LATENT_INDEX,
        Column("n_items", "int", "Items (windows, tokens, lists, texts) that the explanation was matched with."),
        Column(
            "value",
            "float",
            f"The score; larger is better. By chance: {_chances()}. An AUROC of yes-or-no answers is balanced "
            "accuracy. Empty if the scorer gave no answer.",
            optional=True,
        ),
        Column(
            "floor",
            "float",
            "The same items with the explanation of another latent, drawn at random; empty if the score reads none.",
            optional=True,
        ),
    ),
    when=_has_scorers,
    condition=_CONDITION,
    make=explanation_scores,
)

QUALITY = ResultTable(
    name="explanation_quality",
    order=510,
    caption=(
        "The mean score of each source's explanations, and its floor: the mean score of the same explanations "
        "exchanged between latents. Explanations no better than the floor say nothing about their latents."
    ),
    columns=(
        SUBJECT,
        SOURCE,
        _SCORER,
        Column("score", "text", "As in explanation_scores.csv.", role="key"),
        Column("n_explanations", "int", "Explanations scored, one per latent."),
        Column("n_failed", "int", "Explanations that the scorer gave no answer on; they are in no mean."),
        Column("mean", "float", "Mean value over these explanations.", optional=True, role="estimate", chance=None),
        *ci_columns("the interval of the mean over latents (Student's t)"),
        Column("floor", "float", "Mean over the same latents with explanations exchanged between them.", optional=True),
    ),
    when=_has_scorers,
    condition=_CONDITION,
    make=explanation_quality,
)

BY_QUALITY = ResultTable(
    name="agreement_by_quality",
    order=520,
    caption=(
        "Agreement at the primary adapter and measure among latents whose explanations score low, middle and high. "
        "The thirds can also differ in what their explanations are about: compare n_expected."
    ),
    columns=(
        SUBJECT,
        SOURCE,
        JUDGE,
        _SCORER,
        Column("score", "text", "Score that latents are grouped by, as in explanation_scores.csv.", role="key"),
        Column(
            "quality",
            "text",
            "Third of the latents by their explanation's value: low, middle, high. Latents of equal value stay "
            "together, in the third of their middle rank, so thirds can differ in size and one can be missing.",
            role="key",
        ),
        Column("n_latents", "int", "Tested latents in this third."),
        Column("n_expected", "int", "Pairs of a behavior and a latent of the third that it is expected to change."),
        Column(
            "n_behaviors", "int", "Behaviors in the mean: those expected to change some of these latents, but not all."
        ),
        Column(
            "estimate",
            "float",
            "AUROC among the latents of this third, mean over behaviors, however many each is expected to change.",
            optional=True,
            role="estimate",
            chance=0.5,
        ),
        *CI_OVER_BEHAVIORS,
    ),
    when=_has_scorers,
    condition=_CONDITION,
    make=agreement_by_quality,
)

TABLES = [SCORES, QUALITY, BY_QUALITY]
