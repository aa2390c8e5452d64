"""One explanation of a latent's several, by a stated order that does not depend on how they came.

1. the makers that `prefer` lists, in its order, before all others;
2. those for the very side that is asked for before those for both sides;
3. by maker (explanationModelName/typeName), then by text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from isaerft.explanations.choice import ranks_of_makers
from isaerft.explanations.neuronpedia.entries import Said

# What a method of explaining reads: where a latent fires, or that and what it promotes. Others: as the config says.
SIDE_OF = {
    "oai_token-act-pair": "input",
    "oai_attention-head": "input",
    "np_max-act": "input",
    "eleuther_acts_top20": "input",
    "np_max-act-logits": "both",
    "np_acts-logits-general": "both",
}


def chosen(said: Iterable[tuple[int, Said]], *, side: str, prefer: Sequence[str]) -> pd.DataFrame:
    """Return latent_index, explanation and side of one explanation for each latent that has one for the side.

    `attrs["counts"]` says how many explanations there were (rows), and how many were for the other side alone
    (other_side) or not chosen (not_chosen).

    Raises
    ------
    InputError
        `prefer` lists no maker that explained any of the latents.
    """
    all_said = list(said)
    frame = pd.DataFrame(
        {
            "latent_index": pd.Series([latent for latent, _ in all_said], dtype="int64"),
            "explanation": [one.text for _, one in all_said],
            "side": [SIDE_OF.get(one.type, side) for _, one in all_said],
            "maker": [one.maker for _, one in all_said],
        }
    )
    frame["rank"] = ranks_of_makers(list(frame["maker"]), prefer)
    fitting = frame[frame["side"].isin([side, "both"]) | (side == "both")]
    best = (
        fitting.assign(other=fitting["side"] != side)
        .sort_values(["latent_index", "rank", "other", "maker", "explanation"], kind="stable")
        .drop_duplicates("latent_index")
    )
    result = best[["latent_index", "explanation", "side"]].reset_index(drop=True)
    result.attrs["counts"] = {
        "rows": len(frame),
        "other_side": len(frame) - len(fitting),
        "not_chosen": len(fitting) - len(best),
    }
    return result
