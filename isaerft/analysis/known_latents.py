"""What a study knows of each latent beside its tables: the page of single latents shows it.

Changes are those of the primary adapter and measure, which the verdicts are about.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from isaerft import stats
from isaerft.analysis.placebos import read_placebos
from isaerft.analysis.readings import alive_latents, by_latent
from isaerft.config import Plan
from isaerft.errors import InputError
from isaerft.io import read_parquet, read_text
from isaerft.layout import Results, SubjectFolder

MIDDLE = (0.05, 0.95)
"""Quantiles over placebo trainings between which a change is nothing special."""


@dataclass(frozen=True)
class Prediction:
    """What one judge expects from one source's explanations.

    Attributes
    ----------
    effect : (n_behaviors, d_sae) float
        In [-1, 1]; NaN where nothing was judged.
    expected : (n_behaviors, d_sae) bool
    rationale : mapping of (latent, place of the behavior) to str
        The judge's reasons for what it expects.
    """

    source: str
    judge: str
    effect: np.ndarray
    expected: np.ndarray
    rationale: Mapping[tuple[int, int], str]


@dataclass(frozen=True)
class Placebos:
    """How far training moves a latent where it teaches no behavior.

    Attributes
    ----------
    n : int
        Number of placebo trainings.
    change, rank : (2, d_sae) float
        Quantiles `MIDDLE` over placebos of the mean over seeds.
    """

    n: int
    change: np.ndarray
    rank: np.ndarray


@dataclass(frozen=True)
class KnownLatents:
    """What is known of the latents of one subject.

    Attributes
    ----------
    subject : str
    behaviors : tuple of str
        Those that are tested.
    facts : DataFrame
        Facts of the latents; row i is latent i.
    explanations : mapping of str to DataFrame
        Source -> latent_index, explanation, side, url and, where it is known, maker.
    predictions : tuple of Prediction
        Every source as every judge reads it; the one that tables of single latents show comes first.
    change, rank : (n_behaviors, n_seeds, d_sae) float
        The change of each latent, and its rank among the living latents, from 0 to 1; NaN for others.
    placebos : Placebos or None
    contexts : DataFrame
        latent_index, rank, tokens, activations: the contexts in which it fires most.
    promoted : DataFrame
        latent_index, side (output or amplified), rank, token, value.
    neighbors : DataFrame
        latent_index, rank, neighbor, cosine.
    answers : mapping of int to list of dict
        Latent -> answers under steering: strength, prompt, plain, amplified, suppressed.
    """

    subject: str
    behaviors: tuple[str, ...]
    facts: pd.DataFrame
    explanations: Mapping[str, pd.DataFrame]
    predictions: tuple[Prediction, ...]
    change: np.ndarray
    rank: np.ndarray
    placebos: Placebos | None
    contexts: pd.DataFrame
    promoted: pd.DataFrame
    neighbors: pd.DataFrame
    answers: Mapping[int, list[dict[str, Any]]]

    @property
    def latents(self) -> np.ndarray:
        """The latents of which there is something to say, (n,) int64: those that fire or have an explanation."""
        something = self.facts["firing_rate"].to_numpy() > 0
        for frame in self.explanations.values():
            something[frame["latent_index"].to_numpy()] = True
        return np.flatnonzero(something)


def known_latents(plan: Plan, results: Results, subject: str) -> KnownLatents:
    """Gather what the files of a study say of a subject's latents.

    Raises
    ------
    InputError
        A file is missing or broken.
    """
    from isaerft.explanations import read_explanations

    folder, sources = results.subject(subject), plan.sources_of(subject)
    facts = folder.read_latents().sort_values("latent_index", ignore_index=True)
    alive = alive_latents(plan, facts)
    first = plan.shown_reading(subject)
    pairs = [(source, judge) for source in sources for judge in plan.judges_of(source)]
    pairs.sort(key=lambda pair: pair != first)
    change = _changes(plan, results, subject, len(facts))
    return KnownLatents(
        subject=subject,
        behaviors=tuple(plan.tested_behaviors),
        facts=facts,
        explanations={
            source: read_explanations(results.explanations(subject, source), d_sae=len(facts)) for source in sources
        },
        predictions=tuple(_prediction(plan, results, subject, *pair, len(facts)) for pair in pairs),
        change=change,
        rank=np.array([_ranks(part, alive) for part in change]),
        placebos=_placebos(plan, results, subject, alive),
        contexts=_file(folder, folder.activations),
        promoted=_promoted(folder),
        neighbors=_file(folder, folder.neighbors),
        answers=_answers(results.steering_check(subject).answers) if subject in plan.steering_checked else {},
    )


def _file(folder: SubjectFolder, path: Path) -> pd.DataFrame:
    """Read a file that the rule `facts` makes, latent by latent."""
    missing = f"{path} does not exist"
    return read_parquet(path, missing=missing, remedy="run the rule `facts`").sort_values(["latent_index", "rank"])


def _promoted(folder: SubjectFolder) -> pd.DataFrame:
    """Return the promoted and amplified tokens of each latent."""
    from isaerft.explanations.contexts import read_contexts

    contexts = read_contexts(folder.contexts)
    return contexts.loc[contexts["side"].isin(["output", "amplified"]), ["latent_index", "side", "token", "value"]]


def _prediction(plan: Plan, results: Results, subject: str, source: str, judge: str, d_sae: int) -> Prediction:
    from isaerft.judges import read_judgements

    path = results.judgements(subject, source, judge)
    table = read_judgements(path)
    place_of = {name: place for place, name in enumerate(plan.tested_behaviors)}
    table = table[table["behavior"].isin(place_of)]
    place, latent = table["behavior"].map(place_of).to_numpy(np.int64), table["latent_index"].to_numpy()
    if len(latent) and (latent.min() < 0 or latent.max() >= d_sae):
        raise InputError(f"{path} judges a latent that subject {subject!r} does not have")
    effect, expected = np.full((len(place_of), d_sae), np.nan), np.zeros((len(place_of), d_sae), dtype=bool)
    effect[place, latent], expected[place, latent] = table["expected_effect"], table["expected"]
    said = table["expected"].to_numpy() & (table["rationale"] != "").to_numpy()
    keys = zip(latent[said].tolist(), place[said].tolist(), strict=True)
    return Prediction(source, judge, effect, expected, dict(zip(keys, table["rationale"][said], strict=True)))


def _changes(plan: Plan, results: Results, subject: str, d_sae: int) -> np.ndarray:
    """Return the changes by the primary adapter and measure, (n_behaviors, n_seeds, d_sae)."""
    primary, parts = plan.study.primary, []
    for behavior in plan.tested_behaviors:
        path = results.changes(subject, behavior)
        found = by_latent(path, ["seed"], np.arange(d_sae), adapter=primary.adapter, measure=primary.measure)
        parts.append(found.get(primary.measure, np.empty((0, d_sae))))
        if not len(parts[-1]) or not np.isfinite(parts[-1]).all():
            raise InputError(
                f"{path} lacks changes by adapter {primary.adapter!r} and measure {primary.measure!r}",
                remedy="run the rule `changes`",
            )
    return np.array(parts)


def _ranks(change: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """Return the ranks of changes (n_seeds, d_sae) among living latents, from 0 to 1; NaN for others."""
    ranks = np.full(change.shape, np.nan)
    if len(alive):
        ranks[:, alive] = stats.scaled_ranks(change[:, alive])
    return ranks


def _placebos(plan: Plan, results: Results, subject: str, alive: np.ndarray) -> Placebos | None:
    found = read_placebos(plan, results, subject).get(plan.study.primary.measure)
    if found is None:
        return None
    change, rank = found.mean(1), np.array([_ranks(part, alive).mean(0) for part in found])
    return Placebos(len(found), np.quantile(change, MIDDLE, axis=0), np.quantile(rank, MIDDLE, axis=0))


def _answers(path: Path) -> dict[int, list[dict[str, Any]]]:
    """Return the answers under steering, latent by latent."""
    found: dict[int, list[dict[str, Any]]] = {}
    # Not splitlines: a model's text may hold line separators that JSON leaves as they are.
    for line in filter(None, read_text(path).split("\n")):
        answer = json.loads(line)
        found.setdefault(int(answer.pop("latent_index")), []).append(answer)
    return found
