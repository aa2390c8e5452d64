"""The explanations of a subject as each judge reads each source.

>>> for reading in readings(plan, results, "toy"):   # doctest: +SKIP
...     agreement_test(change[reading.latents], reading.expectation.expected[0], **reading.confounds.null())

The universe of latents is fixed by explanations and judges alone, before any change is seen.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from isaerft import stats
from isaerft.config import Plan
from isaerft.errors import InputError, shown
from isaerft.io import parquet_parts
from isaerft.layout import Results
from isaerft.stats.checks import NullOptions

Changes = Mapping[tuple[str, str], np.ndarray]
"""(behavior, measure) -> changes, (n_seeds, d_sae) float."""

LATENTS_PER_TEXT = 4
"""Latents that must share an explanation on average before texts are exchanged."""


@dataclass(frozen=True)
class Expectation:
    """What a judge expects of the latents, by the explanations of one source.

    Attributes
    ----------
    latents : (n,) int64
        The universe, ascending: alive on the reference corpus, explained and judged for every behavior.
    expected : (n_behaviors, n) bool
    effect : (n_behaviors, n) float
        In [-1, 1].
    """

    latents: np.ndarray
    expected: np.ndarray
    effect: np.ndarray

    def on(self, latents: np.ndarray) -> Expectation:
        """Return the expectation of `latents` alone, (m,) int64, all of which are in the universe."""
        places = np.searchsorted(self.latents, latents)
        return Expectation(latents, self.expected[:, places], self.effect[:, places])


@dataclass(frozen=True)
class Confounds:
    """Confounds of each latent in a universe: what other than the explanation could make it change.

    Attributes
    ----------
    strata, clusters : (n,) int64
        Clusters of near-duplicates.
    texts : (n,) int64
        Code of each latent's explanation text.
    firing_rate, decoder_norm, density : (n,) float
    """

    strata: np.ndarray
    clusters: np.ndarray
    texts: np.ndarray
    firing_rate: np.ndarray
    decoder_norm: np.ndarray
    density: np.ndarray

    def null(self) -> NullOptions:
        """Return the arguments `strata`, `clusters` and `confounds` of tests that compare trainings."""
        confounds = np.array([self.firing_rate, self.decoder_norm, self.density])
        return NullOptions(strata=self.strata, clusters=self.clusters, confounds=confounds)

    @property
    def shares_texts(self) -> bool:
        """Whether texts stand for concepts: on average at least `LATENTS_PER_TEXT` latents share one.

        Latents of one concept move together. Where few share one, an exchange of texts takes them for
        independent, and rejects true nulls three to four times too often.
        """
        return len(self.texts) >= LATENTS_PER_TEXT * len(np.unique(self.texts))

    def null_of_texts(self) -> NullOptions:
        """Return the same for tests that exchange labels: between texts, near-duplicates with them."""
        return NullOptions({**self.null(), "clusters": stats.joined(self.texts, self.clusters)})

    def at(self, places: np.ndarray) -> Confounds:
        """Return the same of the latents at `places` of the universe, (m,) int64."""
        return Confounds(*(getattr(self, part.name)[places] for part in fields(self)))


@dataclass(frozen=True)
class ExplainedLatents:
    """The latents of a subject as one source explains them.

    Attributes
    ----------
    facts : DataFrame
        Facts of the subject's latents, one row each.
    """

    plan: Plan
    results: Results
    subject: str
    source: str
    facts: pd.DataFrame

    @cached_property
    def sample(self) -> pd.DataFrame | None:
        """The case-control sample that the source was asked for; None where it was asked for all latents alive."""
        from isaerft.explanations import read_sample

        return read_sample(self.results.design(self.subject)) if self.plan.is_sampled(self.source) else None

    @cached_property
    def asked(self) -> np.ndarray:
        """The latents that the source was asked for, (n,) int64, ascending."""
        return alive_latents(self.plan, self.facts) if self.sample is None else self.sample.latent_index.to_numpy()

    @cached_property
    def explanations(self) -> pd.DataFrame:
        """The source's explanations, one row per explained latent."""
        from isaerft.explanations import read_explanations

        return read_explanations(self.results.explanations(self.subject, self.source))

    def judgements(self, judge: str) -> pd.DataFrame:
        """Return what a judge expects, one row per latent and behavior."""
        from isaerft.judges import read_judgements

        return read_judgements(self.results.judgements(self.subject, self.source, judge))


