"""judge_quality.csv and corrected_agreement.csv: how good judges are, and agreement corrected for their errors.

The two share their subject and rates: the second corrects agreement by the rates of error that the first estimates.
Judges of one source are compared pair by pair on the (latent, behavior) pairs that both judged; the unit of every
interval is the explanation, which a judge reads once for all behaviors and all latents that have it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from isaerft import stats
from isaerft.analysis.base import Analysis, ResultTable
from isaerft.analysis.columns import (
    ADAPTER,
    BEHAVIOR,
    CI,
    JUDGE,
    MEASURE,
    SOURCE,
    STATISTIC,
    SUBJECT,
    ci_columns,
)
from isaerft.analysis.readings import ExplainedLatents
from isaerft.config import Plan
from isaerft.table import Column

AGAINST_REFERENCE = ("true_positive_rate", "true_negative_rate")
CORRECTED = ("auroc", "spearman")


def judge_quality(analysis: Analysis) -> pd.DataFrame:
    """Return one row for each pair of judges and statistic; rates of error only against a reference."""
    rows = [pair.names | row for pair in _pairs(analysis) for row in _compared(analysis.plan, pair)]
    return pd.DataFrame(rows, columns=QUALITY.column_names)


@dataclass(frozen=True)
class _Pair:
    """Two judges of one source, and a row for each (latent, behavior) that both judged."""

    names: dict[str, str]
    both: pd.DataFrame
    with_reference: bool

    def labels(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return what each judge expects, and the number of the explanation."""
        own, other, clusters = (self.both[name].to_numpy() for name in ("expected", "expected_against", "text"))
        return own, other, clusters

    def rank_agreement(self, confidence_level: float) -> stats.Estimate:
        """Return the rank correlation of the expected effects."""
        own, other, clusters = (
            self.both[name].to_numpy() for name in ("expected_effect", "expected_effect_against", "text")
        )
        return stats.rank_agreement(own, other, clusters, confidence_level=confidence_level)


def _pairs(analysis: Analysis) -> Iterator[_Pair]:
    """Yield each pair of judges of a source once, a reference in second place; none that share no judgement."""
    plan = analysis.plan
    for subject in plan.study.subjects:
        for explained in analysis.explained(subject):
            names = plan.judges_of(explained.source)
            tables = _judgements(explained, names) if len(names) > 1 else {}
            for judge, against in _named(plan, names):
                both = tables[judge].merge(
                    tables[against].drop(columns="text"), on=["latent_index", "behavior"], suffixes=("", "_against")
                )
                named = {"subject": subject, "source": explained.source, "judge": judge, "against": against}
                if len(both):
                    yield _Pair(named, both, plan.study.judges[against].reference)


