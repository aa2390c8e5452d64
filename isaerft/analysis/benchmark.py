"""The benchmark's tables: how well each score of explanations finds the wrong ones.

benchmark_worlds.csv holds every world, benchmark.csv means over worlds, and benchmark_differences.csv the verdict by
training against each other score, world by world. They share a module because the last two are made from the first.
"""

from __future__ import annotations

import pandas as pd

from isaerft import stats
from isaerft.analysis.base import Analysis, ResultTable
from isaerft.analysis.benchmarked import EVERY, SCORE, TRAINING, Benchmark, benchmark_of, reference_judge
from isaerft.analysis.columns import SUBJECT, ci_columns
from isaerft.config import Plan
from isaerft.table import Column

QUESTION = ["side", "share", "kind", "among"]
AMONG_WORDS = {"all": "every explanation", "testable": "explanations that predict something"}


def benchmark_worlds(analysis: Analysis) -> pd.DataFrame:
    """Return one row for each world, score, set of explanations and kind of wrongness."""
    plan = analysis.plan
    named = ["subject", "source", "latent_index", *SCORE, "value"]
    scores = analysis.frame("explanation_scores") if plan.study.scorers else pd.DataFrame(columns=named)
    return benchmark_of(plan, analysis.results, analysis.frame("explanation_verdicts"), scores).worlds()


def benchmark(analysis: Analysis) -> pd.DataFrame:
    """Return the rows of benchmark.csv."""
    return means_over_worlds(analysis.frame("benchmark_worlds"), analysis.plan.study.agreement.confidence_level)


def benchmark_differences(analysis: Analysis) -> pd.DataFrame:
    """Return the rows of benchmark_differences.csv."""
    level = analysis.plan.study.agreement.confidence_level
    return differences_over_worlds(analysis.frame("benchmark_worlds"), reference_judge(analysis.plan), level)


def means_over_worlds(worlds: pd.DataFrame, confidence_level: float) -> pd.DataFrame:
    """Return the mean AUROC over worlds of each score, for each question the highest first.

    Parameters
    ----------
    worlds : DataFrame
        Rows of benchmark_worlds.csv.
    """
    rows = []
    for names, group in worlds.groupby([*QUESTION, *SCORE], sort=False):
        found = stats.over_worlds(group["auroc"], confidence_level=confidence_level, bounds=(0, 1))
        low, high = found.confidence_interval
        counts = {name: group[name].sum() for name in ("n_wrong", "n_right", "n_scored")}
        numbers = {"n_worlds": found.n_worlds, "auroc": found.mean, "ci_low": low, "ci_high": high}
        seconds = group["seconds"].mean() if "seconds" in group else None
        rows.append(dict(zip([*QUESTION, *SCORE], names, strict=True)) | counts | numbers | {"seconds": seconds})
    table = pd.DataFrame(rows, columns=TABLES[1].column_names)
    return _ordered(table, "auroc")


def differences_over_worlds(worlds: pd.DataFrame, judge: str, confidence_level: float) -> pd.DataFrame:
    """Return how far training is ahead of each other score, paired by worlds; `judge` reads training's verdicts."""
    rows = []
    for names, group in worlds.groupby(QUESTION, sort=False):
        wide = group.pivot(index="subject", columns=SCORE, values="auroc")
        if (TRAINING, judge) not in wide:
            continue
        for other in wide.columns.drop([(TRAINING, judge)]):
            paired = (wide[TRAINING, judge] - wide[other]).dropna()
            if not len(paired):
                continue
            found = stats.over_worlds(paired, confidence_level=confidence_level, bounds=(-1, 1))
            low, high = found.confidence_interval
            numbers = {"n_worlds": found.n_worlds, "difference": found.mean, "ci_low": low, "ci_high": high}
            numbers |= {"share_ahead": float((paired > 0).mean()), "pvalue": found.pvalue}
            same = dict(zip([*QUESTION, *SCORE], (*names, *other), strict=True))
            rows.append(same | {"judge": judge} | numbers)
    return _ordered(pd.DataFrame(rows, columns=TABLES[2].column_names), "difference")


def benchmark_tables(found: Benchmark, confidence_level: float) -> list[tuple[ResultTable, pd.DataFrame]]:
    """Return the tables of a benchmark with their rows."""
    worlds = found.worlds().reindex(columns=TABLES[0].column_names)
    means = means_over_worlds(worlds, confidence_level)
    return list(
        zip(TABLES, [worlds, means, differences_over_worlds(worlds, found.judge, confidence_level)], strict=True)
    )


def shown_as_text(means: pd.DataFrame) -> str:
    """Return the rows of benchmark.csv as text: for each set of explanations one line per score, a column per kind."""
    parts = []
    for (side, share, among), rows in means.groupby(["side", "share", "among"], sort=False):
        wide = rows.pivot(index=SCORE, columns="kind", values="auroc")
        wide = wide[[EVERY, *wide.columns.drop(EVERY)]].sort_values(EVERY, ascending=False, kind="stable")
        every = rows[rows["kind"] == EVERY].set_index(SCORE)
        counts = every.loc[wide.index]
        wide.insert(
            1, "interval", [f"{low:.3f}-{high:.3f}" for low, high in zip(counts.ci_low, counts.ci_high, strict=True)]
        )
        most = counts.iloc[0]
        heading = f"{side} side, {share:.0%} wrong, {AMONG_WORDS[among]}: {most.n_wrong} wrong and {most.n_right} right"
        text = wide.to_string(na_rep="", float_format="{:.3f}".format)
        parts.append(f"{heading}, {most.n_worlds} worlds\n{text}")
    return "\n\n".join(parts)


