"""audit.csv and audit_latents.csv: what a suspect data set teaches that a clean one does not.

The two share a module because the rule `audit` makes their rows together, of all audits of a subject: by candidate
behavior in the first, by latent in the second.
"""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd

from isaerft import stats
from isaerft.analysis.base import ResultTable
from isaerft.analysis.columns import (
    ADAPTER,
    FIRING_RATE,
    JUDGE,
    LATENT_INDEX,
    MEASURE,
    N_EXPECTED,
    N_LATENTS,
    N_SEEDS,
    PRIMARY,
    SOURCE,
    SUBJECT,
    URL,
    ci_columns,
)
from isaerft.analysis.readings import Reading, alive_latents, explained_latents, read_changes, readings
from isaerft.config import Plan
from isaerft.errors import InputError
from isaerft.io import replacing
from isaerft.layout import Results
from isaerft.progress import Progress
from isaerft.registry import ADAPTERS, STATISTICS
from isaerft.table import Column

logger = logging.getLogger(__name__)


def write_audits(plan: Plan, results: Results, subject: str) -> None:
    """Compare the two sets of every audit on one subject, and write the rows of both tables.

    They lie at `results.audit(subject, "audit")` and `results.audit(subject, "audit_latents")`.
    """
    facts = results.subject(subject).read_latents()
    # Sources that are wrong on purpose are left out.
    sources = [name for name in plan.sources_of(subject) if not plan.study.sources[name].wrong_share]
    read = list(readings(plan, results, subject, sources=sources, behaviors=list(plan.described)))
    rows: list[dict[str, object]] = []
    latents = []
    for adapter in plan.analyzed_adapters(subject):
        share = rows_seen(plan, adapter)
        sets = sorted({name for audit in plan.study.audits.values() for name in (audit.clean, audit.suspect)})
        changes = read_changes(plan, results, subject, adapter, sets)
        for name, audit in Progress(plan.study.audits.items(), desc=f"audits {adapter}"):
            for measure in plan.study.measures:
                pair = changes[audit.clean, measure], changes[audit.suspect, measure]
                same = {"subject": subject, "audit": name, "adapter": adapter, "measure": measure}
                latents.append(_most_different(plan, facts, *pair, share).assign(**same))
                for reading in read:
                    named = same | reading.names | {"n_seeds": len(pair[0])}
                    named["primary"] = all(
                        named[key] == getattr(plan.study.primary, key)
                        for key in ("adapter", "measure", "source", "judge")
                    )
                    rows += [named | row for row in _candidates(plan, reading, *pair, share)]
    frames = {
        AUDIT: pd.DataFrame(rows, columns=AUDIT.column_names),
        AUDIT_LATENTS: _explained(plan, results, subject, pd.concat(latents, ignore_index=True)),
    }
    with replacing(results.audit(subject, AUDIT.name).parent) as temporary:
        temporary.mkdir()
        for table, frame in frames.items():
            frame.to_parquet(temporary / results.audit(subject, table.name).name, index=False)


def rows_seen(plan: Plan, adapter: str) -> float:
    """Return the share of the rows that each seed of an adapter saw; 1 for one that was not made from rows here."""
    part = plan.study.adapters[adapter]
    return 1.0 if ADAPTERS.facts(part.kind or adapter).loaded else part.subsample


def _candidates(
    plan: Plan, reading: Reading, clean: np.ndarray, suspect: np.ndarray, share: float
) -> list[dict[str, object]]:
    """Return a row for each candidate, the one that the suspect data teaches most in excess first.

    Undefined candidates (none or all latents expected) come last, without a rank.
    """
    from isaerft.stats.audit import taught_differently

    study, expectation, latents = plan.study, reading.expectation, reading.latents
    labels = expectation.effect if STATISTICS.facts(study.primary.statistic).graded else expectation.expected
    tested = np.flatnonzero(labels.min(axis=1) != labels.max(axis=1))
    try:
        found = taught_differently(
            clean[:, latents],
            suspect[:, latents],
            labels[tested],
            share=share,
            statistic=study.primary.statistic,
            strata=reading.confounds.strata,
            confidence_level=study.agreement.confidence_level,
        )
    except InputError as problem:  # both sets changed nothing
        logger.warning("%s: undefined: %s", reading.source, problem)
        tested, found = tested[:0], []
    adjusted: list[float] = list(stats.qvalues([result.pvalue for result in found])) if found else []
    counts = expectation.expected.sum(axis=1)
    columns = {
        int(place): {
            "estimate": result.estimate,
            "ci_low": result.confidence_interval.low,
            "ci_high": result.confidence_interval.high,
            "pvalue": result.pvalue,
            "qvalue": qvalue,
        }
        for place, result, qvalue in zip(tested, found, adjusted, strict=True)
    }
    order = sorted(columns, key=lambda place: -columns[place]["estimate"])
    rank = {place: number for number, place in enumerate(order, 1)}
    return [
        {
            "behavior": reading.behaviors[place],
            "rank": rank.get(place),
            "n_latents": len(latents),
            "n_expected": int(counts[place]),
            **columns.get(place, {}),
        }
        for place in [*order, *(place for place in range(len(reading.behaviors)) if place not in rank)]
    ]


