"""How good the judges are, and what agreement would be without their mistakes.

Judges of one source are compared pair by pair on the (latent, behavior) pairs that both judged; the unit of every
interval is the explanation, which a judge reads once for all behaviors and all latents that have it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from isaerft import config
from isaerft.analysis.inputs import alive_latents, judges_of, sources_of
from isaerft.explanations import read_explanations
from isaerft.judges import read_judgements
from isaerft.layout import SubjectFolder
from isaerft.stats import (
    ConfidenceInterval,
    agreement_of_judges,
    corrected_auroc,
    corrected_correlation,
    predictive_values,
    rank_agreement,
)
from isaerft.table import TABLES

ONE_SIDED = ("sensitivity", "specificity")
CORRECTED = ("auroc", "spearman")


def judge_quality(plan: config.Plan, results: Path) -> pd.DataFrame:
    """Return the rows of judge_quality.csv; sensitivity and specificity only against a reference."""
    rows = []
    for subject in plan.study.subjects:
        alive = alive_latents(plan, SubjectFolder(results / "subjects" / subject).read_latents())
        for source in sources_of(plan, subject):
            names = judges_of(plan, source)
            if len(names) > 1:
                tables = _read(results, subject, source, names, alive)
                for judge, against in _pairs(plan, names):
                    same = {"subject": subject, "source": source, "judge": judge, "against": against}
                    rows += [same | row for row in _compared(plan, tables[judge], tables[against], against)]
    return pd.DataFrame(rows, columns=[column.name for column in TABLES["judge_quality"]])


def _read(results: Path, subject: str, source: str, names: list[str], alive: np.ndarray) -> dict[str, pd.DataFrame]:
    """Return each judge's table for the latents that are alive, with the number of each latent's explanation."""
    said = read_explanations(results / "explanations" / subject / f"{source}.parquet")
    texts = pd.Series(pd.factorize(said["explanation"])[0], index=said["latent_index"], name="text")
    tables = {}
    for name in names:
        table = read_judgements(results / "judgements" / subject / source / f"{name}.parquet")
        table = table[table.latent_index.isin(alive)].drop(columns=["confidence", "rationale"])
        tables[name] = table.join(texts, on="latent_index")
    return tables


def _pairs(plan: config.Plan, names: list[str]) -> Iterator[tuple[str, str]]:
    """Yield each pair of judges once, a reference in second place."""
    for first, second in combinations(names, 2):
        if plan.study.judges[first].reference and not plan.study.judges[second].reference:
            first, second = second, first
        yield first, second


def _compared(plan: config.Plan, judge: pd.DataFrame, against: pd.DataFrame, name: str) -> Iterator[dict[str, Any]]:
    """Yield one row per statistic for two judges of the same explanations."""
    both = judge.merge(against.drop(columns="text"), on=["latent_index", "behavior"], suffixes=("", "_against"))
    if both.empty:
        return
    clusters, level = both["text"].to_numpy(), plan.study.agreement.confidence_level
    found = agreement_of_judges(
        both["expected"].to_numpy(),
        both["expected_against"].to_numpy(),
        clusters,
        confidence_level=level,
        rng=np.random.default_rng(plan.study.seed),
    )
    effects = both["expected_effect"].to_numpy(), both["expected_effect_against"].to_numpy()
    found["spearman"] = rank_agreement(*effects, clusters, confidence_level=level)
    counts = {"n_explanations": both["text"].nunique(), "n_latents": both["latent_index"].nunique()}
    counts["n_judgements"] = len(both)
    for statistic, (estimate, interval) in found.items():
        if statistic not in ONE_SIDED or plan.study.judges[name].reference:
            yield counts | {
                "statistic": statistic,
                "estimate": estimate,
                "ci_low": interval.low,
                "ci_high": interval.high,
            }


def corrected_agreement(plan: config.Plan, agreement: pd.DataFrame, quality: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of corrected_agreement.csv: results by judges that were measured against a reference.

    Parameters
    ----------
    agreement : DataFrame
        agreement.csv.
    quality : DataFrame
        judge_quality.csv.
    """
    references = [name for name, judge in plan.study.judges.items() if judge.reference]
    known = quality.set_index(["subject", "source", "judge", "against", "statistic"])["estimate"].to_dict()
    results = agreement[(agreement.control == "none") & agreement.statistic.isin(CORRECTED)]
    rows = []
    for row in results.itertuples():
        for against in references:
            pair = (row.subject, row.source, row.judge, against)
            rates = {name: known[*pair, name] for name in (*ONE_SIDED, "spearman") if (*pair, name) in known}
            if rates:
                rows.append(_corrected(row, rates) | {"against": against})
    return pd.DataFrame(rows, columns=[column.name for column in TABLES["corrected_agreement"]])


def _corrected(row: Any, rates: dict[str, float]) -> dict[str, Any]:
    """Return one result beside its corrected value and the rates that it was corrected by."""
    same = ("subject", "behavior", "adapter", "measure", "source", "judge", "statistic", "estimate")
    interval = ConfidenceInterval(row.ci_low, row.ci_high)
    if row.statistic == "auroc":
        used = {name: rates[name] for name in ONE_SIDED}
        values = predictive_values(rates["sensitivity"], rates["specificity"], row.n_expected / row.n_latents)
        found = corrected_auroc(row.estimate, values, interval)
    else:
        used = {"correlation": rates["spearman"]}
        found = corrected_correlation(row.estimate, rates["spearman"], interval)
    low, high = found.confidence_interval
    corrected = {"corrected": found.estimate, "ci_low": low, "ci_high": high}
    return {name: getattr(row, name) for name in same} | used | corrected