@dataclass(frozen=True)
class Reading:
    """One source's explanations of a subject as one judge reads them.

    Attributes
    ----------
    behaviors : tuple of str
        Those that something is expected of, in the order of the expectation's rows.
    """

    explained: ExplainedLatents
    judge: str
    behaviors: tuple[str, ...]

    @property
    def source(self) -> str:
        """Name of the source."""
        return self.explained.source

    @property
    def names(self) -> dict[str, str]:
        """The columns that identify a reading."""
        return {"subject": self.explained.subject, "source": self.source, "judge": self.judge}

    @cached_property
    def expectation(self) -> Expectation:
        """What the judge expects of each latent of the universe."""
        explained = self.explained
        path = explained.results.judgements(explained.subject, self.source, self.judge)
        return expectation_of(explained.judgements(self.judge), explained.asked, self.behaviors, path)

    @property
    def latents(self) -> np.ndarray:
        """The universe, (n,) int64."""
        return self.expectation.latents

    @cached_property
    def confounds(self) -> Confounds:
        """What else could make a latent of the universe change."""
        explained = self.explained
        written = explained.explanations.set_index("latent_index")["explanation"].loc[self.latents]
        texts = np.unique(written.to_numpy(str), return_inverse=True)[1].astype(np.int64)
        return confounds_of(explained.plan, explained.facts, self.latents, texts, explained.sample)

    @cached_property
    def explanation_length(self) -> np.ndarray:
        """Characters of each explanation of the universe, (n,) int64."""
        lengths = self.explained.explanations.set_index("latent_index")["explanation"].str.len()
        return lengths.loc[self.latents].to_numpy(np.int64)

    @property
    def left_out(self) -> dict[str, int]:
        """How many latents of the subject are not in the universe, and why."""
        n_alive = len(alive_latents(self.explained.plan, self.explained.facts))
        n_asked = len(self.explained.asked)
        return {
            "dead": len(self.explained.facts) - n_alive,
            "not sampled": n_alive - n_asked,
            "unexplained or unjudged": n_asked - len(self.latents),
        }


def explained_latents(
    plan: Plan, results: Results, subject: str, sources: Sequence[str] | None = None
) -> Iterator[ExplainedLatents]:
    """Yield a subject's latents as each source explains them: every source of the subject, or those named."""
    facts = results.subject(subject).read_latents()
    for source in plan.sources_of(subject) if sources is None else sources:
        yield ExplainedLatents(plan, results, subject, source, facts)


def readings(
    plan: Plan,
    results: Results,
    subject: str,
    *,
    sources: Sequence[str] | None = None,
    behaviors: Sequence[str] | None = None,
) -> Iterator[Reading]:
    """Yield every reading of a subject's explanations by which agreement is tested.

    Parameters
    ----------
    sources : sequence of str, optional
        Sources to read; by default every one that explains the subject.
    behaviors : sequence of str, optional
        By default those that the study tests.
    """
    names = tuple(plan.tested_behaviors if behaviors is None else behaviors)
    for explained in explained_latents(plan, results, subject, sources):
        for judge in plan.judges_of(explained.source, subject, tested=True):
            yield Reading(explained, judge, names)


def primary_reading(plan: Plan, results: Results, subject: str) -> Reading | None:
    """Return the reading of the study's primary result; None where its source does not explain the subject."""
    primary = plan.study.primary
    if primary.source not in plan.sources_of(subject):
        return None
    explained = next(explained_latents(plan, results, subject, [primary.source]))
    return Reading(explained, primary.judge, tuple(plan.tested_behaviors))


def alive_latents(plan: Plan, facts: pd.DataFrame) -> np.ndarray:
    """Return the latents that fire often enough on the reference corpus, (n,) int64."""
    return facts.loc[facts.firing_rate >= plan.study.agreement.min_firing_rate, "latent_index"].to_numpy()


