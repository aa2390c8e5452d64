"""What is published: the verdicts of a finished study on one source's explanations of one subject."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from isaerft import analysis
from isaerft.config import Plan
from isaerft.errors import InputError, shown
from isaerft.explanations import read_explanations
from isaerft.explanations.base import MAKER
from isaerft.explanations.neuronpedia.records import SourceId, parse_source_id, source_id_of
from isaerft.layout import Results

PUBLISHED = ("supported", "contradicted", "absorbed")
"""Verdicts that say something; the others (inconclusive, untestable) only go into the data set."""


@dataclass(frozen=True)
class Verdicts:
    """The verdicts on one source's explanations of one subject, as one judge reads them.

    Attributes
    ----------
    plan : Plan
    subject, source, judge : str
    rows : DataFrame
        Rows of explanation_verdicts.csv, with the explanation's side, maker and url, "" where nobody says.
    facts : dict
        The subject's row of subjects.csv.
    provenance : str
        Whether the explanations are known to be of this SAE, as in explained_latents.csv.
    source_id : SourceId or None
        The dictionary at Neuronpedia; None if it is not known.
    source_id_given : bool
        Whether the caller named it, and so vouches for it.
    """

    plan: Plan
    subject: str
    source: str
    judge: str
    rows: pd.DataFrame
    facts: dict[str, Any]
    provenance: str
    source_id: SourceId | None
    source_id_given: bool

    @property
    def title(self) -> str:
        """What they are about, in words."""
        study = self.plan.study.study
        return f"{study}: {self.source} on {self.subject}, read by {self.judge}"

    @cached_property
    def telling(self) -> pd.DataFrame:
        """The rows whose verdict is one of `PUBLISHED`, verdict by verdict, the most certain first."""
        rows = self.rows[self.rows.verdict.isin(PUBLISHED)]
        certainty = rows.qvalue.where(rows.verdict == "supported", rows.contradiction_qvalue)
        order = rows.verdict.map({name: place for place, name in enumerate(PUBLISHED)})
        return rows.assign(order=order, certainty=certainty).sort_values(
            ["order", "certainty", "latent_index"], kind="stable"
        )[list(self.rows)]

    @property
    def at_neuronpedia(self) -> SourceId:
        """The dictionary at Neuronpedia; an unknown one, or explanations of unknown provenance, are an `InputError`."""
        if self.source_id is None:
            raise InputError(
                f"nobody says which dictionary at Neuronpedia the SAE of {self.subject!r} is",
                remedy="give it with --source-id MODEL/SOURCE, as in gemma-2-2b/20-gemmascope-res-16k",
            )
        if self.provenance == "unknown" and not self.source_id_given:
            raise InputError(
                f"it is not known that the explanations of {self.source!r} are of {self.subject!r}: verdicts on them"
                " may be about another SAE",
                remedy=f"if you vouch for it, add --source-id {'/'.join(self.source_id)}",
            )
        return self.source_id

    def counts(self) -> str:
        """Return how many explanations have each verdict, in words."""
        counts = self.rows.verdict.value_counts()
        return ", ".join(f"{n:,} {name}" for name, n in counts.items())


def read_verdicts(
    plan: Plan,
    results: Results,
    subject: str,
    *,
    source: str | None = None,
    judge: str | None = None,
    source_id: str | None = None,
) -> Verdicts:
    """Read the verdicts of a finished study.

    Parameters
    ----------
    plan : Plan
    results : Results
    subject : str
    source, judge : str, optional
        Those of the study's primary result by default.
    source_id : str, optional
        The dictionary at Neuronpedia, `{model}/{source}`; as the study's files say by default.

    Raises
    ------
    InputError
        The study has no such verdicts, its source is wrong on purpose, or `source_id` is malformed.
    """
    source, judge = source or plan.study.primary.source, judge or plan.study.primary.judge
    if plan.study.sources[source].wrong_share:
        raise InputError(f"source {source!r} is wrong on purpose", allowed="sources that mean what they say")
    table = analysis.table("explanation_verdicts")
    every = table.read(results.table(table.name))
    rows = every[(every.subject == subject) & (every.source == source) & (every.judge == judge)]
    if rows.empty:
        readings = sorted({tuple(key) for key in every[["subject", "source", "judge"]].drop_duplicates().to_numpy()})
        raise InputError(
            f"{results.table(table.name)} has no verdicts on {source!r} of {subject!r} read by {judge!r}",
            allowed=shown([" / ".join(key) for key in readings]),
        )
    subjects = analysis.table("subjects").read(results.table("subjects"))
    facts = subjects[subjects.subject == subject].iloc[0].to_dict() if subject in set(subjects.subject) else {}
    explained = analysis.table("explained_latents")
    known = explained.read(results.table(explained.name))
    provenance = known.provenance[(known.subject == subject) & (known.source == source)]
    return Verdicts(
        plan, subject, source, judge, _with_makers(rows, results, subject, source), facts,
        provenance.iloc[0] if len(provenance) else "unknown",
        _source_id(plan, results, subject, source, source_id), source_id is not None,
    )  # fmt: skip


def _with_makers(rows: pd.DataFrame, results: Results, subject: str, source: str) -> pd.DataFrame:
    """Return verdicts with each explanation's side, maker and url, from the file of explanations if it is there."""
    path = results.explanations(subject, source)
    if not path.is_file():
        return rows.assign(side="", maker="", url="")
    known = read_explanations(path).set_index("latent_index")
    known = known.assign(maker=known.get(MAKER, ""))
    return rows.join(known[["side", "maker", "url"]], on="latent_index").fillna({"side": "", "maker": "", "url": ""})


def _source_id(plan: Plan, results: Results, subject: str, source: str, given: str | None) -> SourceId | None:
    """Return the dictionary at Neuronpedia: as given, as the source's options say, or as the SAE says."""
    if given is not None:
        return parse_source_id(given)
    try:
        return source_id_of(plan.study.sources[source].neuronpedia.source_id, results.subject(subject).path)
    except InputError:
        return None
