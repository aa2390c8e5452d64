"""What a result table is, and what the makers of a study's tables share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from isaerft import stats
from isaerft.analysis.readings import (
    Changes,
    ExplainedLatents,
    Reading,
    explained_latents,
    primary_reading,
    read_changes,
    readings,
)
from isaerft.config import Plan
from isaerft.layout import Results
from isaerft.table import Table


def always(plan: Plan) -> bool:
    """Tell that every study has a table."""
    return True


@dataclass(frozen=True, kw_only=True)
class ResultTable(Table):
    """A table of results: what it holds, which studies have it, and how it is made.

    Parameters
    ----------
    order : int
        Position among the tables: subjects and training from 100, agreement from 200, explanations from 300, judges
        from 400, scores from 500, audits from 600, calibration from 700.
    make : callable
        Makes its rows; columns that they lack are left empty.
    when : callable
        Tells whether a study has it.
    condition : str
        The same in words, for the documentation.
    """

    order: int
    make: Callable[[Analysis], pd.DataFrame]
    when: Callable[[Plan], bool] = always
    condition: str = "every study"


@dataclass(frozen=True)
class Analysis:
    """One study's plan and results, with the tables made so far.

    Attributes
    ----------
    plan : Plan
    results : Results
    tables : mapping of str to ResultTable
        The tables that can be made, by name.
    frames : dict of str to DataFrame
        Tables by name, as their makers gave them; numbers are not rounded.
    """

    plan: Plan
    results: Results
    tables: Mapping[str, ResultTable] = field(repr=False)
    frames: dict[str, pd.DataFrame] = field(default_factory=dict, repr=False)

    def frame(self, name: str) -> pd.DataFrame:
        """Return a table of this study; it is made once."""
        if name not in self.frames:
            made = self.tables[name]
            self.frames[name] = made.make(self).reindex(columns=made.column_names)
        return self.frames[name]

    def facts(self, subject: str) -> pd.DataFrame:
        """Return the facts of a subject's latents, one row each."""
        return self.results.subject(subject).read_latents()

    def changes(self, subject: str, adapter: str) -> Changes:
        """Return (behavior, measure) -> changes of one adapter, (n_seeds, d_sae)."""
        return read_changes(self.plan, self.results, subject, adapter)

    def explained(self, subject: str, sources: Sequence[str] | None = None) -> Iterator[ExplainedLatents]:
        """Yield a subject's latents as each source, or each of those named, explains them."""
        return explained_latents(self.plan, self.results, subject, sources)

    def shown_explanations(self, subject: str) -> dict[int, str]:
        """Return latent -> explanation of the source that tables of single latents show; empty where it has none."""
        source, _ = self.plan.shown_reading(subject)
        if source not in self.plan.sources_of(subject):
            return {}
        (explained,) = self.explained(subject, [source])
        return dict(zip(explained.explanations["latent_index"], explained.explanations["explanation"], strict=True))

    def readings(self, subject: str, sources: Sequence[str] | None = None) -> Iterator[Reading]:
        """Yield every source, or each of those named, with every judge by which agreement is tested."""
        return readings(self.plan, self.results, subject, sources=sources)

    def primary_reading(self, subject: str) -> Reading | None:
        """Return the reading of the primary result; None where its source does not explain the subject."""
        return primary_reading(self.plan, self.results, subject)

    def provenance(self, table: pd.DataFrame) -> pd.Series:
        """Return the provenance of the explanations behind each row of a table with the columns subject and source."""
        found = {
            (subject, source): provenance_of(part)["provenance"]
            for subject, rows in table.groupby("subject")
            for source in rows["source"].unique()
            for part in self.explained(subject, [source])
        }
        pairs = zip(table["subject"], table["source"], strict=True)
        return pd.Series([found[pair] for pair in pairs], index=table.index, dtype="str")

    def tested(self, table: str) -> pd.DataFrame:
        """Return the rows of a table that the rule `agreement` wrote, of all subjects and adapters."""
        paths = [
            self.results.agreement(subject, adapter).rows(table)
            for subject in self.plan.study.subjects
            for adapter in self.plan.analyzed_adapters(subject)
        ]
        return pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True)

    def of_baselines(self, table: str) -> pd.DataFrame:
        """Return the rows of a table that the rule `agreement` wrote of random baselines, as controls of subjects."""
        frames = []
        for twin, (base, control) in self.plan.baselines.items():
            for adapter in self.plan.analyzed_adapters(twin):
                frame = pd.read_parquet(self.results.agreement(twin, adapter).rows(table))
                frames.append(frame.assign(subject=base, control=control))
        return pd.concat(frames, ignore_index=True)

    def audited(self, table: str) -> pd.DataFrame:
        """Return the rows of a table that the rule `audit` wrote, of all subjects."""
        paths = [self.results.audit(subject, table) for subject in self.plan.study.subjects]
        return pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True)


def provenance_of(part: ExplainedLatents) -> dict[str, Any]:
    """Return what is known of where explanations come from; files from before it was kept do not say."""
    nothing = {"provenance": "unknown", "n_compared": 0, "n_recognized": 0}
    return nothing | dict(part.explanations.attrs.get("provenance", {}))


def is_primary(plan: Plan, table: pd.DataFrame) -> pd.Series:
    """Tell which rows are of the study's primary adapter, measure, source, judge and statistic."""
    named = pd.Series(True, index=table.index)
    for column in ("adapter", "measure", "source", "judge", "statistic"):
        named &= table[column] == getattr(plan.study.primary, column)
    return named


def with_qvalues(
    plan: Plan, table: pd.DataFrame, question: Sequence[str], among: pd.Series | None = None
) -> pd.DataFrame:
    """Add the columns `family` and `qvalue`.

    Parameters
    ----------
    plan : Plan
    table : DataFrame
        With the columns pvalue, primary, source and those of `question`.
    question : sequence of str
        Columns that name what a reader asks: rows that are alike in them are the tests of one family.
    among : (n_rows,) bool, optional
        Rows that make a claim; all when not given. Explanations that are wrong on purpose never do.

    Returns
    -------
    DataFrame
        Rows that make no claim have neither. The primary result was named before the run, so its families are
        adjusted on their own (`stats.qvalues`), all others for the choice among them (`stats.family_qvalues`).
    """
    wrong = [name for name, part in plan.study.sources.items() if part.wrong_share]
    claims = ~table["source"].isin(wrong)
    if among is not None:
        claims &= among
    parts = (table[name].astype(str) for name in question)
    names = pd.Series([", ".join(row) for row in zip(*parts, strict=True)], index=table.index, dtype=str)
    table = table.assign(family=names.where(claims), qvalue=np.nan)
    for _, rows in table[claims & table["primary"]].groupby("family"):
        table.loc[rows.index, "qvalue"] = stats.qvalues(rows["pvalue"].to_numpy(float))
    others = table[claims & ~table["primary"]]
    found = stats.family_qvalues(others["pvalue"].to_numpy(float), others["family"].to_numpy(str))
    table.loc[others.index, "qvalue"] = found
    return table
