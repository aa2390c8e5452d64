"""The scores of the explanations themselves, and whether better explanations agree better with what changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from isaerft import config
from isaerft.analysis.inputs import Expectation, alive_latents, judges_of, read_changes, read_expectation, sources_of
from isaerft.layout import SubjectFolder
from isaerft.scorers import read_scores
from isaerft.stats import STATISTICS, auroc, mean_interval
from isaerft.table import TABLES

THIRDS = ("low", "middle", "high")
GROUP = ["subject", "source", "scorer", "score"]


def explanation_scores(plan: config.Plan, results: Path) -> pd.DataFrame:
    """Return the rows of explanation_scores.csv."""
    parts = [
        read_scores(results / "scores" / subject / source / f"{scorer}.parquet").assign(
            subject=subject, source=source, scorer=scorer
        )
        for subject in plan.study.subjects
        for source in sources_of(plan, subject)
        for scorer in plan.scorers_of(source)
    ]
    return pd.concat(parts, ignore_index=True)


def explanation_quality(plan: config.Plan, scores: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of explanation_quality.csv: the mean of each score beside the floor over the same latents."""
    rows = []
    for names, group in scores.groupby(GROUP, sort=False):
        known = group.dropna(subset="value")
        values = known["value"].to_numpy()
        low, high = mean_interval(values, plan.study.agreement.confidence_level)
        rows.append(
            dict(zip(GROUP, names, strict=True))
            | {
                "n_explanations": len(known),
                "n_failed": len(group) - len(known),
                "mean": values.mean() if len(values) else np.nan,
                "ci_low": low,
                "ci_high": high,
                "floor": known["floor"].mean(),
            }
        )
    return pd.DataFrame(rows)


def agreement_by_quality(plan: config.Plan, results: Path, scores: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of agreement_by_quality.csv, at the primary adapter and measure."""
    rows, primary = [], plan.study.primary
    for subject in plan.study.subjects:
        alive = alive_latents(plan, SubjectFolder(results / "subjects" / subject).read_latents())
        changes = read_changes(plan, results / "changes", subject, primary.adapter)
        for source in sources_of(plan, subject):
            if primary.adapter not in (plan.study.sources[source].adapters or [primary.adapter]):
                continue
            own = scores[(scores["subject"] == subject) & (scores["source"] == source)].dropna(subset="value")
            for judge in judges_of(plan, source, tested=True):
                path = results / "judgements" / subject / source / f"{judge}.parquet"
                expectation = read_expectation(plan, path, alive)
                change = [
                    STATISTICS["auroc"].combine(changes[behavior, primary.measure][:, expectation.latents])
                    for behavior in plan.tested_behaviors
                ]
                for (scorer, score), group in own.groupby(["scorer", "score"], sort=False):
                    same = {"subject": subject, "source": source, "judge": judge, "scorer": scorer, "score": score}
                    values = group.set_index("latent_index")["value"]
                    rows += [same | row for row in _by_thirds(plan, expectation, np.array(change), values)]
    return pd.DataFrame(rows, columns=[column.name for column in TABLES["agreement_by_quality"]])


def _by_thirds(
    plan: config.Plan, expectation: Expectation, change: np.ndarray, values: pd.Series
) -> Iterator[dict[str, Any]]:
    """Yield the agreement within each third of the latents; `change` is (n_behaviors, n), `values` by latent."""
    scored = np.isin(expectation.latents, values.index)
    places = np.flatnonzero(scored)
    third = thirds_of(values.loc[expectation.latents[scored]].to_numpy())
    for number, quality in enumerate(THIRDS):
        chosen = places[third == number]
        if not len(chosen):
            continue
        pairs = zip(change[:, chosen], expectation.expected[:, chosen], strict=True)
        found = np.array([float(auroc(moved, expected)) for moved, expected in pairs if _testable(moved, expected)])
        low, high = np.clip(mean_interval(found, plan.study.agreement.confidence_level), 0, 1)
        yield {
            "quality": quality,
            "n_latents": len(chosen),
            "n_expected": int(expectation.expected[:, chosen].sum()),
            "n_behaviors": len(found),
            "estimate": found.mean() if len(found) else np.nan,
            "ci_low": low,
            "ci_high": high,
        }


def _testable(change: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.ptp(change) > 0 and expected.min() != expected.max())


def thirds_of(values: np.ndarray) -> np.ndarray:
    """Return the third of each value, 0 (low) to 2, (n,) int64; equal values share the third of their middle rank."""
    share = (rankdata(values) - 0.5) / max(len(values), 1)
    return np.minimum((3 * share).astype(np.int64), 2)
