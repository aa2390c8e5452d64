"""The rows of explanation_verdicts.csv: what all behaviors together say of each explanation, and why.

At the primary adapter and measure. Order matters: an explanation that would be contradicted is first checked for
absorption, and only what could have been seen is called inconclusive rather than untestable.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from isaerft import config
from isaerft.analysis.inputs import (
    Confounds,
    Expectation,
    alive_latents,
    confounds_of,
    judges_of,
    read_changes,
    read_expectation,
    sources_of,
)
from isaerft.explanations import read_explanations, read_sample, sample_path
from isaerft.layout import SubjectFolder
from isaerft.registry import MEASURES
from isaerft.stats import ProfileMatch, match_profiles, mean_rank, score_elsewhere
from isaerft.table import TABLES

LEVEL = 0.05
MIN_POWER = 0.5
MUCH = 0.95
"""A mean rank above this, over latents and within a behavior, is called a large change."""
NEAR = 0.5
"""Least decoder cosine of a neighbour that can have absorbed a latent."""
ASYMMETRIC = 0.25
"""Share of the living latents, those with the lowest encoder-decoder cosine, that can have been absorbed."""
NUMBERS = ("score", "pvalue", "qvalue", "expected_score", "power", "contradiction_pvalue", "contradiction_qvalue")


@dataclass(frozen=True)
class Tested:
    """Explanations of one source, as one judge reads them, with what all behaviors say of them.

    Attributes
    ----------
    behaviors : tuple of str
        Those whose training changed some latents.
    effects, changes : (n_behaviors, n) float
        Predicted effects; mean ranks of the changes over seeds.
    facts : DataFrame
        Facts of the subject's latents, by latent_index.
    least_aligned : float
        Encoder-decoder cosine below which a latent counts as asymmetric.
    """

    behaviors: tuple[str, ...]
    latents: np.ndarray
    effects: np.ndarray
    changes: np.ndarray
    confounds: Confounds
    match: ProfileMatch
    facts: pd.DataFrame
    least_aligned: float

    def verdict(self, place: int) -> tuple[str, str]:
        """Return the verdict on the explanation at `place` and the reason in words."""
        match, effects = self.match, self.effects[:, place]
        if np.isnan(match.score[place]):
            if np.ptp(effects) == 0:
                what = "nothing" if not effects.any() else "the same"
                return "untestable", f"it predicts {what} for each of the {len(self.behaviors)} behaviors"
            return "untestable", "too few latents alike in firing rate, decoder norm and density to compare it with"
        numbers = f"score {match.score[place]:.2f}, {match.expected_score[place]:.2f} at the average effect"
        if match.qvalue[place] < LEVEL:
            numbers = f"{numbers}; q = {_p(match.qvalue[place])}"
            return "supported", f"{self._named(effects)} and its latent changed so; {numbers}"
        if match.effect <= 0:
            return "inconclusive", f"the explanations of this source together predict no change here; {numbers}"
        if match.contradiction_qvalue[place] < LEVEL:
            numbers = f"{numbers}; q = {_p(match.contradiction_qvalue[place])}"
            absorbed = self._absorbed(place)
            if absorbed:
                return "absorbed", f"{self._named(effects)}; {absorbed}; {numbers}"
            return "contradicted", f"{self._named(effects)}, but {self._instead(place)}; {numbers}"
        if match.power[place] < MIN_POWER:
            return "untestable", (
                f"no power: if right it would be seen with chance {match.power[place]:.2f}; {numbers}; "
                f"p = {_p(match.pvalue[place])}"
            )
        return "inconclusive", (
            f"{self._named(effects)}; neither clearly so (q = {_p(match.qvalue[place])}) nor clearly not "
            f"(q = {_p(match.contradiction_qvalue[place])}); {numbers}"
        )

    def _named(self, effects: np.ndarray) -> str:
        """Say what the profile of effects (n_behaviors,) predicts."""
        rises = [name for name, effect in zip(self.behaviors, effects, strict=True) if effect > 0]
        falls = [name for name, effect in zip(self.behaviors, effects, strict=True) if effect < 0]
        parts = [f"{word} with {', '.join(names)}" for word, names in (("a rise", rises), ("a fall", falls)) if names]
        return f"it predicts {' and '.join(parts)}"

    def _instead(self, place: int) -> str:
        """Say what the latent did in place of what was predicted."""
        surprising = np.flatnonzero((self.changes[:, place] > MUCH) & (self.effects[:, place] <= 0))
        if len(surprising):
            named = ", ".join(self.behaviors[i] for i in surprising)
            return f"its latent changed with {named}, of which it predicts none"
        return "its latent did not change so"

    def _absorbed(self, place: int) -> str:
        """Name the neighbour that changed in the latent's place; empty where none did."""
        own = self.facts.loc[self.latents[place]]
        found = np.flatnonzero(self.latents == own.nearest_latent)
        if own.encoder_decoder_cosine > self.least_aligned or own.nearest_cosine < NEAR or not len(found):
            return ""
        score = score_elsewhere(
            self.changes,
            self.effects,
            place,
            int(found[0]),
            **self.confounds.null(),
        )
        if not score >= self.match.critical:
            return ""
        return (
            f"its encoder and decoder differ (cosine {own.encoder_decoder_cosine:.2f}) and its neighbour "
            f"{int(own.nearest_latent)} (decoder cosine {own.nearest_cosine:.2f}) changed so in its place "
            f"(score {score:.2f})"
        )


