"""How good the judges are, as a reader meets it first: each against the reference, source by source."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from isaerft.report.selection import Tables, real
from isaerft.report.text import DASH, count, fixed, visible, words

SHOWN = ("mcc", "kappa", "spearman")
PUBLISHED_MCC = 0.46


@dataclass(frozen=True)
class JudgeLine:
    """One judge's reading of one source against another judge's, as text; `numbers` in the order of `SHOWN`."""

    subject: str
    names: tuple[str, str, str]
    numbers: tuple[str, ...]


def judge_lines(tables: Tables) -> list[JudgeLine]:
    """Return a line for each source, judge and reference; where nothing is a reference, for each pair of judges."""
    rows = _rows(tables)
    lines = []
    for (subject, source, judge, against), group in rows.groupby(["subject", "source", "judge", "against"], sort=False):
        found = group.set_index("statistic")
        numbers = [_with_interval(found.loc[name]) if name in found.index else DASH for name in SHOWN]
        names = words(source), words(judge), words(against)
        lines.append(JudgeLine(visible(subject), names, (*numbers, count(group["n_explanations"].iloc[0]))))
    return lines


def judge_sentence(tables: Tables) -> str:
    """Say what the lines measure and how far published judges come; empty where no judges are compared."""
    if _rows(tables).empty:
        return ""
    measured = (
        "Each judge against the reference (known truth, or people), with intervals over explanations."
        if has_reference(tables)
        else "No judge is a reference here: this is how far judges agree, which does not say that either is right."
    )
    return f"{measured} Published LLM judges of SAE explanations reach an MCC of about {PUBLISHED_MCC} against people."


def has_reference(tables: Tables) -> bool:
    """Tell whether a judge is measured against a reference: only there does the table have a sensitivity."""
    return "judge_quality" in tables and bool((real(tables["judge_quality"])["statistic"] == "sensitivity").any())


def _rows(tables: Tables) -> pd.DataFrame:
    """Return the rows to show: those of pairs with a reference, or all where there is none."""
    if "judge_quality" not in tables:
        return pd.DataFrame(columns=["subject", "source", "judge", "against", "statistic"])
    rows = real(tables["judge_quality"])
    if has_reference(tables):
        pair = ["subject", "source", "judge", "against"]
        rows = rows.merge(rows.loc[rows["statistic"] == "sensitivity", pair], on=pair)
    return rows


def _with_interval(row: pd.Series) -> str:
    """Return 'estimate (low to high)', or the estimate alone."""
    interval = "" if pd.isna(row["ci_low"]) else f" ({fixed(row['ci_low'])} to {fixed(row['ci_high'])})"
    return f"{fixed(row['estimate'])}{interval}"
