"""weight_pullback.csv: do learned weights, pulled back linearly, say the same of the latents as activations do?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from isaerft import stats
from isaerft.analysis.base import Analysis, ResultTable
from isaerft.analysis.columns import ADAPTER, BEHAVIOR, N_LATENTS, SEED, SUBJECT
from isaerft.table import Column

_SIGNED = ("first_order", "encoder", "decoder")
_SIZES = ("weights_encoder", "weights_decoder")
_SHARES = ("spanned_decoder", "readable_encoder", "spanned_by_k", "spanned_by_k_random")


def weight_pullback(analysis: Analysis) -> pd.DataFrame:
    """Return one row for each adapter outside the latents' basis that moves what the SAE reads."""
    rows = []
    for subject in analysis.plan.study.subjects:
        for behavior in analysis.plan.study.behaviors:
            table = pd.read_parquet(analysis.results.maps(subject, behavior).pullback)
            for (adapter, seed), own in table.groupby(["adapter", "seed"], sort=False) if len(table) else ():
                row = {"subject": subject, "behavior": behavior, "adapter": adapter, "seed": seed}
                change = own["activations"].to_numpy(float)
                row |= {"n_latents": len(own)}
                row |= {name: _agreement(own[name], change) for name in _SIGNED}
                row |= {name: _agreement(own[name], np.abs(change)) for name in _SIZES}
                row |= {name: own[name].iloc[0] for name in _SHARES if name in own}
                rows.append(row)
    return pd.DataFrame(rows)


def _agreement(values: pd.Series, change: np.ndarray) -> float:
    """Return the rank correlation of two columns; NaN where one is undefined or constant."""
    known = values.to_numpy(float)
    if np.isnan(known).any() or not np.ptp(known) or not np.ptp(change):
        return float("nan")
    return float(stats.spearman(known, change))


_RANKS = "Rank correlation over latents of the mean change of activation (encode(x') - encode(x)) with"

TABLE = ResultTable(
    name="weight_pullback",
    order=146,
    caption=(
        "The pullback of activations beside the linear pullback of what was learned: how their rankings of the latents "
        "agree, and how much of the learned map the dictionary spans."
    ),
    columns=(
        SUBJECT,
        BEHAVIOR,
        ADAPTER,
        SEED,
        N_LATENTS,
        Column("first_order", "float", f"{_RANKS} its linear part: active latents alone move.", optional=True),
        Column(
            "encoder",
            "float",
            f"{_RANKS} the mean displacement times the encoder, whether or not a latent is active.",
            optional=True,
        ),
        Column("decoder", "float", f"{_RANKS} the mean displacement's component along the decoder row.", optional=True),
        Column(
            "weights_encoder",
            "float",
            "Rank correlation of the mean change's absolute value with the norm of the learned weights times the "
            "encoder column, which no text enters.",
            optional=True,
        ),
        Column(
            "weights_decoder", "float", "The same with the decoder row in place of the encoder column.", optional=True
        ),
        Column(
            "spanned_decoder",
            "float",
            "Share of the map's squared norm that it writes in the span of the living latents' decoder rows: 1 "
            "wherever these span the whole space.",
            optional=True,
        ),
        Column(
            "readable_encoder", "float", "The same in the span of the living latents' encoder columns.", optional=True
        ),
        Column(
            "spanned_by_k",
            "float",
            "Share in the span of the 10 decoder rows alone that the map writes along most.",
            optional=True,
        ),
        Column(
            "spanned_by_k_random",
            "float",
            "The same for maps of the same singular values in random directions.",
            optional=True,
        ),
    ),
    when=lambda plan: bool(plan.mapped_adapters),
    condition="studies with map_components",
    make=weight_pullback,
)
