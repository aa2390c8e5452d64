"""Where a subject's own files lie inside its folder; the floors above and the workflow speak of them by these names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from isaerft.io import read_json

MODEL, SAE, CORPUS = "model", "sae", "corpus.safetensors"
LATENTS, CONTEXTS, CARD = "latents.parquet", "contexts.parquet", "subject.json"
SCORED = "scored_contexts.parquet"


@dataclass(frozen=True)
class SubjectFolder:
    """The folder results/{study}/subjects/{subject}.

    Attributes
    ----------
    path : Path
        Holds model/ (the testbed's alone), sae/ (SAELens' format, normalisation folded), corpus.safetensors (token
        ids), latents.parquet and contexts.parquet (facts of each latent) and subject.json (the gate's measurements);
        scored_contexts.parquet where explanations are scored.
    """

    path: Path

    @property
    def model(self) -> Path:
        """The testbed's own model, a Hugging Face folder."""
        return self.path / MODEL

    @property
    def sae(self) -> Path:
        """The dictionary."""
        return self.path / SAE

    @property
    def corpus(self) -> Path:
        """Token ids of the reference corpus."""
        return self.path / CORPUS

    @property
    def latents(self) -> Path:
        """One row of facts per latent."""
        return self.path / LATENTS

    @property
    def contexts(self) -> Path:
        """Top activating tokens in context and promoted tokens of each latent."""
        return self.path / CONTEXTS

    @property
    def scored(self) -> Path:
        """What explanations are scored on, apart from all that explainers and judges read."""
        return self.path / SCORED

    @property
    def card(self) -> Path:
        """What the gate measured."""
        return self.path / CARD

    def read_latents(self) -> pd.DataFrame:
        """Read the facts of the subject's latents, one row each."""
        return pd.read_parquet(self.latents)

    def read_cards(self) -> list[dict[str, Any]]:
        """Read the rows of subjects.csv that the subject gives: its own, and its random-dictionary twin's."""
        return read_json(self.card)