def expectation_of(
    judgements: pd.DataFrame, asked: np.ndarray, behaviors: Sequence[str], path: str | Path
) -> Expectation:
    """Lay a judge's table out for the latents that were asked for, behavior by behavior.

    A latent that was not judged for every behavior (a language model failed on it, people left it out) is not in the
    universe. `path` is where the table lies, for errors.

    Raises
    ------
    InputError
        No latent is left, or a behavior was not judged.
    """
    table = judgements[judgements.latent_index.isin(asked)]
    if table.empty:
        raise InputError(f"{path} judges no latent that is alive on the reference corpus")
    lacking = sorted(set(behaviors) - set(table.behavior))
    if lacking:
        raise InputError(f"{path} judges no latent for {shown(lacking)}", remedy="run `isaerft judge` again")
    wide = table.pivot(index="behavior", columns="latent_index", values=["expected", "expected_effect"])
    wide = wide.reindex(list(behaviors))
    complete = wide["expected_effect"].notna().all()
    latents = complete.index[complete].to_numpy(np.int64)
    if not len(latents):
        raise InputError(
            f"{path} judges no latent for every behavior",
            remedy="judge more, or set `tested: false` for this judge: it is then only compared with the others",
        )
    wide = wide.loc[:, wide.columns.get_level_values(1).isin(latents)]
    return Expectation(latents, wide["expected"].to_numpy(bool), wide["expected_effect"].to_numpy(float))


def confounds_of(
    plan: Plan,
    facts: pd.DataFrame,
    latents: np.ndarray,
    texts: np.ndarray | None = None,
    sample: pd.DataFrame | None = None,
) -> Confounds:
    """Return firing rate, decoder norm and density with strata of them, and clusters of near-duplicates.

    Without `texts` (codes of explanation texts, (n,) int64) every latent has its own.

    A sample keeps the strata that it was drawn within: new bins would join latents that are not exchangeable.
    """
    own = facts.set_index("latent_index").loc[latents]
    clusters = own.cluster.to_numpy()
    values = (own.firing_rate.to_numpy(), own.decoder_norm.to_numpy(), own.density.to_numpy())
    if sample is not None:
        strata = sample.set_index("latent_index").stratum.loc[latents].to_numpy()
    else:
        strata = stats.strata_of(*values, n_bins=plan.study.agreement.n_bins, clusters=clusters)
    return Confounds(strata, clusters, np.arange(len(latents)) if texts is None else texts, *values)


def read_changes(
    plan: Plan,
    results: Results,
    subject: str,
    adapter: str,
    behaviors: Sequence[str] | None = None,
    *,
    latents: np.ndarray | None = None,
) -> Changes:
    """Return the changes of one adapter, (behavior, measure) -> (n_seeds, d_sae).

    Parameters
    ----------
    behaviors : sequence of str, optional
        By default those that are tested.
    latents : (m,) int64, optional
        With these the arrays are (n_seeds, m), of these latents in this order.

    Raises
    ------
    InputError
        A change is missing or not finite.
    """
    result = {}
    for behavior in plan.tested_behaviors if behaviors is None else behaviors:
        path = results.changes(subject, behavior)
        for measure, wide in by_latent(path, ["seed"], latents, adapter=adapter).items():
            if not np.isfinite(wide).all():
                raise InputError(f"{path}: {measure} of adapter {adapter!r} holds changes that are not finite")
            result[behavior, measure] = wide
    return result


def by_latent(
    path: Path, keys: Sequence[str], latents: np.ndarray | None = None, **equal: str
) -> dict[str, np.ndarray]:
    """Return the changes in a table by measure, each (n_combinations of keys, n_latents) float64, keys ascending.

    `latents` (m,) int64 are the latents wanted, in their order; by default all that the table has, ascending. What the
    table lacks is NaN. It is read in parts, so memory follows what is returned. `equal` selects rows by their columns.
    """
    if latents is None:
        found = [part.latent_index.unique() for part in parquet_parts(path, ["latent_index"], **equal)]
        latents = np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)
    column = np.full(int(latents.max(initial=0)) + 1, -1)
    column[latents] = np.arange(len(latents))
    wide: dict[tuple[Hashable, ...], np.ndarray] = {}
    for part in parquet_parts(path, ["measure", *keys, "latent_index", "change"], **equal):
        for name, rows in part.groupby(["measure", *keys]):
            index = rows.latent_index.to_numpy()
            kept = index < len(column)
            kept[kept] = column[index[kept]] >= 0
            values = wide.setdefault(name, np.full(len(latents), np.nan))
            place = column[index[kept]]
            if len(np.unique(place)) < len(place) or not np.isnan(values[place]).all():
                raise InputError(f"{path} lists a change of one latent twice", remedy="remove it, and make it again")
            values[place] = rows.change.to_numpy(float)[kept]
    measures = dict.fromkeys(name[0] for name in sorted(wide))
    return {str(measure): np.array([wide[name] for name in sorted(wide) if name[0] == measure]) for measure in measures}
