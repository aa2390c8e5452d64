"""The overall results of the primary combination, in sentences."""

from __future__ import annotations

from typing import Any

import pandas as pd

from isaerft.report.selection import STATISTIC_NAMES, Tables
from isaerft.report.text import fixed, plural, visible, words


def overall_sentences(tables: Tables) -> list[str]:
    """Return, for each subject, what all behaviors together say; none where no table or no primary row is given."""
    if "overall" not in tables:
        return []
    frame = tables["overall"]
    rows = frame[frame.primary & frame.estimate.notna()]
    sentences = []
    for row in rows.itertuples():
        name = STATISTIC_NAMES.get(row.statistic, words(row.statistic))
        what = {
            "agreement": f"mean {name} of a behavior's changes with its own explanations",
            "specificity": f"that less the mean {name} with other behaviors' explanations",
        }[row.quantity]
        n = plural(int(row.n_behaviors), "behavior")
        sentences.append(f"{visible(row.subject)}: {what}, over {n}, is {fixed(row.estimate)}{_notes(row)}.")
    return sentences


def _notes(row: Any) -> str:
    """Return the interval, the range without each behavior and the p-value in parentheses, where defined."""
    notes = []
    if pd.notna(row.ci_low):
        notes.append(f"interval over behaviors {fixed(row.ci_low)} to {fixed(row.ci_high)}")
    if pd.notna(row.leave_one_out_low):
        notes.append(f"without any one of them {fixed(row.leave_one_out_low)} to {fixed(row.leave_one_out_high)}")
    if pd.notna(row.pvalue):
        notes.append(f"p = {row.pvalue:.2g}")
    return f" ({'; '.join(notes)})" if notes else ""
