"""Run a source of explanations, and check what it returns and of which SAE it is."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from isaerft.config import Source
from isaerft.explanations.base import checked_explanations
from isaerft.explanations.provenance import Evidence, checked_provenance
from isaerft.llm import LanguageModel
from isaerft.registry import SOURCES

log = logging.getLogger(__name__)


def explain(
    name: str,
    source: Source,
    *,
    subject_dir: str | Path,
    d_sae: int,
    latents: np.ndarray | None = None,
    only: bool = False,
    llm: LanguageModel | None = None,
) -> pd.DataFrame:
    """Run a source and check its table and its provenance; see `SourceFunction` for the arguments and the columns.

    `attrs["provenance"]` of the result is what `checked_provenance` returns.

    Parameters
    ----------
    name : str
        The source's name in the study, and its kind if `source.kind` is empty.
    latents : (n,) int64, optional
        The latents to explain. A source may return others if they cost nothing.
    only : bool
        Whether these others are dropped.
    llm : LanguageModel, optional
        The model that the source asks.
    """
    model = {} if llm is None else {"llm": llm}
    frame = SOURCES[source.kind or name](source, subject_dir=Path(subject_dir), d_sae=d_sae, latents=latents, **model)
    evidence = frame.attrs.get("evidence", Evidence())
    if source.features is not None:
        evidence = evidence.with_features(Path(source.features.replace("{subject_dir}", str(subject_dir))))
    frame = checked_explanations(frame, d_sae=d_sae)
    frame.attrs["provenance"] = checked_provenance(name, source, evidence, len(frame), Path(subject_dir))
    if only and latents is not None:
        frame = frame[frame["latent_index"].isin(latents)].reset_index(drop=True)
    log.info("source %r explains %d of %d latents; %s", name, len(frame), d_sae, frame.attrs["counts"])
    return frame