def explanation_verdicts(plan: config.Plan, results: Path) -> pd.DataFrame:
    """Return one row for each explanation and judge, at the primary adapter and measure."""
    parts = []
    for subject in plan.study.subjects:
        facts = SubjectFolder(results / "subjects" / subject).read_latents()
        changes = read_changes(plan, results / "changes", subject, plan.study.primary.adapter)
        alive = alive_latents(plan, facts)
        for source in sources_of(plan, subject):
            drawn = sample_path(plan, results, subject, source)
            sample = None if drawn is None else read_sample(drawn)
            asked = alive if sample is None else sample.latent_index.to_numpy()
            said = read_explanations(results / "explanations" / subject / f"{source}.parquet")
            for judge in judges_of(plan, source, tested=True):
                path = results / "judgements" / subject / source / f"{judge}.parquet"
                expectation = read_expectation(plan, path, asked)
                confounds = confounds_of(plan, facts, expectation.latents, sample)
                tested = _tested(plan, expectation, confounds, changes, facts, alive)
                rows = _rows(plan, said, tested, expectation.latents, facts)
                parts.append(rows.assign(subject=subject, source=source, judge=judge))
    return pd.concat(parts, ignore_index=True)[[column.name for column in TABLES["explanation_verdicts"]]]


def _tested(
    plan: config.Plan,
    expectation: Expectation,
    confounds: Confounds,
    changes: dict[tuple[str, str], np.ndarray],
    facts: pd.DataFrame,
    alive: np.ndarray,
) -> Tested | None:
    """Return the match of all explanations with the changes; None with fewer than two behaviors that changed any."""
    measure = plan.study.primary.measure
    ranks = np.array([mean_rank(changes[name, measure][:, expectation.latents]) for name in plan.tested_behaviors])
    moved = np.ptp(ranks, axis=1) > 0
    if moved.sum() < 2:
        return None
    effects = expectation.effect if MEASURES.facts(measure).directed else np.abs(expectation.effect)
    behaviors = tuple(name for name, did in zip(plan.tested_behaviors, moved, strict=True) if did)
    match = match_profiles(ranks[moved], effects[moved], **confounds.null())
    by_latent = facts.set_index("latent_index")
    least = float(by_latent.loc[alive, "encoder_decoder_cosine"].quantile(ASYMMETRIC))
    return Tested(behaviors, expectation.latents, effects[moved], ranks[moved], confounds, match, by_latent, least)


def _rows(
    plan: config.Plan, said: pd.DataFrame, tested: Tested | None, latents: np.ndarray, facts: pd.DataFrame
) -> pd.DataFrame:
    """Return a row for each explanation: those in the universe with their numbers, the others with why not."""
    places = dict(zip(latents.tolist(), range(len(latents)), strict=True))
    rate = facts.set_index("latent_index").firing_rate
    rows = []
    for latent, explanation in zip(said["latent_index"], said["explanation"], strict=True):
        row = {
            "latent_index": latent,
            "explanation": explanation,
            "n_behaviors": len(tested.behaviors) if tested else 0,
        }
        if rate[latent] < plan.study.agreement.min_firing_rate:
            verdict = "untestable", f"its latent fires on {rate[latent]:.2g} of the reference corpus, too rarely"
        elif latent not in places:
            verdict = "untestable", "it was not judged for every behavior, or its latent is not in the sample"
        elif tested is None:
            verdict = "untestable", "fewer than two behaviors changed any latent"
        else:
            place = places[latent]
            verdict = tested.verdict(place)
            row |= {name: getattr(tested.match, name)[place] for name in NUMBERS}
        rows.append(row | dict(zip(("verdict", "reason"), verdict, strict=True)))
    return pd.DataFrame(rows, columns=["latent_index", "explanation", "n_behaviors", *NUMBERS, "verdict", "reason"])


def _p(value: float) -> str:
    return f"{value:.2g}"
