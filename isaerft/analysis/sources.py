"""The rows of source_comparison.csv: by one judge, whose explanations predict changes best on the same latents?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from isaerft import config
from isaerft.analysis.across import Across
from isaerft.analysis.inputs import Expectation
from isaerft.report.selection import BOUNDS
from isaerft.stats import compare_means, contrast_parts


def restricted(across: Across, latents: np.ndarray) -> Across:
    """Return the same on `latents` alone, (n,) int64, all of which the expectation speaks of."""
    said = across.expectation
    if len(latents) == len(said.latents):
        return across
    places = np.searchsorted(said.latents, latents)
    return replace(across, expectation=Expectation(latents, said.expected[:, places], said.effect[:, places]))


def compared_sources(plan: config.Plan, read: Mapping[str, Across]) -> Iterator[dict[str, Any]]:
    """Yield the rows of one judge and measure, source by source; none for a single source.

    Sources are compared on the latents that all of them explain, and on the behaviors for which each of them can be
    tested (expects some of these latents, and not all); a source that can be tested on none is left empty.

    Parameters
    ----------
    read : mapping of str to Across
        What the judge expects by each source, with the changes.
    """
    if len(read) < 2:
        return
    latents = common_latents([across.expectation for across in read.values()])
    same = {"statistic": plan.study.primary.statistic, "n_latents": len(latents)}
    rows = {source: same | {"source": source, "side": plan.study.sources[source].side} for source in read}
    matrices = {}
    for source, across in read.items() if len(latents) else ():
        common = restricted(across, latents)
        matrices[source] = common.matrix
        rows[source]["n_expected"] = float(common.expectation.expected.sum(axis=1).mean())
    defined = {source: np.isfinite(np.diagonal(matrix)) for source, matrix in matrices.items()}
    tested = [source for source, behaviors in defined.items() if behaviors.any()]
    shared = np.flatnonzero(np.all([defined[source] for source in tested], axis=0)) if tested else np.array([], int)
    for quantity, least in (("agreement", 1), ("specificity", 2)):
        found: dict[str, dict[str, Any]] = {}
        if len(shared) >= least:
            parts = {source: matrices[source][np.ix_(shared, shared)] for source in tested}
            found = _compared(plan, {source: per_behavior(part, quantity) for source, part in parts.items()}, quantity)
        for source, row in rows.items():
            yield row | {"quantity": quantity, "n_behaviors": len(shared)} | found.get(source, {})


def common_latents(expectations: list[Expectation]) -> np.ndarray:
    """Return the latents that all expectations speak of, (n,) int64, in order."""
    common = expectations[0].latents
    for expectation in expectations[1:]:
        common = np.intersect1d(common, expectation.latents)
    return common


def per_behavior(matrix: np.ndarray, quantity: str) -> np.ndarray:
    """Return each behavior's own part of a quantity of overall.csv, (n_behaviors,), whose mean it is.

    `matrix` is (n_behaviors, n_behaviors), trained on (row) and judged for (column).
    """
    return np.diagonal(matrix) if quantity == "agreement" else contrast_parts(matrix)


def _compared(plan: config.Plan, values: Mapping[str, np.ndarray], quantity: str) -> dict[str, dict[str, Any]]:
    """Return the columns of the comparison for each source."""
    sources, level = list(values), plan.study.agreement.confidence_level
    bounds = BOUNDS[plan.study.primary.statistic] if quantity == "agreement" else (-math.inf, math.inf)
    found = compare_means(np.array(list(values.values())), confidence_level=level, bounds=bounds)
    return {
        source: {
            "rank": part.rank,
            "estimate": part.mean,
            "ci_low": part.interval.low,
            "ci_high": part.interval.high,
            "rival": None if part.rival is None else sources[part.rival],
            "difference": part.difference,
            "difference_ci_low": part.difference_interval.low,
            "difference_ci_high": part.difference_interval.high,
        }
        for source, part in zip(sources, found, strict=True)
    }
