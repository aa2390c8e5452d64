"""The human judge: what people said of some pairs of explanation and behavior, from a file.

Its form is that of `isaerft.relevance.judgement_file`. People judge a sample: a pair that the file leaves out is not
judged, where a `table` judge calls it unaffected. Agreement is tested on the latents judged for every behavior; with
`tested: false` the file only says how well the other judges do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from isaerft.config import Judge
from isaerft.registry import JUDGES
from isaerft.relevance.base import EXPECTED_ABOVE, judgements
from isaerft.relevance.judgement_file import read_judged


@JUDGES("human")
def human(explanations: pd.DataFrame, behaviors: Mapping[str, str], judge: Judge, *, subject_dir: Path) -> pd.DataFrame:
    """Judge as people did; see `isaerft.relevance.base.RelevanceJudge`. A pair is expected above an effect of 0.5.

    `attrs["counts"]` of the result: pairs judged, unjudged_pairs, and rows of the file not_used (of latents that have
    no explanation here, or another one by now).

    Raises
    ------
    InputError
        The file is missing or breaks its form (with the line), names an unknown behavior, or fits no latent.
    """
    said = read_judged(explanations, behaviors, judge, subject_dir, "human")
    frame = judgements(
        explanations,
        behaviors,
        said.effects,
        expected=said.effects > EXPECTED_ABOVE,
        confidence=said.confidence,
        rationale=said.rationale,
    )
    judged = np.isfinite(said.effects).reshape(-1)
    frame = frame[judged].reset_index(drop=True)
    counts = {"judged": int(judged.sum()), "unjudged_pairs": int((~judged).sum()), "not_used": said.not_used}
    frame.attrs["counts"] = counts
    return frame
