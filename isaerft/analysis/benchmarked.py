"""Explanations of which it is known whether they are wrong, with everything that scores them.

A source with a `key` is part of the benchmark. Its explanations are scored by training (the score of the verdict, once
per judge), by the study's scorers, and by their length, which must tell nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from isaerft import stats
from isaerft.analysis.readings import alive_latents
from isaerft.config import Plan
from isaerft.errors import InputError, shown
from isaerft.layout import Results

TRAINING, COMBINED, CONTROL = "training", "combined", "control"
LENGTH, SAID, GIVEN = "length", "said", "given"
BEST = "training and the best other"
RIGHT, EVERY = "right", "all"
TESTABLE = "testable"
AMONG = ("all", TESTABLE)
ARM = ["subject", "side", "share"]
"""What names one set of explanations: a world, a side, and a share of wrong ones."""
SCORE = ["scorer", "score"]
KEY_COLUMNS = ("latent_index", "side", "share", "kind", "said", "true")
GIVEN_COLUMNS = ("subject", "source", "side", "share", "latent_index", "value")


@dataclass(frozen=True)
class Benchmark:
    """The explanations of a benchmark, and the scores of them.

    Attributes
    ----------
    explanations : DataFrame
        subject, source, side, share, latent_index, explanation, kind ("right" or a kind of wrong), said, true,
        testable (whether the verdict by training, as `judge` reads it, has a score).
    scores : DataFrame
        subject, side, share, latent_index, scorer, score, value; larger is better, to 6 digits, as tables have it.
    judge : str
        Judge by whose verdicts training is compared with other scorers.
    seconds : DataFrame
        subject, side, share, scorer, score, seconds; empty where none were recorded.
    """

    explanations: pd.DataFrame
    scores: pd.DataFrame
    judge: str
    seconds: pd.DataFrame

    def scored_by(self, values: pd.DataFrame, name: str) -> Benchmark:
        """Return the benchmark with one more scorer.

        Parameters
        ----------
        values : DataFrame
            subject, side, share, latent_index, value, as `given_scores` returns them.
        name : str
            What the scorer is called.

        Raises
        ------
        InputError
            A scorer has that name.
        """
        taken = {*self.scores["scorer"], TRAINING, COMBINED, CONTROL}
        if name in taken:
            raise InputError(f"a scorer is called {name!r}", remedy="choose another name with --name")
        values = values.assign(scorer=name, score=GIVEN, value=_rounded(values["value"]))
        return replace(self, scores=pd.concat([self.scores, values[list(self.scores)]], ignore_index=True))

    def worlds(self) -> pd.DataFrame:
        """Return the AUROC of every score in every world: the rows of benchmark_worlds.csv."""
        arms = {names: _Arm.of(self, names, part) for names, part in self.explanations.groupby(ARM, sort=False)}
        base = [
            row
            for names, arm in arms.items()
            for (key, values), among in product(arm.values.items(), AMONG)
            for row in arm.rows(names, key, values, among)
        ]
        found = pd.DataFrame(base)
        reference = (TRAINING, self.judge)
        for (names, arm), among in product(arms.items(), AMONG):
            best = _best_elsewhere(found, names, among)
            if best is None or best not in arm.values or reference not in arm.values:
                continue
            together = stats.mean_of_ranks([arm.values[reference], arm.values[best]])
            rows = arm.rows(names, (COMBINED, BEST), together, among)
            base += [row | {"combined_with": ", ".join(best)} for row in rows]
        table = pd.DataFrame(base)
        return table.merge(self.seconds, "left", on=[*ARM, *SCORE]) if len(self.seconds) else table


@dataclass(frozen=True)
class _Arm:
    """One set of explanations in one world, and its scores by (scorer, score), (n,) float each."""

    kinds: np.ndarray
    testable: np.ndarray
    values: dict[tuple[str, str], np.ndarray]

    @classmethod
    def of(cls, benchmark: Benchmark, names: tuple[object, ...], part: pd.DataFrame) -> _Arm:
        own = benchmark.scores[(benchmark.scores[ARM] == list(names)).all(axis=1)]
        values = {
            key: rows.set_index("latent_index")["value"].reindex(part["latent_index"]).to_numpy(float)
            for key, rows in own.groupby(SCORE, sort=False)
        }
        return cls(part["kind"].to_numpy(str), part["testable"].to_numpy(bool), values)

    def rows(
        self, names: tuple[object, ...], key: tuple[str, str], values: np.ndarray, among: str
    ) -> Iterator[dict[str, object]]:
        """Yield the rows of benchmark_worlds.csv for one score, among all or among testable explanations."""
        right = self.kinds == RIGHT
        chosen = self.testable if among == TESTABLE else np.ones(len(right), bool)
        for kind in (EVERY, *sorted(set(self.kinds[~right]))):
            wrong = ~right if kind == EVERY else self.kinds == kind
            used = chosen & (right | wrong)
            value = stats.auroc_of_wrong(values[used], wrong[used])
            if np.isnan(value):
                continue
            yield dict(zip([*ARM, *SCORE], (*names, *key), strict=True)) | {
                "kind": kind,
                "among": among,
                "n_wrong": int((used & wrong).sum()),
                "n_right": int((used & right).sum()),
                "n_scored": int(np.isfinite(values[used]).sum()),
                "auroc": value,
            }


def _best_elsewhere(found: pd.DataFrame, names: tuple[object, ...], among: str) -> tuple[str, str] | None:
    """Return the score, but training and controls, with the highest mean AUROC in the other worlds; None without any.

    The world itself has no say, so that its combined AUROC is not of a score that was chosen on it. The score is the
    best for what is asked: among all explanations, or among testable ones.
    """
    subject, side, share = names
    rivals = found[(found["side"] == side) & (found["share"] == share) & (found["subject"] != subject)]
    rivals = rivals[
        ~rivals["scorer"].isin([TRAINING, CONTROL]) & (rivals["kind"] == EVERY) & (rivals["among"] == among)
    ]
    means = rivals.groupby(SCORE)["auroc"].mean()
    return None if means.empty else means.idxmax()


def benchmark_of(plan: Plan, results: Results, verdicts: pd.DataFrame, scores: pd.DataFrame) -> Benchmark:
    """Gather the benchmark of a study from the rows of explanation_verdicts.csv and explanation_scores.csv.

    Worlds without features are left out, as in replication.csv: training cannot find anything there.

    Raises
    ------
    InputError
        A key is missing, malformed or lacks an explained latent, or two sources are of one side and share.
    """
    judge, parts = reference_judge(plan), []
    for subject, options in plan.study.subjects.items():
        if options.testbed is not None and not options.testbed.features:
            continue
        alive = alive_latents(plan, results.subject(subject).read_latents())
        for source in plan.sources_of(subject):
            if source in plan.benchmark_sources:
                parts.append(_explained(plan, results, subject, source, alive))
    explanations = pd.concat(parts, ignore_index=True)
    sets = explanations[[*ARM, "source"]].drop_duplicates()
    if sets.duplicated(ARM).any():
        twice = sets[sets.duplicated(ARM, keep=False)]
        raise InputError(
            f"sources {', '.join(twice['source'].unique())} have keys of one side and share",
            allowed="one source with a key for each side and share of a subject",
        )
    every = [
        verdicts.assign(scorer=TRAINING, score=verdicts["judge"], value=verdicts["score"]),
        scores,
        explanations.assign(scorer=CONTROL, score=LENGTH, value=explanations["explanation"].str.len()),
        explanations.assign(scorer=CONTROL, score=SAID, value=_right_elsewhere(explanations)),
    ]
    names = ["subject", "source", "latent_index"]
    table = pd.concat([part[[*names, *SCORE, "value"]] for part in every], ignore_index=True)
    table = explanations[[*names, "side", "share"]].merge(table, on=names)
    table = table.assign(value=_rounded(table["value"].astype(float)))[[*ARM, "latent_index", *SCORE, "value"]]
    tested = table[(table["scorer"] == TRAINING) & (table["score"] == judge) & table["value"].notna()]
    tested = tested[[*ARM, "latent_index"]].assign(testable=True)
    explanations = explanations.merge(tested, "left", on=[*ARM, "latent_index"])
    explanations = explanations.assign(testable=explanations["testable"].notna())
    return Benchmark(explanations, table, judge, _seconds(plan, results, explanations, table))


def _right_elsewhere(explanations: pd.DataFrame) -> pd.Series:
    """Return how often explanations that name the same concepts are right in the other worlds; NaN where none are.

    It is all that can be known of an explanation without a look at its latent. A half-true one has the mean over both
    of its concepts.
    """
    named = explanations.assign(concept=explanations["said"].str.split("&"), right=explanations["kind"] == RIGHT)
    named = named.explode("concept").reset_index(names="place")
    across = named.groupby(["side", "share", "concept"])["right"]
    within = named.groupby([*ARM, "concept"])["right"]
    n = across.transform("size") - within.transform("size")
    rate = (across.transform("sum") - within.transform("sum")) / n.where(n > 0)
    return rate.groupby(named["place"]).mean().reindex(explanations.index)


def reference_judge(plan: Plan) -> str:
    """Return the judge by whose verdicts training is compared: the primary one if it reads the benchmark."""
    judges = plan.judges_of(plan.benchmark_sources[0], tested=True)
    return plan.study.primary.judge if plan.study.primary.judge in judges else judges[0]


def _explained(plan: Plan, results: Results, subject: str, source: str, alive: np.ndarray) -> pd.DataFrame:
    """Return the explanations of a source with its key, of the latents alive."""
    from isaerft.explanations import read_explanations

    options, folder = plan.study.sources[source], results.subject(subject).path
    path = Path(str(options.key).replace("{subject_dir}", str(folder)))
    key = read_key(path)
    key = key[(key["side"] == options.side) & np.isclose(key["share"], float(options.wrong_share or 0))]
    explained = read_explanations(results.explanations(subject, source))
    explained = explained[explained["latent_index"].isin(alive)][["latent_index", "explanation"]]
    missing = sorted(set(explained["latent_index"]) - set(key["latent_index"]))
    if missing:
        raise InputError(
            f"{path} says nothing of {len(missing)} latents that {source!r} explains: {shown(missing[:10])}",
            allowed=f"a row for each, of side {options.side} and share {options.wrong_share}",
        )
    found = explained.merge(key.drop(columns="share"), on="latent_index").sort_values("latent_index")
    return found.assign(subject=subject, source=source, share=options.wrong_share)


def read_key(path: Path) -> pd.DataFrame:
    """Read a benchmark's key; a missing or malformed one is an `InputError` with the place."""
    from isaerft.judges.file import as_numbers, check_names, read_columns

    table = read_columns(path, KEY_COLUMNS, needed=("latent_index", "side", "share", "kind"))
    table["latent_index"] = as_numbers(table["latent_index"], 0, 2**53, whole=True).astype("int64")
    table["share"] = as_numbers(table["share"], 0, 1).astype(float)
    check_names(table["side"], ("input", "output"))
    repeated = table.duplicated(["latent_index", "side", "share"])
    if repeated.any():
        raise InputError(
            f"{table.index[int(np.argmax(repeated))]} speaks of a latent again", remedy="keep one row each"
        )
    for name in ("kind", "said", "true"):
        table[name] = table[name].fillna("").astype(str) if name in table else ""
    return table[list(KEY_COLUMNS)].reset_index(drop=True)