def _ordered(table: pd.DataFrame, by: str) -> pd.DataFrame:
    """Return rows by question, those of all kinds before single kinds, then by descending `by`."""
    first = table.assign(single=table["kind"] != EVERY, falling=-table[by].astype(float))
    order = first.sort_values(["side", "share", "among", "single", "kind", "falling", *SCORE], kind="stable").index
    return table.loc[order].reset_index(drop=True)


def _has_benchmark(plan: Plan) -> bool:
    return bool(plan.benchmark_sources) and len(plan.tested_behaviors) > 1


_CONDITION = "studies of several behaviors with a source that has a key"
_SCORER = Column(
    "scorer",
    "text",
    "training: the score of verdicts; a scorer of the study; combined: the mean of the ranks by training and by the "
    "score that was best at this in the other worlds (nothing is fitted); control: what must tell nothing.",
)
_SCORE = Column(
    "score",
    "text",
    "training: the judge that read the explanations; a scorer: its score, as in explanation_scores.csv; control: "
    "length (characters), or said (how often explanations that name the same are right in the other worlds).",
)
_QUESTION = (
    Column("side", "text", "What the explanations describe: input or output."),
    Column("share", "float", "Share of the explanations that is wrong."),
    Column(
        "kind",
        "text",
        "What is wrong with the wrong explanations: another (latent's concept), too_broad, too_narrow, other_side, "
        "neighbor (its concept), half_true; all: every kind together. Right ones are the same for each kind.",
    ),
    Column(
        "among",
        "text",
        "all: every explanation; one without a score is told apart from none (its pairs count half). testable: those "
        "that predict something of the behaviors, so that the verdict has a score.",
    ),
)
_COUNTS = (
    Column("n_wrong", "int", "Wrong explanations, over all worlds."),
    Column("n_right", "int", "Right explanations, over all worlds."),
    Column("n_scored", "int", "Explanations among them that have a score."),
)
_AUROC = "Probability that a wrong explanation scores lower than a right one (by chance: 0.5)"
_SECONDS = (
    "of the jobs behind the score: training, changes and judging, or scoring; empty unless the study records seconds."
)

TABLES = [
    ResultTable(
        name="benchmark_worlds",
        order=530,
        caption=(
            "How well each score of explanations finds wrong ones, world by world: explanations of which a key says "
            "whether they are wrong, and how."
        ),
        columns=(
            SUBJECT,
            _SCORER,
            _SCORE,
            *_QUESTION,
            *(Column(column.name, "int", column.meaning.replace(", over all worlds.", ".")) for column in _COUNTS),
            Column("auroc", "float", f"{_AUROC}."),
            Column(
                "combined_with",
                "text",
                "The score that training is combined with: the best one among the same explanations, by mean AUROC "
                "over the other worlds.",
                optional=True,
            ),
            Column("seconds", "float", f"Seconds {_SECONDS}", optional=True),
        ),
        when=_has_benchmark,
        condition=_CONDITION,
        make=benchmark_worlds,
    ),
    ResultTable(
        name="benchmark",
        order=531,
        caption=(
            "How well each score of explanations finds wrong ones: means over worlds, with the world as the unit. For "
            "each question the best score comes first."
        ),
        columns=(
            *_QUESTION,
            _SCORER,
            _SCORE,
            Column("n_worlds", "int", "Worlds in the mean."),
            *_COUNTS,
            Column("auroc", "float", f"{_AUROC}, mean over worlds."),
            *ci_columns("the confidence interval over worlds (Student's t); empty with one world"),
            Column("seconds", "float", f"Mean over worlds of the seconds {_SECONDS}", optional=True),
        ),
        when=_has_benchmark,
        condition=_CONDITION,
        make=benchmark,
    ),
    ResultTable(
        name="benchmark_differences",
        order=532,
        caption=(
            "How far the verdict by training is ahead of each other score in finding wrong explanations, world by "
            "world. Negative: the other score is better."
        ),
        columns=(
            *_QUESTION,
            _SCORER,
            _SCORE,
            Column("judge", "text", "What read the explanations for training's verdicts."),
            Column("n_worlds", "int", "Worlds that have both AUROCs."),
            Column("difference", "float", "AUROC of training minus that of this score, mean over worlds."),
            *ci_columns("the confidence interval over worlds (Student's t, paired); empty with one world"),
            Column("share_ahead", "float", "Share of worlds in which training is ahead."),
            Column(
                "pvalue",
                "float",
                "Two-sided p-value of no difference (paired t over worlds); empty with one world.",
                optional=True,
            ),
        ),
        when=_has_benchmark,
        condition=_CONDITION,
        make=benchmark_differences,
    ),
]
