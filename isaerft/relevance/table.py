"""The table judge: a file that judges every pair, made by another program or known to be true.

Its form is that of `isaerft.relevance.judgement_file`. Pairs that the file leaves out have effect 0.
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


@JUDGES("table")
def from_table(
    explanations: pd.DataFrame, behaviors: Mapping[str, str], judge: Judge, *, subject_dir: Path
) -> pd.DataFrame:
    """Judge as a file says; see `isaerft.relevance.base.RelevanceJudge`. A pair is expected above an effect of 0.5.

    `attrs["counts"]` of the result: pairs judged, pairs not_in_file (effect 0), and rows of the file not_used (of
    latents that have no explanation here).

    Raises
    ------
    InputError
        The file is missing or breaks its form (with the line), names an unknown behavior, or fits no latent.
    """
    said = read_judged(explanations, behaviors, judge, subject_dir, "table")
    judged = int(np.isfinite(said.effects).sum())
    effects = np.nan_to_num(said.effects)
    frame = judgements(
        explanations,
        behaviors,
        effects,
        expected=effects > EXPECTED_ABOVE,
        confidence=said.confidence,
        rationale=said.rationale,
    )
    frame.attrs["counts"] = {"judged": judged, "not_in_file": effects.size - judged, "not_used": said.not_used}
    return frame
