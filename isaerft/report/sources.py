"""Whose explanations predict changes best at the primary adapter and measure, in sentences."""

from __future__ import annotations

from typing import Any

import pandas as pd

from isaerft.report.selection import Tables, find_primary, matching, real, table
from isaerft.report.text import fixed, plural, visible, words


def source_sentences(tables: Tables) -> list[str]:
    """Return one sentence for each subject and judge: the best source, its lead, and which are known to be worse."""
    primary = find_primary(table(tables, "agreement"))
    if primary is None or "source_comparison" not in tables:
        return []
    rows = matching(real(tables["source_comparison"]), primary, without=("source", "judge"))
    rows = rows[(rows["quantity"] == "agreement") & rows["rank"].notna()]
    sentences = []
    for (subject, judge), group in rows.groupby(["subject", "judge"], sort=False):
        best = group[group["rank"] == 1]
        first = best.iloc[0]
        named = " and ".join(words(name) for name in best["source"])
        sentences.append(
            f"{visible(subject)}, judge {words(judge)}: of {plural(len(group), 'source')}, {named} "
            f"{'predicts' if len(best) == 1 else 'predict'} changes best, mean {primary.statistic_name} "
            f"{fixed(first['estimate'])}{_interval(first, 'ci')} over {plural(int(first['n_behaviors']), 'behavior')}"
            f"{_lead(first) if len(best) == 1 else ''}. {_worse(group)}"
        )
    return sentences


def worse(row: Any) -> bool:
    """Tell whether a row's source is known to predict worse than the judge's best: the interval is below 0."""
    return bool(pd.notna(row.difference_ci_high) and row.difference_ci_high < 0)


def _lead(row: Any) -> str:
    """Say how far the best source is above the next, and whether that is known."""
    if pd.isna(row["difference"]):
        return ""
    known = pd.notna(row["difference_ci_low"]) and row["difference_ci_low"] > 0
    lead = f", {fixed(row['difference'])}{_interval(row, 'difference_ci')} above {words(row['rival'])}"
    return lead if known else f"{lead}, from which it cannot be told apart"


def _worse(group: pd.DataFrame) -> str:
    """Name the sources that are known to be worse than the best."""
    named = [words(row.source) for row in group.itertuples() if worse(row)]
    return f"Known to be worse: {', '.join(named)}." if named else "None of the others is known to be worse."


def _interval(row: Any, name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return "" if pd.isna(low) else f" ({fixed(low)} to {fixed(high)})"
