"""Options of the calibration study, which measures the package's own statistics and needs no model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field
from pydantic.dataclasses import dataclass

from isaerft.config.base import STRICT, read_options, validated

Ratio = Annotated[float, Field(gt=0)]
Latents = Annotated[int, Field(ge=50)]
WorldName = Literal[
    "plain",
    "clustered",
    "stepwise",
    "confounded",
    "strongly_confounded",
    "rare_confounded",
    "folded_confounded",
    "jump_confounded",
    "shared_loads",
    "unmeasured",
    "unlike_placebos",
    "co_moving",
    "geometry",
    "families",
    "few_expected",
    "sparse_changes",
]


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Calibration:
    """The calibration study, `snakemake calibration`: its own file, config/calibration.yaml."""

    seed: int = 0
    """Start of every random stream."""
    n_resamples: int = Field(default=99, ge=99)
    """Exchanges per test; one less than a multiple of 100, so that p = 0.01 and 0.05 can be met exactly."""
    n_bins: int = Field(default=4, ge=1)
    """Quantile bins per confound, as in `agreement`."""
    n_tokens: int = Field(default=100_000, ge=100)
    """Token positions that the naive binomial test counts as trials."""
    worlds: list[WorldName] = Field(default_factory=lambda: list(get_args(WorldName)))
    """Kinds of null worlds (docs/calibration.md)."""
    null_latents: list[Latents] = Field(default_factory=lambda: [500])
    """Latents in a null world."""
    null_worlds: int = Field(default=2000, ge=2)
    """Null worlds per kind and number of latents."""
    n_behaviors: int = Field(default=8, ge=5)
    """Behaviors in a world; a test over trainings needs at least 4 others."""
    n_placebos: int = Field(default=99, ge=0)
    """Placebo trainings in a world; with 99, p = 0.01 can be met."""
    odds_ratios: list[Ratio] = Field(default_factory=lambda: [1.2, 1.5, 1.9, 2.5, 4.0])
    """Odds ratios at which power is counted."""
    power_latents: list[Latents] = Field(default_factory=lambda: [100, 400, 2000])
    """Latents in a world for power."""
    power_worlds: int = Field(default=200, ge=2)
    """Worlds per number of latents."""
    coverage_odds_ratios: list[Ratio] = Field(default_factory=lambda: [1.0, 1.9])
    """Odds ratios at which the coverage of intervals is counted."""
    coverage_latents: int = Field(default=500, ge=50)
    """Latents in a world for coverage."""
    coverage_worlds: int = Field(default=1000, ge=2)
    """Worlds per odds ratio for coverage, and per kind of world for audits."""
    judged_explanations: list[Annotated[int, Field(ge=10)]] = Field(default_factory=lambda: [140])
    """Explanations that a judge reads, where the coverage of its quality's intervals is counted."""
    wrong_shares: list[Annotated[float, Field(gt=0, lt=1)]] = Field(default_factory=lambda: [0.05, 0.1, 0.2, 0.4])
    """Shares of wrong explanations among which the verdicts are to find them."""
    verdict_odds_ratios: list[Ratio] = Field(default_factory=lambda: [4.0, 16.0, 64.0])
    """Odds ratios of right explanations there."""
    verdict_behaviors: int = Field(default=8, ge=2)
    """Behaviors there."""
    verdict_worlds: int = Field(default=100, ge=2)
    """Worlds per share and odds ratio there, of `coverage_latents` latents, and per world of false verdicts."""

    @property
    def parts(self) -> list[str]:
        """Names of the parts, which run separately; the longest first."""
        largest = sorted(self.power_latents, reverse=True)
        return [
            *(f"null-{world}-{n}" for n in self.null_latents for world in self.worlds),
            *(f"intervals-{ratio:g}" for ratio in self.coverage_odds_ratios),
            *(f"power-{n}" for n in largest),
            *(f"across-{ratio:g}" for ratio in self.coverage_odds_ratios),
            "verdict_errors",
            "audits",
            *(f"judges-{n}" for n in self.judged_explanations),
            *(f"verdicts-{share:g}" for share in self.wrong_shares),
        ]


def load_calibration(path: str | Path) -> Calibration:
    """Read and check the YAML file of the calibration study; errors as in `load_plan`."""
    return validated(Calibration, read_options(path))
