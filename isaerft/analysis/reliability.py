"""The tables about our own noise.

reliability.csv says how far each number of a study would move under another seed, SAE or world, discriminability.csv
whether it separates variants of one SAE. They share a module because both go over the same numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from isaerft import stats
from isaerft.analysis.agreement import RESEEDED
from isaerft.analysis.base import Analysis, ResultTable
from isaerft.analysis.columns import ADAPTER, BEHAVIOR, JUDGE, MEASURE, SOURCE, ci_columns
from isaerft.analysis.replicates import (
    TRAINING_SEED,
    Reported,
    by_keys,
    is_statistic,
    reported_numbers,
    values_of_groups,
    variants_of,
)
from isaerft.config import Plan
from isaerft.table import Column

SHARED = ("adapter", "measure", "source", "judge", "behavior", "quantity", "statistic")
"""Keys that have a column of their own; all others are in `detail`."""
JACKKNIFE, REPLICATES = "jackknife", "replicates"


def reliability(analysis: Analysis) -> pd.DataFrame:
    """Return one row for each number and each way in which it is repeated."""
    rows: list[dict[str, object]] = []
    for reported in reported_numbers(analysis):
        rows += _over_seeds(analysis.plan, reported)
        rows += _over_subjects(analysis.plan, reported)
    return pd.DataFrame(rows, columns=RELIABILITY.column_names)


def _over_seeds(plan: Plan, reported: Reported) -> Iterator[dict[str, object]]:
    """Yield the noise of each subject's numbers over training seeds; nothing for numbers that do not depend on them."""
    level = plan.study.agreement.confidence_level
    for named, rows in by_keys(reported.rows, ["subject", *reported.keys]):
        subject, chance = str(named.pop("subject")), reported.chance(named)
        same = _named(plan, reported, named) | {"of": subject, "over": TRAINING_SEED}
        if "seed" in rows:
            values = rows.sort_values("seed")["value"].to_numpy()
            noise = stats.noise_of(values, chance=chance, confidence_level=level)
            yield same | _columns(noise, values, REPLICATES)
        elif RESEEDED in rows:
            (estimate,), (left_out,) = rows["value"], rows[RESEEDED]
            noise = stats.noise_of_all_seeds(estimate, left_out, chance=chance, confidence_level=level)
            yield same | _columns(noise, np.asarray(left_out, dtype=float), JACKKNIFE)


def _over_subjects(plan: Plan, reported: Reported) -> Iterator[dict[str, object]]:
    """Yield the noise of each number over the subjects of a group."""
    level = plan.study.agreement.confidence_level
    for group, over, named, values in values_of_groups(plan, reported):
        noise = stats.noise_of(values, chance=reported.chance(named), confidence_level=level)
        same = _named(plan, reported, named) | {"of": group, "over": over}
        yield same | _columns(noise, values.to_numpy(), REPLICATES)


def _named(plan: Plan, reported: Reported, named: dict[str, object]) -> dict[str, object]:
    """Return the columns that say which number a row is about."""
    others = [f"{name} {value}" for name, value in named.items() if name not in SHARED and not pd.isna(value)]
    primary = plan.study.primary
    equal = [
        named[name] == getattr(primary, name) for name in ("adapter", "measure", "source", "judge") if name in named
    ]
    if is_statistic(str(named.get("statistic"))):
        equal.append(named["statistic"] == primary.statistic)
    shared = {name: named.get(name) for name in SHARED}
    column = f"{reported.column.name} ({reported.summary})" if reported.summary else reported.column.name
    about = {"table": reported.table, "column": column, "detail": ", ".join(others) or None}
    return about | shared | {"primary": all(equal)}


def _columns(noise: stats.Noise, values: np.ndarray, method: str) -> dict[str, object]:
    """Return the columns about noise; fewer than two replicates leave them empty."""
    return {
        "method": method,
        "n_replicates": noise.n_replicates,
        "mean": noise.mean,
        "sd": noise.sd,
        "sd_ci_low": noise.sd_interval.low,
        "sd_ci_high": noise.sd_interval.high,
        "coefficient_of_variation": noise.coefficient_of_variation,
        "reliable_difference": noise.reliable_difference,
        "replicates": json.dumps([float(f"{value:.6g}") for value in values if np.isfinite(value)]),
    }


