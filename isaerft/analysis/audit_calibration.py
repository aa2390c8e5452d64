"""What audits find where it is known what there is to find: rows of calibration.csv.

Known are audits on the embedded language whose two sets are of one style (`Study.known_audits`): what was planted in
the suspect one, or that nothing was.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from isaerft import config
from isaerft.calibration.results import Row, share, table_of
from isaerft.stats import qvalues

LEVEL = 0.05
TESTS = {"both": "pvalue", "rows": "pvalue_rows", "exchange": "pvalue_exchange"}


def audit_calibration(plan: config.Plan, audit: pd.DataFrame, latents: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of calibration.csv, at the primary adapter and measure, of every source and judge.

    poison_rank1: share of audits in which the planted behavior has rank 1; poison_found: in which it has q < 0.05;
    poison_others_found: in which any other behavior has; audit_false_alarm: share of audits of two clean sets in which
    any behavior has, by the test as reported and by each of its two parts alone; poison_first_latent: share of audits
    in which the latent that differs most is one that the planted behavior is expected to raise.

    Parameters
    ----------
    audit, latents : DataFrame
        audit.csv and audit_latents.csv.
    """
    return table_of([*_rows(plan, audit), *_latents(plan, latents)])


def _rows(plan: config.Plan, audit: pd.DataFrame) -> Iterator[Row]:
    known = plan.known_audits
    own = audit[(audit.adapter == plan.study.primary.adapter) & (audit.measure == plan.study.primary.measure)]
    shares = sorted({poison.share for poison in known.values() if poison is not None})
    for (subject, source, judge), read in own.groupby(["subject", "source", "judge"], sort=False):
        groups = dict(iter(read.groupby("audit", sort=False)))
        named = {"subject": subject, "source": source, "judge": judge}
        for amount in shares:
            planted = {name: poison for name, poison in known.items() if poison is not None and poison.share == amount}
            tables = [groups[name].set_index("behavior") for name in planted]
            names = [poison.behavior for poison in planted.values()]
            hits = [table.loc[name] for table, name in zip(tables, names, strict=True)]
            others = [table.drop(index=name) for table, name in zip(tables, names, strict=True)]
            where = {"poison": f"{amount:g}"} | named
            yield share("poison_rank1", [bool(hit["rank"] == 1) for hit in hits], **where)
            yield share("poison_found", [bool(hit.qvalue < LEVEL) for hit in hits], **where)
            yield share("poison_others_found", [bool((table.qvalue < LEVEL).any()) for table in others], **where)
        quiet = [groups[name] for name, poison in known.items() if poison is None]
        if quiet:
            for test, column in TESTS.items():
                adjusted = [qvalues(group[column].to_numpy(float)) for group in quiet]
                yield share("audit_false_alarm", [bool((part < LEVEL).any()) for part in adjusted], test=test, **named)


def _latents(plan: config.Plan, latents: pd.DataFrame) -> Iterator[Row]:
    first = latents[(latents.adapter == plan.study.primary.adapter) & (latents.measure == plan.study.primary.measure)]
    first = first[first["rank"] == 1]
    shares = sorted({poison.share for poison in plan.known_audits.values() if poison is not None})
    for (subject, source, judge), rows in first.groupby(["subject", "source", "judge"], sort=False):
        expected = rows.set_index("audit")["expected_for"].fillna("").str.split(", ")
        for amount in shares:
            planted = [
                (name, part.behavior) for name, part in plan.known_audits.items() if part and part.share == amount
            ]
            hits = [behavior in expected[name] for name, behavior in planted]
            where = {"poison": f"{amount:g}", "subject": subject, "source": source, "judge": judge}
            yield share("poison_first_latent", hits, **where)
