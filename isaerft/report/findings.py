"""Findings: what the tables say, in numbers and sentences, on results, controls, sources, judges and audits.

Sentences are plain text, not yet escaped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from isaerft.report.selection import (
    RESULT,
    Primary,
    Tables,
    controls_in,
    controls_to_exceed,
    find_primary,
    matching,
    own_largest,
    primary_rows,
    real,
    specificity_matrices,
    subjects_of,
    table,
)
from isaerft.report.text import DASH, count, fixed, interval, named, plural, shorten, visible, words

P_LEVEL, Q_LEVEL = 0.01, 0.05
JUDGE_STATISTICS = ("mcc", "kappa", "spearman")
PUBLISHED_MCC = 0.46
N_AUDITED = 5
MAX_EXPLANATION = 70


@dataclass(frozen=True)
class Share:
    """How many (k) of the behaviors with a defined value (n) fall below a level."""

    k: int
    n: int

    def __str__(self) -> str:
        return f"{self.k} of {self.n}" if self.n else DASH


@dataclass(frozen=True)
class Line:
    """The result, or one control, of a subject at the primary combination, over behaviors.

    Attributes
    ----------
    subject, control : str
        The control is "none" for the result itself.
    median, low, high : float or None
        Median, lowest and highest estimate; None if no estimate is defined.
    n_behaviors, n_missing : int
        Behaviors whose estimate is defined, and the others.
    significant, discovered : Share
        Behaviors with p < `P_LEVEL`, and with q < `Q_LEVEL`.
    required : bool
        Whether the result must exceed it; False for the result itself.
    """

    subject: str
    control: str
    median: float | None
    low: float | None
    high: float | None
    n_behaviors: int
    n_missing: int
    significant: Share
    discovered: Share
    required: bool

    @property
    def is_result(self) -> bool:
        """Whether this is the result, not a control."""
        return self.control == RESULT


@dataclass(frozen=True)
class JudgeLine:
    """One judge's reading of a source against another judge's, as text; numbers follow `JUDGE_STATISTICS`."""

    subject: str
    source: str
    judge: str
    against: str
    numbers: tuple[str, ...]
    n_explanations: str


@dataclass(frozen=True)
class AuditLine:
    """What one audit found, as text.

    Attributes
    ----------
    first : str
        The behavior of rank 1.
    estimate, interval, qvalue : str
        Its numbers.
    found : str
        Behaviors with q < `Q_LEVEL`.
    latents : tuple of str
        Explanations of the latents whose changes differ most, with the direction.
    """

    subject: str
    audit: str
    first: str
    estimate: str
    interval: str
    qvalue: str
    found: str
    latents: tuple[str, ...]


def headlines(tables: Tables) -> list[Line]:
    """Return, subject by subject, the line of the result and then those of its controls."""
    agreement = table(tables, "agreement")
    primary = find_primary(agreement)
    if primary is None:
        return []
    rows = primary_rows(agreement, primary)
    lines = []
    for subject in subjects_of(rows):
        own = rows[(rows["subject"] == subject).astype(bool)]
        lines += [_line(subject, name, own[own["control"] == name]) for name in [RESULT, *controls_in(own)]]
    return lines


def not_exceeded(lines: list[Line], subject: str) -> list[Line]:
    """Return the controls of a subject whose median the result should exceed but does not."""
    own = [line for line in lines if line.subject == subject]
    result = next((line.median for line in own if line.is_result), None)
    if result is None:
        return []
    return [line for line in own if line.required and line.median is not None and line.median >= result]


def single_sentences(tables: Tables) -> Iterator[str]:
    """Yield, for each subject, what single behaviors show: against other trainings, and against placebo trainings."""
    primary = find_primary(table(tables, "agreement"))
    if primary is None:
        return
    rows = primary_rows(table(tables, "agreement"), primary)
    for line in (line for line in headlines(tables) if line.is_result):
        own = rows[(rows["control"] == RESULT) & (rows["subject"] == line.subject)].dropna(subset="n_placebos")
        beaten = int((own["pvalue_placebo"] <= 1 / (own["n_placebos"] + 1)).sum())
        parts = []
        if line.significant.n:
            parts.append(f"against other trainings, p < {P_LEVEL:g} in {line.significant}")
        if len(own) and (n := int(own["n_placebos"].min())):
            parts.append(f"{beaten} of {len(own)} agree better than each of {plural(n, 'placebo training')}")
        if parts:
            weaker = " is weaker evidence" if line.n_behaviors > 1 else ""
            yield f"{visible(line.subject)}: one behavior at a time{weaker}: {'; '.join(parts)}."


def specificity_sentences(tables: Tables, primary: Primary) -> Iterator[str]:
    """Yield how often a behavior's changes fit its own explanations best, and how often they would by chance."""
    if "specificity" not in tables:
        return
    for subject, matrix in specificity_matrices(tables, primary).items():
        k, n = own_largest(matrix)
        if n:
            yield (
                f"{visible(subject)}: in {k} of {plural(n, 'behavior')}, changes from training on the behavior fit its "
                f"own explanations better than those of any other behavior (by chance: about {n / matrix.shape[1]:.1f} "
                f"of {n})."
            )