def discriminability(analysis: Analysis) -> pd.DataFrame:
    """Return one row for each number and each set of variants of one SAE."""
    plan, rows = analysis.plan, []
    for variants in variants_of(plan):
        group_of = {name: group for group, names in variants.groups.items() for name in names}
        for reported in reported_numbers(analysis):
            own = reported.rows[reported.rows["subject"].isin(group_of)]
            for named, part in by_keys(own, reported.keys):
                values = part.groupby("subject", sort=False)["value"].mean()
                groups = values.index.map(group_of)
                means = values.groupby(groups, sort=False).mean()
                if len(means) < 2:
                    continue
                codes = pd.factorize(groups)[0]
                found = stats.discriminability(
                    values.to_numpy(), codes, confidence_level=plan.study.agreement.confidence_level
                )
                rows.append(
                    _named(plan, reported, named)
                    | {
                        "groups": ", ".join(map(str, means.index)),
                        "over": variants.over,
                        "n_groups": len(means),
                        "n_subjects": len(values),
                        "lowest": means.min(),
                        "highest": means.max(),
                        "f": found.f,
                        "pvalue": found.pvalue,
                        "share_between": found.icc,
                        "ci_low": found.icc_interval.low,
                        "ci_high": found.icc_interval.high,
                        "n_pairs": found.n_pairs,
                        "n_pairs_apart": found.n_pairs_apart,
                    }
                )
    return pd.DataFrame(rows, columns=DISCRIMINABILITY.column_names)


_NUMBER = (
    Column("table", "text", "Table that has the number.", role="key"),
    Column("column", "text", "Its column there; in brackets what was made of it.", role="key"),
    *(replace(column, optional=True) for column in (ADAPTER, MEASURE, SOURCE, JUDGE, BEHAVIOR)),
    Column("quantity", "text", "Quantity, where the table has several.", optional=True, role="key"),
    Column("statistic", "text", "Statistic, where the table names it.", optional=True, role="key"),
    Column(
        "detail",
        "text",
        "What else says which row of the table it is.",
        optional=True,
        role="key",
    ),
)
_PRIMARY = Column("primary", "bool", "Whether the number is of the study's primary combination, as far as it has one.")

RELIABILITY = ResultTable(
    name="reliability",
    order=650,
    caption=(
        "Our own noise: how far each number of this study would move under another training seed or, where subjects of "
        "one group repeat each other, another SAE, corpus or world."
    ),
    columns=(
        *_NUMBER,
        Column(
            "of", "text", "Subject, or group of subjects, that the number is of; empty for the unnamed group.", True
        ),
        Column(
            "over",
            "text",
            "What is drawn again: the training seed, or the options in which the group's subjects differ "
            "(testbed.seed: the world; train_sae.seed: the SAE).",
        ),
        Column(
            "method",
            "text",
            "replicates: the number was computed for each seed or subject, and its noise is that of one of them; "
            "jackknife: it rests on all seeds together, is computed without each in turn, and so is its noise.",
        ),
        Column("n_replicates", "int", "Seeds or subjects."),
        Column("mean", "float", "Mean of the replicates; of the jackknife the number itself."),
        Column("sd", "float", "Standard deviation under reseeding; empty with one replicate.", optional=True),
        *ci_columns("its interval (chi-squared, for normal replicates)", prefix="sd_"),
        Column(
            "coefficient_of_variation",
            "float",
            "sd as a share of the mean; of numbers with a value by chance (AUROC: 0.5), of what they exceed it by. "
            "Empty where the interval of the mean holds chance, for the share then means nothing.",
            optional=True,
        ),
        Column(
            "reliable_difference",
            "float",
            "Smallest difference between two such numbers that reseeding does not explain: of two equal ones 5 % "
            "differ by more (Student's t times the square root of 2 times sd).",
            optional=True,
        ),
        Column(
            "replicates", "text", "The replicates' values as a list; of the jackknife those without each seed in turn."
        ),
        _PRIMARY,
    ),
    make=reliability,
)

DISCRIMINABILITY = ResultTable(
    name="discriminability",
    order=660,
    caption=(
        "Whether each number separates variants of one SAE (groups of subjects that differ only in how their SAEs are "
        "made) by more than subjects of one group differ."
    ),
    columns=(
        *_NUMBER,
        Column("groups", "text", "The groups that are compared."),
        Column("over", "text", "Options in which they differ, such as train_sae.d_sae."),
        Column("n_groups", "int", "Groups with the number."),
        Column("n_subjects", "int", "Subjects with the number."),
        Column("lowest", "float", "Lowest mean of a group."),
        Column("highest", "float", "Highest mean of a group."),
        Column(
            "f",
            "float",
            "Variance between groups over variance within them (one-way analysis of variance; by chance: 1).",
            optional=True,
        ),
        Column("pvalue", "float", "Probability of so high an f if groups did not differ.", optional=True),
        Column(
            "share_between",
            "float",
            "Share of the variance that lies between groups (ICC(1); by chance: 0). The number separates variants if "
            "ci_low is above 0.",
            optional=True,
        ),
        *ci_columns("its interval (F distribution)"),
        Column("n_pairs", "int", "Pairs of groups."),
        Column(
            "n_pairs_apart",
            "int",
            "Pairs whose means lie further apart than noise explains (Tukey-Kramer).",
            optional=True,
        ),
        _PRIMARY,
    ),
    make=discriminability,
    when=lambda plan: bool(variants_of(plan)),
    condition="studies with groups of subjects that differ only in how SAEs are made, one of them with replicates",
)

TABLES = [RELIABILITY, DISCRIMINABILITY]
