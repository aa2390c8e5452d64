"""explanation_verdicts.csv: the verdict on each explanation over all behaviors, and its reason.

At the primary adapter and measure. The rule is `isaerft.stats.decide`; this module turns its reasons into sentences.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from isaerft import stats
from isaerft.analysis.base import Analysis, ResultTable
from isaerft.analysis.columns import EXPLANATION, JUDGE, LATENT_INDEX, SOURCE, SUBJECT
from isaerft.analysis.readings import Changes, Reading
from isaerft.config import Plan
from isaerft.registry import MEASURES
from isaerft.table import Column

MUCH = 0.95
"""A mean rank above this, over latents and within a behavior, is called a large change."""
LEAST_ABSORPTION = 6.3
"""Least absorption score: exceeded by 5 % of the latents that were not absorbed in planted dictionaries
(`benchmarks/absorption.py`)."""


def explanation_verdicts(analysis: Analysis) -> pd.DataFrame:
    """Return one row for each explanation and judge."""
    plan, parts = analysis.plan, []
    for subject in plan.study.subjects:
        changes = analysis.changes(subject, plan.study.primary.adapter)
        parts += [verdicts_of(plan, reading, changes).assign(**reading.names) for reading in analysis.readings(subject)]
    return pd.concat(parts, ignore_index=True)


@dataclass(frozen=True)
class _Profiles:
    """What a reading predicts over behaviors, what changed, and how well the two match.

    Attributes
    ----------
    behaviors : tuple of str
        Those whose training changed some latents.
    effects, changes : (n_behaviors, n) float
        Predicted effects; mean ranks of the changes over seeds.
    facts : DataFrame
        Facts of the subject's latents, by latent_index.
    families : (n_behaviors,) int64
        Family of each behavior: variants of one behavior count as one.
    """

    behaviors: tuple[str, ...]
    effects: np.ndarray
    changes: np.ndarray
    reading: Reading
    match: stats.ProfileMatch
    facts: pd.DataFrame
    families: np.ndarray

    @classmethod
    def of(cls, plan: Plan, reading: Reading, changes: Changes) -> _Profiles | None:
        """Match explanations with changes; None with fewer than two behaviors that changed any latent."""
        measure = plan.study.primary.measure
        ranks = np.array([stats.mean_rank(changes[name, measure][:, reading.latents]) for name in reading.behaviors])
        moved = np.ptp(ranks, axis=1) > 0
        if moved.sum() < 2:
            return None
        effects = reading.expectation.effect
        effects = (effects if MEASURES.facts(measure).directed else np.abs(effects))[moved]
        behaviors = tuple(name for name, did in zip(reading.behaviors, moved, strict=True) if did)
        names = [plan.study.behaviors[name].family or name for name in behaviors]
        declared = np.unique(names, return_inverse=True)[1]
        families = stats.families_of(ranks[moved], reading.expectation.expected[moved], declared=declared)
        match = stats.match_profiles(ranks[moved], effects, **reading.confounds.null(), families=families)
        facts = reading.explained.facts.set_index("latent_index")
        return cls(behaviors, effects, ranks[moved], reading, match, facts, families)

    def verdict(self, place: int) -> tuple[str, str]:
        """Return the verdict on the explanation at `place` of the universe, and the reason in words."""
        effects = self.effects[:, place]
        verdict = stats.decide(self.match, place, effects, absorber_score=lambda: self._absorber_score(place))
        return verdict.name, self._reason(verdict.reason, place)

    def _absorber_score(self, place: int) -> float:
        """Return the explanation's score on the latent that can have absorbed its own; NaN where none can."""
        own = self.facts.loc[self.reading.latents[place]]
        found = np.flatnonzero(self.reading.latents == own.absorber)
        if not own.absorption >= LEAST_ABSORPTION or not len(found):
            return math.nan
        null, there = self.reading.confounds.null(), int(found[0])
        return stats.score_elsewhere(self.changes, self.effects, place, there, **null, families=self.families)

    def _reason(self, reason: str, place: int) -> str:
        """Return the sentence for a reason of `stats.decide`."""
        found, said = self.match, self._prediction(place)
        numbers = f"score {found.score[place]:.2f}, {found.expected_score[place]:.2f} at the average effect"
        q, contradiction_q = f"{found.qvalue[place]:.2g}", f"{found.contradiction_qvalue[place]:.2g}"
        match reason:
            case "predicts_nothing" | "predicts_the_same":
                what = "nothing" if reason == "predicts_nothing" else "the same"
                return f"it predicts {what} for each of the {len(self.behaviors)} behaviors"
            case "too_few_behaviors":
                return "too few behaviors that are not variants of each other"
            case "changed_as_predicted":
                return f"{said} and its latent changed so; {numbers}; q = {q}"
            case "no_average_effect":
                return f"the explanations of this source together predict no change here; {numbers}"
            case "absorber_changed":
                own = self.facts.loc[self.reading.latents[place]]
                return (
                    f"{said}; latent {int(own.absorber)} writes much the same (decoder cosine "
                    f"{own.absorber_cosine:.2f}) and is not read by it (absorption score {own.absorption:.1f}), and "
                    f"changed so in its place (score {self._absorber_score(place):.2f}); {numbers}; "
                    f"q = {contradiction_q}"
                )
            case "changed_otherwise":
                return f"{said}, but {self._instead(place)}; {numbers}; q = {contradiction_q}"
            case "low_power":
                return (
                    f"no power: if right it would be seen with chance {found.power[place]:.2f}, if without effect with "
                    f"chance {found.contradiction_power[place]:.2f}; {numbers}; p = {found.pvalue[place]:.2g}"
                )
            case _:
                return f"{said}; neither clearly so (q = {q}) nor clearly not (q = {contradiction_q}); {numbers}"

    def _prediction(self, place: int) -> str:
        """Say what the explanation predicts."""
        effects = self.effects[:, place]
        rises = [name for name, effect in zip(self.behaviors, effects, strict=True) if effect > 0]
        falls = [name for name, effect in zip(self.behaviors, effects, strict=True) if effect < 0]
        parts = [f"{word} with {', '.join(names)}" for word, names in (("a rise", rises), ("a fall", falls)) if names]
        return f"it predicts {' and '.join(parts)}"

    def _instead(self, place: int) -> str:
        """Describe what the latent did instead of what was predicted."""
        surprising = np.flatnonzero((self.changes[:, place] > MUCH) & (self.effects[:, place] <= 0))
        if len(surprising):
            named = ", ".join(self.behaviors[i] for i in surprising)
            return f"its latent changed with {named}, of which it predicts none"
        return "its latent did not change so"


