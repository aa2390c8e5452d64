"""map_components.csv: what each component of a learned map reads, writes, and does to the held-out loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import pandas as pd

from isaerft import stats
from isaerft.analysis.base import Analysis, ResultTable
from isaerft.analysis.columns import ADAPTER, BEHAVIOR, SEED, SUBJECT
from isaerft.table import Column

_LATENTS = ("reads", "reads_encoder", "writes", "writes_encoder")
_SIDES = {"reads_explanation": "reads", "writes_explanation": "writes"}
_KEYS = ["adapter", "part"]
_Chance = Callable[[int, int, int], "stats.Recurrence"]


def map_components(analysis: Analysis) -> pd.DataFrame:
    """Return one row for each component of each map of every adapter that is read."""

    @cache
    def chance(n_components: int, n_read: int, n_write: int) -> stats.Recurrence:
        rng = np.random.default_rng(analysis.plan.study.seed)
        return stats.recurrence_by_chance(n_components, n_read, n_write, rng)

    parts = []
    for subject in analysis.plan.study.subjects:
        texts = analysis.shown_explanations(subject)
        for behavior in analysis.plan.study.behaviors:
            table = pd.read_parquet(analysis.results.maps(subject, behavior).components)
            if table.empty:
                continue
            table = table.assign(subject=subject, behavior=behavior)
            fall = (table["loss_base"] - table["loss_adapted"]).where(lambda fall: fall > 0)
            table["lost_without"] = (table["loss_without"] - table["loss_adapted"]) / fall
            table["kept_alone"] = (table["loss_base"] - table["loss_alone"]) / fall
            for column, role in _SIDES.items():
                table[column] = table[role].map(lambda named: named[0], na_action="ignore").map(texts)
            for role in _LATENTS:
                table[role] = _listed(table[role], table[f"{role}_values"])
            for role in ("reads_tokens", "writes_tokens"):
                table[role] = table[role].map(" | ".join, na_action="ignore")
            parts.append(table.join(_recurring(table, chance)))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _listed(latents: pd.Series, values: pd.Series) -> pd.Series:
    """Return latents with their values as text."""
    pairs = zip(latents, values, strict=True)
    texts = [
        None
        if found is None
        else "; ".join(f"{latent} ({value:+.2f})" for latent, value in zip(found, own, strict=True))
        for found, own in pairs
    ]
    return pd.Series(texts, index=latents.index, dtype="str")


def _recurring(table: pd.DataFrame, chance: _Chance) -> pd.DataFrame:
    """Return how components recur over the seeds of one behavior, by the table's index; a bias is no component."""
    parts = list(_recurrences(table[table["component"] > 0], chance))
    return pd.concat(parts) if parts else pd.DataFrame(index=table.index[:0])


def _recurrences(table: pd.DataFrame, chance: _Chance) -> Iterator[pd.DataFrame]:
    for _, rows in table.groupby(_KEYS, sort=False):
        seeds = [own for _, own in rows.groupby("seed")]
        reads, writes = ([np.stack(own[side].to_list()) for own in seeds] for side in ("read_vector", "write_vector"))
        sizes = min(len(own) for own in seeds), reads[0].shape[1], writes[0].shape[1]
        expected = chance(*sizes) if len(seeds) > 1 else stats.Recurrence(np.nan, np.nan)
        for own, found in zip(seeds, stats.recurrence(reads, writes), strict=True):
            columns = {"read_recurrence": found.read, "write_recurrence": found.write}
            columns |= {"read_chance": expected.read, "write_chance": expected.write}
            yield pd.DataFrame(columns, index=own.index)


_CLOSE = "the latents whose directions it resembles most"

TABLE = ResultTable(
    name="map_components",
    order=145,
    caption=(
        "Learned linear maps, split into components that read one direction and write one: what both sides are in "
        "latents and tokens, the component's part in the fall in held-out loss, and whether it recurs in other seeds."
    ),
    columns=(
        SUBJECT,
        BEHAVIOR,
        ADAPTER,
        SEED,
        Column("part", "text", "Weight that a lora changes; empty where the adapter is one map.", optional=True),
        Column("component", "int", "1 is the largest; 0 is a bias, which is added whatever the text."),
        Column("n_components", "int", "Components that the map has; the table has the largest."),
        Column("size", "float", "Root mean square over held-out tokens of what the component adds."),
        Column(
            "share", "float", "Its share of the mean square of what the map adds; shares add up to 1.", optional=True
        ),
        Column(
            "constant_share",
            "float",
            "Share of its mean square that is the same at every token: near 1 it acts like a bias, and what it reads "
            "says little.",
        ),
        Column(
            "lost_without",
            "float",
            "Share of the adapter's fall in held-out loss that is lost without the component; empty if the loss did "
            "not fall.",
            optional=True,
        ),
        Column("kept_alone", "float", "Share of the fall that the component keeps alone.", optional=True),
        Column(
            "reads",
            "text",
            "Latents that its signal varies with, with each one's share of the signal's variance (a share is negative "
            "where the latent offsets others); empty for a weight that reads inside a block.",
            optional=True,
        ),
        Column("reads_explanation", "text", "Explanation of the first of these.", optional=True),
        Column(
            "reads_encoder",
            "text",
            f"What it reads, as a direction: {_CLOSE}, by the cosine with their encoder columns.",
            optional=True,
        ),
        Column(
            "reads_tokens",
            "text",
            "Tokens whose embeddings lie most along what it reads, above the mean.",
            optional=True,
        ),
        Column(
            "writes",
            "text",
            f"What it writes: {_CLOSE}, by the cosine with their decoder rows. Signs are those that the component has "
            "where its signal has the sign of its mean.",
            optional=True,
        ),
        Column("writes_explanation", "text", "Explanation of the first of these.", optional=True),
        Column(
            "writes_encoder", "text", "Latents whose encoder columns it writes along most, with cosines.", optional=True
        ),
        Column(
            "writes_tokens",
            "text",
            "Tokens whose logits it raises most on the direct path to the output.",
            optional=True,
        ),
        Column(
            "read_recurrence",
            "float",
            "Absolute cosine of what it reads with the matched component's in another seed, the mean over seeds.",
            optional=True,
        ),
        Column("read_chance", "float", "The same for components of random directions, matched alike.", optional=True),
        Column("write_recurrence", "float", "The same of what it writes.", optional=True),
        Column("write_chance", "float", "The same of what random components write.", optional=True),
    ),
    when=lambda plan: bool(plan.mapped_adapters),
    condition="studies with map_components",
    make=map_components,
)