def _judgements(explained: ExplainedLatents, judges: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Return each judge's table for the latents asked for, with the number of each latent's explanation."""
    found = explained.explanations
    texts = pd.Series(pd.factorize(found["explanation"])[0], index=found["latent_index"], name="text")
    tables = {}
    for judge in judges:
        table = explained.judgements(judge)
        table = table[table.latent_index.isin(explained.asked)].drop(columns=["confidence", "rationale"])
        tables[judge] = table.join(texts, on="latent_index")
    return tables


def _named(plan: Plan, judges: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each pair of judges once, a reference in second place."""
    for first, second in combinations(judges, 2):
        if plan.study.judges[first].reference and not plan.study.judges[second].reference:
            first, second = second, first
        yield first, second


def _compared(plan: Plan, pair: _Pair) -> Iterator[dict[str, object]]:
    """Yield one row per statistic for two judges of the same explanations."""
    level = plan.study.agreement.confidence_level
    found = stats.agreement_of_judges(*pair.labels(), confidence_level=level, rng=plan.study.seed)
    found["spearman"] = pair.rank_agreement(level)
    counts = {
        "n_explanations": pair.both["text"].nunique(),
        "n_latents": pair.both["latent_index"].nunique(),
        "n_judgements": len(pair.both),
    }
    for statistic, (estimate, interval) in found.items():
        if statistic not in AGAINST_REFERENCE or pair.with_reference:
            yield counts | {
                "statistic": statistic,
                "estimate": estimate,
                "ci_low": interval.low,
                "ci_high": interval.high,
            }


def corrected_agreement(analysis: Analysis) -> pd.DataFrame:
    """Return the results of agreement.csv by judges that were compared with a reference, corrected for their errors."""
    results = analysis.frame("agreement")
    results = results[(results.control == "none") & results.statistic.isin(CORRECTED)]
    rows: list[dict[str, object]] = []
    for pair in _pairs(analysis):
        if pair.with_reference:
            names = pair.names
            own = results[(results[["subject", "source", "judge"]] == [names[key] for key in names][:3]).all(axis=1)]
            rows += [row | {"against": names["against"]} for row in _corrected(analysis.plan, pair, own)]
    return pd.DataFrame(rows, columns=CORRECTION.column_names)


def _corrected(plan: Plan, pair: _Pair, results: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Yield each result by the pair's judge, its corrected value, and the error rates used."""
    level = plan.study.agreement.confidence_level
    rates, correlation = stats.error_rates(*pair.labels(), rng=plan.study.seed), pair.rank_agreement(level)
    same = ("subject", "behavior", "adapter", "measure", "source", "judge", "statistic", "estimate")
    for row in results.itertuples():
        interval = stats.ConfidenceInterval(row.ci_low, row.ci_high)
        used: dict[str, object] = {"correlation": correlation.estimate}
        if row.statistic == "auroc":
            used = {"true_positive_rate": rates.true_positive_rate, "true_negative_rate": rates.true_negative_rate}
            share = row.n_expected / row.n_latents
            found = stats.corrected_auroc(row.estimate, rates, share, interval, confidence_level=level)
        else:
            found = stats.corrected_correlation(row.estimate, correlation, interval)
        low, high = found.confidence_interval
        corrected = {"corrected": found.estimate, "ci_low": low, "ci_high": high}
        yield {name: getattr(row, name) for name in same} | used | corrected


_AGAINST = Column(
    "against", "text", "Judge that this one is compared with; if a reference, it counts as right.", role="key"
)

QUALITY = ResultTable(
    name="judge_quality",
    order=400,
    caption=(
        "How far the judges of a source agree, pair by pair, and with a reference (known truth, or people) where "
        "there is one. A judge's errors hide agreement. Judges can agree and both be wrong."
    ),
    columns=(
        SUBJECT,
        SOURCE,
        JUDGE,
        _AGAINST,
        Column(
            "statistic",
            "text",
            "kappa and mcc: agreement beyond chance on what is expected; true_positive_rate and true_negative_rate, "
            "against a reference: share of what it expects, and of what it does not, that the judge sees alike; "
            "spearman: rank correlation of the expected effects.",
            role="key",
        ),
        Column(
            "estimate",
            "float",
            "Value of the statistic (by chance: 0 for kappa, mcc and spearman).",
            optional=True,
            role="estimate",
        ),
        *CI,
        Column("n_explanations", "int", "Distinct explanations that both judged: the unit of the intervals."),
        Column("n_latents", "int", "Latents that both judged."),
        Column("n_judgements", "int", "Pairs of latent and behavior that both judged."),
    ),
    when=lambda plan: len(plan.study.judges) > 1,
    condition="studies with several judges",
    make=judge_quality,
)

_CORRECTED_INTERVAL = (
    "the corrected interval, over latents and over the explanations that the judge's rates are from; empty with "
    "fewer than 5 explanations of which the judge expects too much"
)

CORRECTION = ResultTable(
    name="corrected_agreement",
    order=410,
    caption=(
        "Results, and what they would be if the judge made no errors, given its error rates against a reference. "
        "Valid only if the judge's errors have nothing to do with how much a latent changed."
    ),
    columns=(
        SUBJECT,
        BEHAVIOR,
        ADAPTER,
        MEASURE,
        SOURCE,
        JUDGE,
        _AGAINST,
        STATISTIC,
        Column("estimate", "float", "The result, as in agreement.csv.", optional=True),
        Column(
            "corrected",
            "float",
            "The estimate without the judge's errors; empty if it cannot be had.",
            optional=True,
            role="estimate",
        ),
        *ci_columns(_CORRECTED_INTERVAL),
        Column(
            "true_positive_rate",
            "float",
            "Share of the latents that the reference expects to change which the judge expects to change too.",
            optional=True,
        ),
        Column(
            "true_negative_rate",
            "float",
            "Share of the latents that the reference does not expect to change which the judge does not either.",
            optional=True,
        ),
        Column(
            "correlation",
            "float",
            "Rank correlation of the judge's expected effects with the reference's.",
            optional=True,
        ),
    ),
    when=lambda plan: len(plan.study.judges) > 1 and any(judge.reference for judge in plan.study.judges.values()),
    condition="studies in which judges are compared with a reference",
    make=corrected_agreement,
)

TABLES = [QUALITY, CORRECTION]