def source_sentences(tables: Tables) -> Iterator[str]:
    """Yield, for each subject and judge, the best source, its lead, and the sources that are known to be worse."""
    primary = find_primary(table(tables, "agreement"))
    if primary is None or "source_comparison" not in tables:
        return
    rows = matching(real(tables["source_comparison"]), primary, without=("source", "judge"))
    rows = rows[(rows["quantity"] == "agreement") & rows["rank"].notna()]
    for (subject, judge), group in rows.groupby(["subject", "judge"], sort=False):
        best = group[group["rank"] == 1]
        first = best.iloc[0]
        names = " and ".join(map(words, best["source"]))
        verb, lead = ("predicts", _lead(first)) if len(best) == 1 else ("predict", "")
        worse = [words(row.source) for row in group.itertuples() if known_worse(row)]
        yield (
            f"{visible(subject)}, judge {words(judge)}: of {plural(len(group), 'source')}, {names} {verb} changes "
            f"best, with a mean {primary.title} of {_estimate(first)} over "
            f"{plural(int(first['n_behaviors']), 'behavior')}{lead}. "
            + (f"Known to be worse: {', '.join(worse)}." if worse else "None of the others is known to be worse.")
        )


def known_worse(row: Any) -> bool:
    """Tell whether a row's source is known to predict worse than the judge's best: its interval is below 0."""
    return bool(pd.notna(row.difference_ci_high) and row.difference_ci_high < 0)


def judge_lines(tables: Tables) -> list[JudgeLine]:
    """Return a line for each source, judge and reference; without a reference, for each pair of judges."""
    pair = ["subject", "source", "judge", "against"]
    lines = []
    for (subject, source, judge, against), group in _judge_rows(tables).groupby(pair, sort=False):
        found = group.set_index("statistic")
        numbers = tuple(_estimate(found.loc[name]) if name in found.index else DASH for name in JUDGE_STATISTICS)
        n_explanations = count(group["n_explanations"].iloc[0])
        lines.append(JudgeLine(visible(subject), words(source), words(judge), words(against), numbers, n_explanations))
    return lines


def judge_sentence(tables: Tables) -> str:
    """Say what the lines of judges measure; empty if no judges are compared."""
    if _judge_rows(tables).empty:
        return ""
    measured = (
        "Each judge against the reference (known truth, or people), with intervals over explanations."
        if _has_reference(tables)
        else "No judge is a reference here, so this is how far judges agree. They can agree and both be wrong."
    )
    return f"{measured} Published LLM judges of SAE explanations reach an MCC of about {PUBLISHED_MCC} against people."


