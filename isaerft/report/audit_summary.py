"""What audits found, one line each: what the suspect data teaches that the clean data does not."""

from __future__ import annotations

from typing import Any

import pandas as pd

from isaerft.report.headline import Q_LEVEL
from isaerft.report.selection import Tables
from isaerft.report.text import DASH, fixed, shorten, visible, words

N_LATENTS = 5
WIDTH = 70
NO_PVALUE = (
    "Some have no p-value: each seed saw all rows (`subsample: 1`), there is one seed, or the adapter was given, so "
    "that nothing is known of how far other rows of the same origin would have moved the same latents."
)


def audit_lines(tables: Tables) -> list[dict[str, Any]]:
    """Return one line per subject and audit, at the primary combination; none where a study audits nothing.

    Keys: names (subject, audit), first (the behavior of rank 1), estimate, interval, qvalue, found (behaviors with
    q < `Q_LEVEL`) and latents (explanations of the latents that were trained most differently).
    """
    if "audit" not in tables:
        return []
    rows = tables["audit"]
    rows = rows[rows["primary"].astype(bool)]
    lines = []
    for (subject, audit), group in rows.groupby(["subject", "audit"], sort=False):
        ranked = group[group["rank"].notna()].sort_values("rank")
        found = ranked[(ranked["qvalue"] < Q_LEVEL).fillna(False)]["behavior"]
        first = ranked.iloc[0] if len(ranked) else None
        lines.append(
            {
                "names": [visible(subject), visible(audit)],
                "first": DASH if first is None else words(first.behavior),
                "numbers": _numbers(first),
                "found": ", ".join(map(words, found)) or "none",
                "latents": _latents(tables, group.iloc[0]),
            }
        )
    return lines


def audit_notes(tables: Tables) -> list[str]:
    """Return what a reader must know before believing the lines."""
    if "audit" not in tables:
        return []
    rows = tables["audit"]
    rows = rows[rows["primary"].astype(bool) & rows["rank"].notna()]
    return [NO_PVALUE] if rows["pvalue"].isna().any() else []


def _numbers(first: Any) -> list[str]:
    """Return estimate, interval and q-value of the first candidate as text."""
    if first is None:
        return [DASH] * 3
    known = pd.notna(first.ci_low)
    interval = f"{fixed(first.ci_low)} to {fixed(first.ci_high)}" if known else DASH
    return [fixed(first.estimate), interval, f"{first.qvalue:.2g}" if pd.notna(first.qvalue) else DASH]


def _latents(tables: Tables, of: Any) -> list[str]:
    """Return the explanations of the first latents, each with the way in which it differs."""
    if "audit_latents" not in tables:
        return []
    rows = tables["audit_latents"]
    for name in ("subject", "audit", "adapter", "measure"):
        rows = rows[(rows[name] == of[name]).astype(bool)]
    return [
        f"{'more' if row.difference > 0 else 'less'}: {shorten(row.explanation, WIDTH)} ({row.latent_index})"
        for row in rows.sort_values("rank").head(N_LATENTS).itertuples()
    ]