def given_scores(benchmark: Benchmark, path: Path) -> pd.DataFrame:
    """Read somebody's scores of the benchmark's explanations.

    Parameters
    ----------
    benchmark : Benchmark
    path : Path
        A file with the columns subject, latent_index, value, and source, or side and share. It may leave out whole
        sides and shares, but no explanation of those that it scores.

    Returns
    -------
    DataFrame
        subject, side, share, latent_index, value.

    Raises
    ------
    InputError
        The file is malformed, names an unknown subject, source or latent, lacks or repeats an explanation, or holds a
        value that is no number, or the same value throughout.
    """
    from isaerft.judges.file import as_numbers, check_names, read_columns

    table, explanations = read_columns(path, GIVEN_COLUMNS), benchmark.explanations
    by_source = "source" in table
    lacking = [name for name in ("subject", "latent_index", "value") if name not in table]
    if lacking or not (by_source or {"side", "share"} <= set(table)):
        raise InputError(
            f"{path} has the columns {', '.join(table)}",
            allowed="subject, latent_index, value, and source or side, share",
        )
    check_names(table["subject"], explanations["subject"].unique())
    table["latent_index"] = as_numbers(table["latent_index"], 0, 2**53, whole=True).astype("int64")
    table["value"] = as_numbers(table["value"], -1e300, 1e300).astype(float)
    if by_source:
        check_names(table["source"], explanations["source"].unique())
        arms = explanations[["subject", "source", "side", "share"]].drop_duplicates()
        table = (
            table[["subject", "source", "latent_index", "value"]]
            .reset_index(names="place")
            .merge(arms, "left", on=["subject", "source"])
        )
    else:
        table["share"] = as_numbers(table["share"], 0, 1).astype(float)
        check_names(table["side"], explanations["side"].unique())
        table = table.reset_index(names="place")
    return _complete(table, explanations, path)


