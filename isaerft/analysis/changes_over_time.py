"""changes_over_time.csv and onset.csv: changes at checkpoints of training, and which latents begin to change first.

The steps of a training end with the one whose parameters were kept: checkpoints after it are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from isaerft import stats
from isaerft.analysis.base import Analysis, ResultTable
from isaerft.analysis.columns import ADAPTER, BEHAVIOR, JUDGE, MEASURE, N_SEEDS, SOURCE, STATISTIC, SUBJECT, ci_columns
from isaerft.analysis.readings import Reading
from isaerft.config import Plan
from isaerft.io import parquet_parts, read_json
from isaerft.registry import STATISTICS
from isaerft.table import Column


@dataclass(frozen=True)
class Course:
    """How the latents of a universe changed in the training of one seed.

    Attributes
    ----------
    steps : (n_steps,) int64
        Checkpoints up to the step whose parameters were kept.
    changes : (n_steps, n) float
    kept_step : int
    final : (n,) float
        Change by the parameters that were kept.
    """

    steps: np.ndarray
    changes: np.ndarray
    kept_step: int
    final: np.ndarray

    def onsets(self) -> np.ndarray:
        """Return the step at which each latent reached half of its final change, (n,); infinite if it has none."""
        is_last = len(self.steps) and self.steps[-1] == self.kept_step
        steps = self.steps if is_last else np.append(self.steps, self.kept_step)
        return stats.onsets(self.changes if is_last else np.vstack([self.changes, self.final]), steps, self.final)


def changes_over_time(analysis: Analysis) -> pd.DataFrame:
    """Return one row for each checkpoint of each adapter and behavior, and one for what was kept."""
    rows: list[dict[str, object]] = []
    for reading, names, courses in _followed(analysis):
        for place, behavior in enumerate(reading.behaviors):
            same = names | {"behavior": behavior, "statistic": analysis.plan.study.primary.statistic}
            rows += [same | row for row in _rows(analysis.plan, reading, place, courses[behavior])]
    return pd.DataFrame(rows, columns=TABLES[0].column_names)


def onset(analysis: Analysis) -> pd.DataFrame:
    """Return one row for each adapter and behavior, and one for all behaviors of an adapter together."""
    rows: list[dict[str, object]] = []
    for reading, names, courses in _followed(analysis):
        rows += [names | row for row in onset_rows(analysis.plan, reading, courses)]
    return pd.DataFrame(rows, columns=TABLES[1].column_names)


def _followed(analysis: Analysis) -> Iterator[tuple[Reading, dict[str, object], dict[str, list[Course]]]]:
    """Yield the primary reading, the names of a row, and behavior -> courses of all seeds that kept any step."""
    plan = analysis.plan
    for subject in plan.study.subjects:
        reading = analysis.primary_reading(subject)
        if reading is None:
            continue
        for adapter in plan.followed_adapters:
            names: dict[str, object] = {"adapter": adapter, "measure": plan.study.primary.measure, **reading.names}
            finals = analysis.changes(subject, adapter)
            yield (
                reading,
                names,
                {name: list(_courses(analysis, reading, adapter, name, finals)) for name in reading.behaviors},
            )


def _courses(
    analysis: Analysis, reading: Reading, adapter: str, behavior: str, finals: Mapping[tuple[str, str], np.ndarray]
) -> Iterator[Course]:
    subject, measure = reading.explained.subject, analysis.plan.study.primary.measure
    path = analysis.results.changes_over_time(subject, behavior)
    columns = ["seed", "step", "latent_index", "change"]
    table = pd.concat(parquet_parts(path, columns, adapter=adapter, measure=measure), ignore_index=True)
    wide = table.pivot(index=["seed", "step"], columns="latent_index", values="change")[reading.latents]
    final = finals[behavior, measure]
    for run in read_json(analysis.results.training(subject, behavior, adapter)):
        own = wide.loc[run["seed"]]
        own = own[own.index <= run["best_step"]]
        if run["best_step"]:
            change = final[run["seed"], reading.latents]
            yield Course(own.index.to_numpy(np.int64), own.to_numpy(float), run["best_step"], change)


def _rows(plan: Plan, reading: Reading, place: int, courses: list[Course]) -> Iterator[dict[str, object]]:
    """Yield the rows of one behavior: its checkpoints, then what was kept."""
    expected = reading.expectation.expected[place]
    steps = sorted({int(step) for course in courses for step in course.steps})
    for step in [*steps, None]:
        at = [
            (course.final if step is None else course.changes[int(np.searchsorted(course.steps, step))], course.final)
            for course in courses
            if step is None or step in course.steps
        ]
        row: dict[str, object] = {"step": step, "n_seeds": len(at)}
        for name, chosen in (("expected", expected), ("others", ~expected)):
            row[f"share_{name}"] = _mean([stats.share_reached(now[None, chosen], end[chosen])[0] for now, end in at])
        moved = [(now, end) for now, end in at if np.ptp(now) > 0 and np.ptp(end) > 0]
        row["rank_correlation"] = _mean([float(stats.spearman(now, end)) for now, end in moved])
        yield row | _agreement(plan, reading, place, [now for now, _ in moved])


def _agreement(plan: Plan, reading: Reading, place: int, changes: list[np.ndarray]) -> dict[str, float]:
    """Return agreement and specificity, means over seeds with intervals over seeds."""
    facts = STATISTICS.facts(plan.study.primary.statistic)
    labels = reading.expectation.effect if facts.graded else reading.expectation.expected
    judged = np.flatnonzero(labels.min(axis=1) != labels.max(axis=1))
    if place not in judged or not changes:
        return {}
    values = stats.specificity_matrix(np.array(changes), labels[judged], statistic=plan.study.primary.statistic)
    own = judged == place
    level, found = plan.study.agreement.confidence_level, values[:, own][:, 0]
    interval = stats.mean_interval(found, level, facts.bounds)
    row = {"estimate": float(found.mean()), "ci_low": interval.low, "ci_high": interval.high}
    if own.all():
        return row
    beyond = found - values[:, ~own].mean(axis=1)
    interval = stats.mean_interval(beyond, level)
    row |= {"specificity": float(beyond.mean())}
    return row | {"specificity_ci_low": interval.low, "specificity_ci_high": interval.high}


def onset_rows(plan: Plan, reading: Reading, courses: Mapping[str, list[Course]]) -> Iterator[dict[str, object]]:
    """Yield the rows of onset.csv of one adapter: its behaviors, then all together.

    A behavior whose training kept no step in any seed has no row.
    """
    followed = [place for place, name in enumerate(reading.behaviors) if courses[name]]
    labels = reading.expectation.expected[followed]
    starts = [np.array([course.onsets() for course in courses[reading.behaviors[place]]]) for place in followed]
    sizes = [np.abs([course.final for course in courses[reading.behaviors[place]]]) for place in followed]
    ranks = [stats.mean_rank(np.where(np.isfinite(start), start, np.finfo(float).max)) for start in starts]
    matrix = onset_matrix(np.array(ranks), np.array([size.mean(axis=0) for size in sizes]), labels, reading)
    families, level = _families(plan, reading, courses, followed), plan.study.agreement.confidence_level
    for number, place in enumerate(followed):
        own = labels[number]
        row: dict[str, Any] = {
            "behavior": reading.behaviors[place],
            "n_seeds": len(starts[number]),
            "n_latents": int(np.isfinite(starts[number]).all(axis=0).sum()),
            "n_expected": int((np.isfinite(starts[number]).all(axis=0) & own).sum()),
            "onset_expected": _median(starts[number][:, own]),
            "onset_others": _median(starts[number][:, ~own]),
        }
        if np.isfinite(matrix[number, number]):
            others = stats.others_of(matrix[:, number], number, families)
            found = stats.against_others(matrix[number, number], others, confidence_level=level, bounds=(0, 1))
            low, high = found.confidence_interval
            row |= {"estimate": found.statistic, "ci_low": low, "ci_high": high, "pvalue": found.pvalue}
            row |= {"null_mean": found.null_mean, "n_others": found.n_others}
        yield row
    tested = np.flatnonzero(np.isfinite(np.diagonal(matrix)))
    if len(np.unique(families[tested])) > 1:
        whole = stats.overall_specificity(
            matrix[np.ix_(tested, tested)],
            families=families[tested],
            n_resamples=plan.study.agreement.n_resamples,
            confidence_level=level,
            bounds=(0, 1),
            rng=plan.study.seed,
        )
        low, high = whole.confidence_interval
        yield {"estimate": whole.statistic, "ci_low": low, "ci_high": high, "pvalue": whole.pvalue, "null_mean": 0.0}


def onset_matrix(ranks: np.ndarray, sizes: np.ndarray, labels: np.ndarray, reading: Reading) -> np.ndarray:
    """Return the chance that an expected latent begins before another, (n_trained, n_judged); NaN where undefined.

    What the reading's confounds and the final size of a latent's change explain of the expectations is taken out: of
    latents that end close to 0 the onset is mostly noise, and often early.

    Parameters
    ----------
    ranks, sizes : (n_trained, n) float
        Mean ranks of onsets, the first lowest; sizes of the final changes.
    labels : (n_judged, n) bool
    """
    matrix = np.full((len(ranks), len(labels)), np.nan)
    judged = np.flatnonzero(labels.any(axis=1) & ~labels.all(axis=1))
    null = reading.confounds.null()
    for trained, (rank, size) in enumerate(zip(ranks, sizes, strict=True)):
        if len(judged) and np.ptp(rank) > 0:
            confounds = np.vstack([null["confounds"], stats.scaled_ranks(size[None])])
            options = stats.NullOptions(strata=null["strata"], clusters=null["clusters"], confounds=confounds)
            matrix[trained, judged] = stats.specificity_matrix(-rank[None], labels[judged], **options)[0]
    return matrix


def _families(plan: Plan, reading: Reading, courses: Mapping[str, list[Course]], followed: list[int]) -> np.ndarray:
    """Return the family of each behavior that was followed, as agreement.csv finds them at the final changes."""
    names = [reading.behaviors[place] for place in followed]
    finals = np.array([stats.mean_rank(np.array([course.final for course in courses[name]])) for name in names])
    declared = np.unique([plan.study.behaviors[name].family or name for name in names], return_inverse=True)[1]
    return stats.families_of(finals, reading.expectation.expected[followed], declared=declared)


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else np.nan


def _median(starts: np.ndarray) -> float:
    """Return the median over latents, mean over seeds, of the onsets (n_seeds, n) that are finite."""
    medians = [float(np.median(own[np.isfinite(own)])) for own in starts if np.isfinite(own).any()]
    return _mean(medians)


def _is_followed(plan: Plan) -> bool:
    return bool(plan.followed_adapters)


_CONDITION = "studies with `checkpoints` of an adapter"
TABLES = [
    ResultTable(
        name="changes_over_time",
        order=250,
        caption=(
            "Changes at checkpoints of training, by the measure of the primary result: agreement, and how much of "
            "their final change the expected latents and all others have reached."
        ),
        columns=(
            SUBJECT,
            BEHAVIOR,
            ADAPTER,
            MEASURE,
            SOURCE,
            JUDGE,
            Column("step", "int", "Training step; empty for the parameters that were kept.", optional=True),
            Column("n_seeds", "int", "Seeds whose kept parameters are of this step or a later one."),
            STATISTIC,
            Column("estimate", "float", "Agreement of a single seed's changes so far, mean over seeds.", optional=True),
            *ci_columns("its interval over seeds (Student's t)"),
            Column(
                "specificity",
                "float",
                "The same less the agreement of these changes with the expectations for other behaviors.",
                optional=True,
            ),
            *ci_columns("its interval over seeds", prefix="specificity_"),
            Column(
                "share_expected",
                "float",
                "How much of the final changes of the expected latents was reached, added up; 1: all.",
                optional=True,
            ),
            Column("share_others", "float", "The same of all other latents.", optional=True),
            Column(
                "rank_correlation",
                "float",
                "Rank correlation of the changes so far with the final ones, over latents; mean over seeds.",
                optional=True,
            ),
        ),
        when=_is_followed,
        condition=_CONDITION,
        make=changes_over_time,
    ),
    ResultTable(
        name="onset",
        order=251,
        caption=(
            "Do the expected latents change first? The onset of a latent is the step at which it first reached half of "
            "its final change."
        ),
        columns=(
            SUBJECT,
            Column(
                "behavior",
                "text",
                "Behavior that the model was trained on; empty for all together, where the estimate is specificity: "
                "own expectations less those of other behaviors, by chance 0.",
                optional=True,
            ),
            ADAPTER,
            MEASURE,
            SOURCE,
            JUDGE,
            Column(N_SEEDS.name, "int", N_SEEDS.meaning, optional=True),
            Column("n_latents", "int", "Latents that reached half of a final change in every seed.", optional=True),
            Column("n_expected", "int", "Latents among them that the judge expects to change.", optional=True),
            Column("onset_expected", "float", "Median onset of the expected latents, in steps.", optional=True),
            Column("onset_others", "float", "Median onset of all other latents, in steps.", optional=True),
            Column(
                "estimate",
                "float",
                "Probability that an expected latent begins before another (AUROC of onsets), without what confounds "
                "and the size of the final change explain.",
                optional=True,
            ),
            *ci_columns("its interval, over trainings"),
            Column(
                "pvalue",
                "float",
                "Chance of so high an estimate if the training were one on another behavior.",
                optional=True,
            ),
            Column("null_mean", "float", "Mean estimate of the other trainings, for the same latents.", optional=True),
            Column("n_others", "int", "Other trainings; those of one family are one.", optional=True),
        ),
        when=_is_followed,
        condition=_CONDITION,
        make=onset,
    ),
]
