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
    """Kinds of null worlds (docs/statistics.md)."""
    null_latents: list[Latents] = Field(default_factory=lambda: [500])
    """Latents in a null world."""
    bins_latents: list[Latents] = Field(default_factory=lambda: [1000])
    """Latents in the confounded worlds where strata of several widths are compared."""
    null_worlds: int = Field(default=2000, ge=2)
    """Null worlds per kind and number of latents."""
    n_behaviors: int = Field(default=6, ge=3)
    """Behaviors in the worlds for tests and intervals over behaviors."""
    odds_ratios: list[Ratio] = Field(default_factory=lambda: [1.2, 1.5, 1.9, 2.5, 4.0])
    """Odds ratios at which power is counted."""
    power_latents: list[Latents] = Field(default_factory=lambda: [100, 400, 2000, 16384])
    """Latents in a world for power."""
    power_worlds: int = Field(default=200, ge=2)
    """Worlds per number of latents up to 2,000; above that in proportion fewer, at least 50."""
    coverage_odds_ratios: list[Ratio] = Field(default_factory=lambda: [1.0, 1.9])
    """Odds ratios at which the coverage of intervals is counted."""
    coverage_latents: int = Field(default=500, ge=50)
    """Latents in a world for coverage."""
    coverage_worlds: int = Field(default=1000, ge=2)
    """Worlds per odds ratio for coverage."""
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
            *(f"judges-{n}" for n in self.judged_explanations),
            *(f"verdicts-{share:g}" for share in self.wrong_shares),
            *(f"bins-{world}-{n}" for n in self.bins_latents for world in self.worlds if world.endswith("confounded")),
        ]


def load_calibration(path: str | Path) -> Calibration:
    """Read and check the YAML file of the calibration study; errors as in `load_plan`."""
    return validated(Calibration, read_options(path))