def _complete(table: pd.DataFrame, explanations: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return given scores if they cover the explanations of their sides and shares, each once."""
    keys = [*ARM, "latent_index"]
    places = table.set_index("place")
    repeated = places.duplicated(keys)
    if repeated.any():
        raise InputError(f"{repeated.index[int(np.argmax(repeated))]} scores an explanation again")
    known = places.merge(explanations[keys].assign(known=True), "left", on=keys)["known"].notna().to_numpy()
    if not known.all():
        first = places.iloc[int(np.argmin(known))]
        arm = ", ".join(str(first[name]) for name in ARM)
        raise InputError(
            f"{places.index[int(np.argmin(known))]}: {arm} has no explanation of latent {first['latent_index']}",
            allowed="explanations of the benchmark, which `isaerft benchmark --export` lists",
        )
    scored = places[["side", "share"]].drop_duplicates()
    wanted = explanations.merge(scored, on=["side", "share"])[keys]
    left = wanted.merge(places[[*keys, "value"]], "left", on=keys)
    missing = left[left["value"].isna()]
    if len(missing):
        first = missing.iloc[0]
        raise InputError(
            f"{path} lacks {len(missing):,} of {len(left):,} explanations, first {shown(first[keys].tolist())}",
            allowed="a value for each explanation of every world, for the sides and shares that it scores",
        )
    if left["value"].nunique() == 1:
        raise InputError(
            f"{path} gives every explanation the value {left['value'].iloc[0]:g}", allowed="values that differ"
        )
    return left


def _rounded(values: pd.Series) -> pd.Series:
    """Return values to the 6 digits of tables, so that AUROCs are the same from tables and from memory."""
    return values.map(lambda value: float(f"{value:.6g}"))


def _seconds(plan: Plan, results: Results, explanations: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Return the seconds of the jobs behind each score in each world, where the study records seconds.

    For training these are the primary adapter's trainings on all behaviors, the changes, and the judge's reading; a
    world's files are shared by its arms.
    """
    columns = [*ARM, *SCORE, "seconds"]
    if not plan.study.record_seconds:
        return pd.DataFrame(columns=columns)
    source_of = explanations[[*ARM, "source"]].drop_duplicates().set_index(ARM)["source"]
    rows = []
    for *arm, scorer, score in scores[[*ARM, *SCORE]].drop_duplicates().itertuples(index=False):
        subject, source = str(arm[0]), source_of[tuple(arm)]
        jobs: list[tuple[str, ...]] = [("score", subject, source, scorer)]
        if scorer in plan.study.scorers and plan.embeds_windows(scorer):
            jobs.append(("embed_windows", subject, scorer))
        if scorer == TRAINING:
            jobs = [("train", subject, name, plan.study.primary.adapter) for name in plan.tested_behaviors]
            jobs += [("changes", subject, name) for name in plan.tested_behaviors]
            jobs += [("judge", subject, source, score)]
        files = [results.benchmark(*job) for job in jobs]
        if all(file.is_file() for file in files):
            seconds = sum(float(pd.read_csv(file, sep="\t")["s"].iloc[0]) for file in files)
            rows.append((*arm, scorer, score, seconds))
    return pd.DataFrame(rows, columns=columns)
