"""What a study tests, named before the run, and how: the primary result, and the options of the test of agreement."""

from __future__ import annotations

from pydantic import Field
from pydantic.dataclasses import dataclass

from isaerft.config.base import STRICT


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Primary:
    """The one result that the study is about, fixed before the run."""

    adapter: str
    """Adapter of the primary result."""
    measure: str
    """Measure of change."""
    source: str
    """Source of explanations."""
    judge: str
    """Judge of what the explanations lead one to expect."""
    statistic: str = "auroc"
    """Registered statistic of agreement: `auroc`, `spearman`, or one of another package."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Agreement:
    """How agreement is tested."""

    n_resamples: int = Field(default=9999, ge=99)
    """Exchanges of the explanations."""
    confidence_level: float = Field(default=0.95, gt=0.5, lt=1)
    """Level of the intervals."""
    statistics: list[str] = Field(default_factory=lambda: ["auroc", "spearman"])
    """Registered statistics."""
    n_bins: int = Field(default=4, ge=1)
    """Quantile bins per confound (firing rate, decoder norm, density of neighbors) that make the strata."""
    cluster_cosine: float = Field(default=0.9, gt=0, le=1)
    """Latents whose decoder rows are at least this alike are exchanged together."""
    min_firing_rate: float = Field(default=1e-4, ge=0)
    """A latent that fires less often on the reference corpus is not in the universe."""
    dense_firing_rate: float = Field(default=0.5, gt=0, le=1)
    """A latent that fires more often is counted as dense."""
    top_k: int = Field(default=25, ge=1)
    """Rows per group in most_changed_latents.csv."""