def audit_lines(tables: Tables) -> list[AuditLine]:
    """Return one line per subject and audit, at the primary combination."""
    lines = []
    for (subject, audit), group in _audit_rows(tables).groupby(["subject", "audit"], sort=False):
        ranked = group[group["rank"].notna()].sort_values("rank")
        found = named(ranked.loc[(ranked["qvalue"] < Q_LEVEL).fillna(False), "behavior"], most=len(ranked))
        first = ranked.iloc[0] if len(ranked) else dict.fromkeys(ranked)
        lines.append(
            AuditLine(
                visible(subject),
                visible(audit),
                words(first["behavior"]),
                fixed(first["estimate"]),
                interval(first["ci_low"], first["ci_high"]) or DASH,
                f"{first['qvalue']:.2g}" if pd.notna(first["qvalue"]) else DASH,
                found or "none",
                tuple(_audited_latents(tables, group.iloc[0])),
            )
        )
    return lines


def audit_note(tables: Tables) -> str:
    """Say why audits have no p-value, where they have none; empty otherwise."""
    rows = _audit_rows(tables)
    if not rows.loc[rows["rank"].notna(), "pvalue"].isna().any():
        return ""
    return (
        "Some audits have no p-value: each seed saw all rows (`subsample: 1`), there is one seed, or the adapter was "
        "not trained here. How far other rows of the same origin would move the latents is then unknown."
    )


def _line(subject: str, control: str, rows: pd.DataFrame) -> Line:
    """Sum up the rows of the result or of one control."""
    known = rows["estimate"].dropna()
    low, median, high = (None,) * 3 if known.empty else (float(known.quantile(q)) for q in (0, 0.5, 1))
    return Line(
        subject,
        control,
        median,
        low,
        high,
        n_behaviors=len(known),
        n_missing=len(rows) - len(known),
        significant=_below(rows["pvalue"], P_LEVEL),
        discovered=_below(rows["qvalue"], Q_LEVEL),
        required=len(controls_to_exceed(rows)) > 0,
    )


def _below(values: pd.Series, level: float) -> Share:
    """Count the defined values below a level."""
    known = values.dropna()
    return Share(int((known < level).sum()), len(known))


def _estimate(row: pd.Series, name: str = "estimate", ends: str = "ci") -> str:
    """Return 'estimate (low to high)', or the estimate alone."""
    around = interval(row[f"{ends}_low"], row[f"{ends}_high"])
    return f"{fixed(row[name])} ({around})" if around else fixed(row[name])


def _lead(row: pd.Series) -> str:
    """Describe the lead of the best source over the next, and whether it is significant."""
    if pd.isna(row["difference"]):
        return ""
    lead = f", {_estimate(row, 'difference', 'difference_ci')} above {words(row['rival'])}"
    known = pd.notna(row["difference_ci_low"]) and row["difference_ci_low"] > 0
    return lead if known else f"{lead} (not distinguishable)"


def _has_reference(tables: Tables) -> bool:
    """Tell whether a judge is measured against a reference: only then does the table have a true-positive rate."""
    return "judge_quality" in tables and bool(
        (real(tables["judge_quality"])["statistic"] == "true_positive_rate").any()
    )


def _judge_rows(tables: Tables) -> pd.DataFrame:
    """Return the rows of pairs with a reference, or all if there is none."""
    pair = ["subject", "source", "judge", "against"]
    if "judge_quality" not in tables:
        return pd.DataFrame(columns=[*pair, "statistic"])
    rows = real(tables["judge_quality"])
    if _has_reference(tables):
        rows = rows.merge(rows.loc[rows["statistic"] == "true_positive_rate", pair], on=pair)
    return rows


def _audit_rows(tables: Tables) -> pd.DataFrame:
    """Return the audits' rows at the primary combination."""
    if "audit" not in tables:
        return pd.DataFrame(columns=["subject", "audit", "rank", "pvalue"])
    return tables["audit"][tables["audit"]["primary"].astype(bool)]


def _audited_latents(tables: Tables, of: pd.Series) -> Iterator[str]:
    """Yield the explanations of the latents that an audit ranks first."""
    if "audit_latents" not in tables:
        return
    rows = tables["audit_latents"]
    for name in ("subject", "audit", "adapter", "measure"):
        rows = rows[(rows[name] == of[name]).astype(bool)]
    for row in rows.sort_values("rank").head(N_AUDITED).itertuples():
        direction = "more" if row.difference > 0 else "less"
        yield f"{direction}: {shorten(row.explanation, MAX_EXPLANATION)} ({row.latent_index})"
