"""noise_probe.csv: how answers and losses respond to noise in the model, with and without what training changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from isaerft import stats
from isaerft.analysis.base import Analysis, ResultTable
from isaerft.analysis.columns import ADAPTER, BEHAVIOR, SUBJECT, ci_columns
from isaerft.table import Column, Role

_KEYS = ["place", "level"]


def noise_probe(analysis: Analysis) -> pd.DataFrame:
    """Return one row for each subject, behavior, model, place and level of noise."""
    rows: list[dict[str, object]] = []
    for subject in analysis.plan.study.subjects:
        for behavior in analysis.plan.noise_probed:
            table = pd.read_parquet(analysis.results.noise_probe(subject, behavior))
            same = {"subject": subject, "behavior": behavior}
            level = analysis.plan.study.agreement.confidence_level
            rows += [same | row for row in noise_rows(table, level)]
    return pd.DataFrame(rows, columns=TABLE.column_names)


def noise_rows(table: pd.DataFrame, confidence_level: float) -> Iterator[dict[str, object]]:
    """Yield the rows of one behavior: the unchanged model's, then each adapter's.

    Parameters
    ----------
    table : DataFrame
        What `isaerft.changes.noise.probe_noise` wrote.
    confidence_level : float
        Of the intervals over draws of the noise.
    """
    unchanged = table[table["adapter"].isna()]
    base = _by_draw(unchanged)
    for adapter in [None, *dict.fromkeys(table["adapter"].dropna())]:
        own = unchanged if adapter is None else table[table["adapter"] == adapter]
        found = base if adapter is None else _by_draw(own)
        for (place, level), draws in found.groupby(level=_KEYS, sort=False):
            row: dict[str, object] = {"adapter": adapter, "place": place, "level": level}
            row |= {"metric": own["metric"].iloc[0], "n_prompts": own["n_prompts"].iloc[0]}
            row |= {"n_seeds": max(1, own["seed"].nunique()), "n_draws": len(draws) if level else 0}
            for name in ("score", "loss"):
                values = {name: draws[name]}
                if adapter is not None:
                    values[f"{name}_beyond_base"] = draws[name] - base.loc[draws.index, name]
                if adapter is not None and level:
                    clean = found.loc[(place, 0.0, 0), name] - base.loc[(place, 0.0, 0), name]
                    values[f"{name}_response"] = values[f"{name}_beyond_base"] - clean
                for column, of_draws in values.items():
                    interval = stats.mean_interval(of_draws.to_numpy(float), confidence_level)
                    row |= {column: of_draws.mean(), f"{column}_ci_low": interval.low}
                    row[f"{column}_ci_high"] = interval.high
            yield row


def _by_draw(rows: pd.DataFrame) -> pd.DataFrame:
    """Return score and loss by place, level and draw, means over the seeds of an adapter."""
    return rows.groupby([*_KEYS, "draw"], sort=False)[["score", "loss"]].mean()


def _with_interval(name: str, meaning: str, *, optional: bool = False) -> tuple[Column, ...]:
    """Return a column and those of its interval."""
    role: Role = "estimate" if name == "score" else ""
    return Column(name, "float", meaning, optional=optional, role=role), *ci_columns("its interval", prefix=f"{name}_")


TABLE = ResultTable(
    name="noise_probe",
    order=151,
    caption=(
        "Answers to held-out prompts, and the held-out loss, under Gaussian noise of growing size. All models of a "
        "behavior see the same draws of the noise; intervals are over draws (Student's t), and no noise has none. "
        "Without adapter: the unchanged model."
    ),
    columns=(
        SUBJECT,
        BEHAVIOR,
        replace(ADAPTER, optional=True),
        Column(
            "place",
            "text",
            "Where the noise is: residual (the residual stream at the hook) or weights (every weight matrix).",
            role="key",
        ),
        Column(
            "level",
            "float",
            "Standard deviation of the noise: in units of the root mean square of each token's residual stream, or of "
            "the standard deviation of each weight matrix.",
            role="key",
        ),
        Column("metric", "text", "Metric of the answers (docs/config.md, Metric)."),
        Column("n_prompts", "int", "Distinct held-out prompts that were answered under each draw."),
        Column("n_seeds", "int", "Seeds of the adapter, averaged draw by draw."),
        Column("n_draws", "int", "Draws of the noise; 0 without noise."),
        *_with_interval("score", "Mean score of the answers."),
        *_with_interval("loss", "Mean held-out loss, in nats per token."),
        *_with_interval(
            "score_beyond_base", "Score less that of the unchanged model under the same noise.", optional=True
        ),
        *_with_interval(
            "loss_beyond_base", "Loss less that of the unchanged model under the same noise.", optional=True
        ),
        *_with_interval(
            "score_response",
            "How far noise moved the score, less how far the same noise moved the unchanged model's.",
            optional=True,
        ),
        *_with_interval("loss_response", "The same of the loss.", optional=True),
    ),
    when=lambda plan: bool(plan.noise_probed),
    condition="studies with noise_probe",
    make=noise_probe,
)
