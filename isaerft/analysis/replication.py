"""replication.csv: the results of overall.csv over several subjects, each of which is one replicate."""

from __future__ import annotations

import numpy as np
import pandas as pd

from isaerft import stats
from isaerft.analysis.base import Analysis, ResultTable, is_primary
from isaerft.analysis.columns import ADAPTER, JUDGE, MEASURE, PRIMARY, QUANTITY, SOURCE, STATISTIC, ci_columns
from isaerft.config import Plan
from isaerft.table import Column

ALL = "all groups"
KEYS = ["group", "adapter", "measure", "source", "judge", "quantity", "statistic"]


def replication(analysis: Analysis) -> pd.DataFrame:
    """Return one row for each group of subjects and each combination that at least two of them have in overall.csv.

    Where there are several groups, there are rows for all subjects together, too, without worlds that have no features:
    in these no explanation can be right.
    """
    plan, overall = analysis.plan, analysis.frame("overall")
    level = plan.study.agreement.confidence_level
    subjects = plan.study.subjects
    group = {name: subject.group for name, subject in subjects.items()}
    overall = overall[overall.subject.isin(group)].dropna(subset="estimate")
    overall = overall.assign(group=overall.subject.map(group))
    if len(set(group.values())) > 1:
        empty = [name for name, part in subjects.items() if part.testbed is not None and not part.testbed.features]
        overall = pd.concat([overall, overall[~overall.subject.isin(empty)].assign(group=ALL)])
    overall = overall.set_index("subject")
    estimates = {key: rows.estimate for key, rows in overall.groupby(KEYS, sort=False)}
    rows = []
    for key, values in estimates.items():
        named = dict(zip(KEYS, key, strict=True))
        reference = tuple((named | {"adapter": plan.study.primary.adapter}).values())
        if len(values) < 2:
            continue
        found = {"estimate": values.mean(), "sd": values.std(ddof=1), "lowest": values.min(), "highest": values.max()}
        found |= dict(zip(("ci_low", "ci_high"), stats.mean_interval(values.to_numpy(float), level), strict=True))
        if reference != key and reference in estimates:
            found |= _advantage((estimates[reference] - values).dropna().to_numpy(float), level)
        rows.append(named | {"n_subjects": len(values)} | found)
    table = pd.DataFrame(rows, columns=TABLE.column_names)
    return table.assign(primary=is_primary(plan, table))


def _advantage(differences: np.ndarray, level: float) -> dict[str, float]:
    """Return the columns of the paired comparison with the primary adapter, subject by subject."""
    if len(differences) < 2:
        return {}
    low, high = stats.mean_interval(differences, level)
    share = float((differences > 0).mean())
    mean = float(differences.mean())
    return {"advantage": mean, "advantage_ci_low": low, "advantage_ci_high": high, "advantage_share": share}


def _is_replicated(plan: Plan) -> bool:
    """Tell whether any group has at least two subjects; without one, the study's subjects are no replicates."""
    groups = [subject.group for subject in plan.study.subjects.values()]
    return len(set(groups)) < len(groups)


TABLE = ResultTable(
    name="replication",
    order=215,
    caption=(
        "The overall results as means over subjects of one group, such as worlds that differ in their seed alone, and "
        "over the subjects of all groups. The subject is the unit: intervals say what another subject would give."
    ),
    columns=(
        Column(
            "group",
            "text",
            "Group of the subjects, as their config says; empty where it says none. `all groups`: every subject "
            "except worlds of the testbed without features.",
            optional=True,
        ),
        ADAPTER,
        MEASURE,
        SOURCE,
        JUDGE,
        QUANTITY,
        STATISTIC,
        Column("n_subjects", "int", "Subjects in the mean: those for which overall.csv has an estimate."),
        Column("estimate", "float", "Mean over these subjects."),
        Column("ci_low", "float", "Lower end of the confidence interval over subjects (Student's t)."),
        Column("ci_high", "float", "Upper end of the confidence interval over subjects (Student's t)."),
        Column("sd", "float", "Standard deviation over subjects."),
        Column("lowest", "float", "Lowest estimate of a subject."),
        Column("highest", "float", "Highest estimate of a subject."),
        Column(
            "advantage",
            "float",
            "Mean over subjects of the primary adapter's estimate minus this adapter's; empty for the primary adapter.",
            optional=True,
        ),
        *ci_columns("the confidence interval of that difference over subjects (Student's t)", prefix="advantage_"),
        Column("advantage_share", "float", "Share of subjects in which the difference is above 0.", optional=True),
        PRIMARY,
    ),
    make=replication,
    when=_is_replicated,
    condition="studies with at least two subjects of one group",
)
