"""Tables with estimates of planted noise, as the rule `agreement` would have left them, without any training."""

import itertools

import numpy as np
import pandas as pd

from isaerft.analysis import TABLES, analysis_of
from isaerft.layout import Results
from tests.analysis.small_study import make_study

KEYS = {"measure": "contribution", "source": "said", "judge": "lexical", "statistic": "auroc"}
ADAPTERS = ("bias", "scale")


def study(**subjects):
    """Return a study whose subjects have these groups, SAE options and world seeds: name=(group, options, seed)."""
    settings = {
        name: {"testbed": {"seed": seed}, "train_sae": options, "group": group}
        for name, (group, options, seed) in subjects.items()
    }
    return make_study(subjects=settings, controls=["mismatched_behavior"])


def left_out(values):
    """Return the mean without each value in turn; none of one."""
    values = np.asarray(values, dtype=float)
    return ((values.sum() - values) / (len(values) - 1)).tolist() if len(values) > 1 else []


def planted(plan, folder, specificity, agreement=None):
    """Return the analysis of a study.

    `specificity` maps (subject, adapter), `agreement` (subject, control), to what each seed would give alone.
    """
    rows = {
        "overall": [
            {"subject": subject, "adapter": adapter, "quantity": "specificity", "estimate": np.mean(values)}
            | KEYS
            | {"reseeded": left_out(values)}
            for (subject, adapter), values in specificity.items()
        ],
        "agreement": [
            {"subject": subject, "adapter": "bias", "behavior": behavior, "control": control}
            | {"estimate": np.mean(values), "reseeded": left_out(values)}
            | KEYS
            for (subject, control), values in (agreement or {}).items()
            for behavior in "abc"
        ],
        "source_comparison": [],
    }
    frames = {name: pd.DataFrame(columns=table.column_names) for name, table in TABLES.items() if table.of_role("key")}
    for name in ("reliability", "claims", "discriminability"):
        del frames[name]
    for name, made in rows.items():
        parts = []
        for subject, adapter in itertools.product(plan.study.subjects, ADAPTERS):
            own = [row for row in made if (row["subject"], row["adapter"]) == (subject, adapter)]
            part = pd.DataFrame(own, columns=[*TABLES[name].column_names, "reseeded"])
            path = Results(folder).agreement(subject, adapter).rows(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            part.to_parquet(path)
            parts += [part] if len(part) else []
        if parts:
            frames[name] = pd.concat(parts, ignore_index=True)[TABLES[name].column_names]
    return analysis_of(plan, Results(folder), frames)


def made(analysis, name):
    """Return a table, checked as it is when it is written."""
    return TABLES[name].conform(analysis.frame(name))