def verdicts_of(plan: Plan, reading: Reading, changes: Changes) -> pd.DataFrame:
    """Return a reading's explanations with verdicts: those in the universe with their numbers, the others with why not.

    Parameters
    ----------
    plan : Plan
    reading : Reading
    changes : mapping of (str, str) to (n_seeds, d_sae) float
        Changes of the primary adapter.

    Returns
    -------
    DataFrame
        The columns of explanation_verdicts.csv but those that name the reading.
    """
    profiles = _Profiles.of(plan, reading, changes)
    places = {latent: place for place, latent in enumerate(reading.latents.tolist())}
    rate = reading.explained.facts.set_index("latent_index").firing_rate
    explanations = reading.explained.explanations
    rows = []
    for latent, explanation in zip(explanations["latent_index"], explanations["explanation"], strict=True):
        row = {
            "latent_index": latent,
            "explanation": explanation,
            "n_behaviors": len(profiles.behaviors) if profiles else 0,
        }
        if rate[latent] < plan.study.agreement.min_firing_rate:
            verdict = "untestable", f"its latent fires on {rate[latent]:.2g} of the reference corpus, too rarely"
        elif latent not in places:
            verdict = "untestable", "it was not judged for every behavior, or its latent is not in the sample"
        elif profiles is None:
            verdict = "untestable", "fewer than two behaviors changed any latent"
        else:
            verdict = profiles.verdict(places[latent])
            row |= profiles.match.of(places[latent])
        rows.append(row | dict(zip(("verdict", "reason"), verdict, strict=True)))
    return pd.DataFrame(rows, columns=[name for name in TABLE.column_names if name not in reading.names])


TABLE = ResultTable(
    name="explanation_verdicts",
    order=310,
    caption="One row per explanation: whether its predictions over behaviors held, and why.",
    columns=(
        SUBJECT,
        SOURCE,
        JUDGE,
        LATENT_INDEX,
        EXPLANATION,
        Column("n_behaviors", "int", "Behaviors that the explanation was tested on."),
        Column(
            "score",
            "float",
            "Moderated t of the latent's changes over predicted effects: behaviors that the explanation names against "
            "those it does not (by chance: 0).",
            optional=True,
        ),
        Column(
            "pvalue",
            "float",
            "Probability of so high a score if the predicted behaviors had no effect.",
            optional=True,
        ),
        Column(
            "qvalue",
            "float",
            "The same, adjusted over the explanations of this source (Benjamini-Hochberg).",
            optional=True,
        ),
        Column(
            "expected_score",
            "float",
            "Score that the explanation would have at the average effect of this source's explanations.",
            optional=True,
        ),
        Column(
            "power",
            "float",
            "Probability that a right explanation with this prediction reaches p < 0.05.",
            optional=True,
        ),
        Column(
            "contradiction_pvalue",
            "float",
            "Probability of so low a score with the least effect that right explanations have, at most half the "
            "average.",
            optional=True,
        ),
        Column(
            "contradiction_qvalue",
            "float",
            "The same, adjusted over the explanations of this source (Benjamini-Hochberg).",
            optional=True,
        ),
        Column(
            "contradiction_power",
            "float",
            "Probability that an explanation without effect reaches a contradiction p < 0.05.",
            optional=True,
        ),
        Column(
            "verdict",
            "text",
            "What the behaviors together say: supported, contradicted, absorbed (another latent, which can "
            "have absorbed this one, changed instead), untestable or inconclusive.",
        ),
        Column("reason", "text", "Why the verdict was given."),
    ),
    when=lambda plan: len(plan.tested_behaviors) > 1,
    condition="studies of several behaviors",
    make=explanation_verdicts,
)
