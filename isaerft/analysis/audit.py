"""The rows of audit.csv and audit_latents.csv: what one set of data teaches that another of its kind does not."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from isaerft import config
from isaerft.analysis.inputs import (
    Confounds,
    Expectation,
    alive_latents,
    confounds_of,
    judges_of,
    read_changes,
    read_expectation,
    sources_of,
)
from isaerft.errors import InputError
from isaerft.explanations import read_explanations, read_sample, sample_path
from isaerft.io import replacing
from isaerft.judges import read_judgements
from isaerft.layout import SubjectFolder
from isaerft.registry import ADAPTERS
from isaerft.stats import STATISTICS, qvalues
from isaerft.stats.audit import Taught, moderated_means, taught_differently, variance_factor
from isaerft.table import TABLES

logger = logging.getLogger(__name__)


AUDIT, AUDIT_LATENTS = "audit.parquet", "audit_latents.parquet"


def write_audits(plan: config.Plan, subject: str, results: str | Path, out: str | Path) -> None:
    """Compare the two sets of every audit on one subject; write the parts of both tables under `out`."""
    results = Path(results)
    facts = SubjectFolder(results / "subjects" / subject).read_latents()
    readings = list(_readings(plan, subject, results, facts))
    rows: list[dict[str, Any]] = []
    latents = []
    for adapter in plan.analysed_adapters(subject):
        share = rows_seen(plan, adapter)
        sets = sorted({name for audit in plan.study.audits.values() for name in (audit.clean, audit.suspect)})
        changes = read_changes(plan, results / "changes", subject, adapter, sets)
        for name, audit in tqdm(plan.study.audits.items(), desc=f"audits {adapter}", disable=None):
            for measure in plan.study.measures:
                pair = changes[audit.clean, measure], changes[audit.suspect, measure]
                same = {"subject": subject, "audit": name, "adapter": adapter, "measure": measure}
                latents.append(_latents(plan, facts, *pair, share).assign(**same))
                for source, judge, expectation, confounds in readings:
                    named = same | {"source": source, "judge": judge, "n_seeds": len(pair[0])}
                    named["primary"] = (adapter, measure, source, judge) == primary_of(plan)
                    ranked = _candidates(plan, source, expectation, confounds, *pair, share)
                    rows += [named | row for row in ranked]
    frames = {
        AUDIT: pd.DataFrame(rows, columns=[column.name for column in TABLES["audit"]]),
        AUDIT_LATENTS: _explained(plan, subject, results, pd.concat(latents, ignore_index=True), facts),
    }
    with replacing(out) as temporary:
        temporary.mkdir()
        for file, frame in frames.items():
            frame.to_parquet(temporary / file, index=False)


def primary_of(plan: config.Plan) -> tuple[str, str, str, str]:
    """Return adapter, measure, source and judge of the primary result."""
    chosen = plan.study.primary
    return chosen.adapter, chosen.measure, chosen.source, chosen.judge


def rows_seen(plan: config.Plan, adapter: str) -> float:
    """Return the share of the rows that each seed of an adapter saw; 1 where it was not made from rows here."""
    part = plan.study.adapters[adapter]
    return 1.0 if ADAPTERS.facts(part.kind or adapter).made in ("given", "saved") else part.subsample


def _readings(
    plan: config.Plan, subject: str, results: Path, facts: pd.DataFrame
) -> Iterator[tuple[str, str, Expectation, Confounds]]:
    """Yield every source and judge with what they expect of each candidate; arms with wrong explanations left out."""
    for source in sources_of(plan, subject):
        if plan.study.sources[source].wrong_share:
            continue
        drawn = sample_path(plan, results, subject, source)
        sample = None if drawn is None else read_sample(drawn)
        asked = alive_latents(plan, facts) if sample is None else sample.latent_index.to_numpy()
        for judge in judges_of(plan, source, tested=True):
            path = results / "judgements" / subject / source / f"{judge}.parquet"
            expectation = read_expectation(plan, path, asked, list(plan.described))
            yield source, judge, expectation, confounds_of(plan, facts, expectation.latents, sample)


def _candidates(
    plan: config.Plan,
    source: str,
    expectation: Expectation,
    confounds: Confounds,
    clean: np.ndarray,
    suspect: np.ndarray,
    share: float,
) -> list[dict[str, Any]]:
    """Return a row for each candidate, the one that the suspect data teaches most in excess first.

    Undefined candidates (none or all latents expected) stand last, without a rank.
    """
    graded = STATISTICS.facts(plan.study.primary.statistic).graded
    labels = expectation.effect if graded else expectation.expected
    names = np.array(list(plan.described))
    latents = expectation.latents
    tested = np.flatnonzero(labels.min(axis=1) != labels.max(axis=1))
    try:
        found: list[Taught] = taught_differently(
            clean[:, latents],
            suspect[:, latents],
            labels[tested],
            share=share,
            statistic=plan.study.primary.statistic,
            **confounds.null(),
            n_resamples=plan.study.agreement.n_resamples,
            confidence_level=plan.study.agreement.confidence_level,
            rng=plan.study.seed,
        )
    except InputError as problem:  # both sets changed nothing, or the strata leave nothing to exchange
        logger.warning("%s: undefined: %s", source, problem)
        tested, found = tested[:0], []
    adjusted = qvalues([result.pvalue for result in found]) if found else []
    counts = expectation.expected.sum(axis=1)
    columns = {
        int(place): {
            "estimate": result.estimate,
            "ci_low": result.confidence_interval.low,
            "ci_high": result.confidence_interval.high,
            "pvalue_rows": result.pvalue_rows,
            "pvalue_exchange": result.pvalue_exchange,
            "pvalue": result.pvalue,
            "qvalue": qvalue,
        }
        for place, result, qvalue in zip(tested, found, adjusted, strict=True)
    }
    order = sorted(columns, key=lambda place: -columns[place]["estimate"])
    rank = {place: number for number, place in enumerate(order, 1)}
    return [
        {"behavior": names[place], "rank": rank.get(place), "n_latents": len(latents), "n_expected": int(counts[place])}
        | columns.get(place, {})
        for place in [*order, *(place for place in range(len(names)) if place not in rank)]
    ]


def _latents(
    plan: config.Plan, facts: pd.DataFrame, clean: np.ndarray, suspect: np.ndarray, share: float
) -> pd.DataFrame:
    """Return the latents with the largest mean difference between the two sets, beside its moderated t.

    By size and not by t: a latent that hardly moved, but did so in every seed, says little of what the data teaches.
    """
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
            "qvalue": qvalues(means.pvalue)[order],
        }
    )


def _explained(
    plan: config.Plan, subject: str, results: Path, latents: pd.DataFrame, facts: pd.DataFrame
) -> pd.DataFrame:
    """Add firing rates, and what is said of each latent and for which candidates that lets its primary judge expect it.

    Where the primary source does not speak of the subject, the first that does takes its place, with its first judge.
    """
    source, judge = plan.study.primary.source, plan.study.primary.judge
    if source not in sources_of(plan, subject):
        source = sources_of(plan, subject)[0]
        judge = judges_of(plan, source, tested=True)[0]
    judged = read_judgements(results / "judgements" / subject / source / f"{judge}.parquet")
    judged = judged[judged["expected"] & judged["behavior"].isin(list(plan.described))]
    expected = judged.groupby("latent_index")["behavior"].agg(", ".join).rename("expected_for")
    said = read_explanations(results / "explanations" / subject / f"{source}.parquet")
    table = latents.merge(facts[["latent_index", "firing_rate"]], on="latent_index", how="left")
    table = table.merge(said[["latent_index", "explanation", "url"]], on="latent_index", how="left")
    table = table.join(expected, on="latent_index")
    return table.assign(source=source, judge=judge)[[column.name for column in TABLES["audit_latents"]]]