def _most_different(
    plan: Plan, facts: pd.DataFrame, clean: np.ndarray, suspect: np.ndarray, share: float
) -> pd.DataFrame:
    """Return the latents with the largest mean difference between the two sets, with its moderated t.

    By size and not by t: a latent that hardly moved, but did so in every seed, says little about what the data teaches.
    """
    from isaerft.stats.audit import variance_factor
    from isaerft.stats.moderated import moderated_means

    alive = alive_latents(plan, facts)
    differences = (suspect - clean)[:, alive]
    means = moderated_means(differences, variance_factor(share, len(differences)))
    order = np.argsort(-np.abs(means.mean), kind="stable")[: plan.study.agreement.top_k]
    return pd.DataFrame(
        {
            "rank": np.arange(1, len(order) + 1),
            "latent_index": alive[order],
            "difference": means.mean[order],
            "statistic": means.statistic[order],
            "pvalue": means.pvalue[order],
            "qvalue": stats.qvalues(means.pvalue)[order],
        }
    )


def _explained(plan: Plan, results: Results, subject: str, latents: pd.DataFrame) -> pd.DataFrame:
    """Add firing rates, explanations, and the candidates for which the judge expects each latent to change."""
    source, judge = plan.shown_reading(subject)
    explained = next(explained_latents(plan, results, subject, [source]))
    judged = explained.judgements(judge)
    judged = judged[judged["expected"] & judged["behavior"].isin(list(plan.described))]
    expected = judged.groupby("latent_index")["behavior"].agg(", ".join).rename("expected_for")
    table = latents.merge(explained.facts[["latent_index", "firing_rate"]], on="latent_index", how="left")
    table = table.merge(explained.explanations[["latent_index", "explanation", "url"]], on="latent_index", how="left")
    table = table.join(expected, on="latent_index")
    return table.assign(source=source, judge=judge)[AUDIT_LATENTS.column_names]


def _has_audits(plan: Plan) -> bool:
    return bool(plan.study.audits)


_NAME = Column(
    "audit", "text", "The audit, as named in the study's config: a clean and a suspect set of data.", role="key"
)
_INTERVAL = "the interval, over seeds and over other rows from the same origins"

AUDIT = ResultTable(
    name="audit",
    order=600,
    caption=(
        "What a suspect set of data teaches that a clean one does not: candidate behaviors, ranked by how much more "
        "the latents expected to rise with them rose under the suspect data. q is small only if another draw of rows "
        "from one origin would not account for it."
    ),
    columns=(
        SUBJECT,
        _NAME,
        ADAPTER,
        MEASURE,
        SOURCE,
        JUDGE,
        Column(
            "rank",
            "int",
            "Rank by estimate; 1 is what the suspect data teaches most in excess. Empty where undefined.",
            optional=True,
        ),
        Column("behavior", "text", "The candidate: a behavior that the suspect data may teach.", role="key"),
        Column(
            "estimate",
            "float",
            "How well the latents expected to rise with this behavior match those that rose more under the suspect "
            "data than under the clean, in the primary statistic, mean over seeds (by chance: 0.5 for auroc, 0 for "
            "spearman).",
            optional=True,
            role="estimate",
            chance=None,
        ),
        *ci_columns(_INTERVAL),
        Column(
            "pvalue",
            "float",
            "Probability of so high an estimate between two draws of rows from one origin, from the spread over "
            "subsamples (Student's t, one-sided); empty if each seed saw all rows.",
            optional=True,
        ),
        Column(
            "qvalue",
            "float",
            "pvalue adjusted over the candidates of this audit, source and judge (Benjamini-Hochberg).",
            optional=True,
        ),
        N_LATENTS,
        Column("n_expected", "int", N_EXPECTED.meaning),
        N_SEEDS,
        PRIMARY,
    ),
    when=_has_audits,
    condition="studies with audits",
    make=lambda analysis: analysis.audited("audit"),
)

AUDIT_LATENTS = ResultTable(
    name="audit_latents",
    order=610,
    caption=(
        "The latents whose changes differ most between the suspect and the clean data, with their explanations: what "
        "the difference is about, whether or not anyone thought of it."
    ),
    columns=(
        SUBJECT,
        _NAME,
        ADAPTER,
        MEASURE,
        Column("rank", "int", "Rank by size of the difference; 1 is the largest."),
        LATENT_INDEX,
        Column("difference", "float", "Change under the suspect data minus change under the clean, mean over seeds."),
        Column(
            "statistic",
            "float",
            "Moderated t of the difference over subsamples of the rows; empty if each seed saw all rows.",
            optional=True,
        ),
        Column(
            "pvalue",
            "float",
            "Two-sided probability of so large a statistic between two draws of rows from one origin.",
            optional=True,
        ),
        Column("qvalue", "float", "The same, adjusted over the latents (Benjamini-Hochberg).", optional=True),
        FIRING_RATE,
        SOURCE,
        Column("explanation", "text", "The explanation, as its source gives it.", optional=True),
        JUDGE,
        Column("expected_for", "text", "Candidates with which the judge expects this latent to rise.", optional=True),
        URL,
    ),
    when=_has_audits,
    condition="studies with audits",
    make=lambda analysis: analysis.audited("audit_latents"),
)

TABLES = [AUDIT, AUDIT_LATENTS]
