"""Options of the dictionaries that a study trains itself."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from isaerft.config.base import STRICT
from isaerft.errors import InputError

Architecture = Literal["standard", "jumprelu", "topk", "batchtopk", "matryoshka"]
SparsityCost = Literal["plain", "weighted", "penalty"]
COSTED = ("standard", "jumprelu")
"""Architectures that pay for active latents; in the others their number is given."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class TrainSae:
    """Options of an SAE that the study trains itself, with SAELens."""

    d_sae: int = Field(default=512, ge=2)
    """Number of latents."""
    architecture: Architecture | None = None
    """standard (ReLU with an L1 cost), jumprelu, topk, batchtopk, or matryoshka (BatchTopK that also reconstructs with
    the first eighth, quarter and half of its latents); when not given, topk with `k` and jumprelu without."""
    target_l0: float | None = Field(default=None, gt=0)
    """Active latents per token to reach, on average over tokens. standard and jumprelu find the coefficient that does;
    topk takes a whole number, for every token. All but jumprelu need it."""
    k: int | None = Field(default=None, ge=1)
    """Short for `architecture: topk` with this `target_l0`."""
    l0_coefficient: float = Field(default=1.0, gt=0)
    """JumpReLU: weight of the sparsity loss; more of it, fewer active latents per token. With `target_l0`, the weight
    to begin with."""
    sparsity_cost: SparsityCost = "plain"
    """What an active latent costs in standard and jumprelu: always the same (plain), in proportion to log(1/p) where p
    is its running firing frequency, so that common latents are cheap (weighted), or in proportion to 1 + 20p, so that
    they are dear (penalty)."""
    tokens: int = Field(default=1_500_000, ge=1000)
    """Training tokens."""
    batch_size: int = Field(default=1024, ge=1)
    """Tokens per step."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Peak learning rate of Adam."""
    seed: int | None = Field(default=None, ge=0)
    """Start of the SAE's random streams; the study's `seed` when not given."""

    def __post_init__(self) -> None:
        name = self.made
        if self.k is not None and (self.architecture not in (None, "topk") or self.target_l0 is not None):
            raise InputError(
                f"train_sae: k {self.k} with architecture or target_l0", remedy="give target_l0 in place of k"
            )
        if self.l0 is not None and self.l0 >= self.d_sae:
            asked = "k" if self.k is not None else "target_l0"
            raise InputError(
                f"train_sae: {asked} {self.l0:g} of d_sae {self.d_sae} latents", allowed=f"{asked} below d_sae"
            )
        if self.l0 is None and name != "jumprelu":
            raise InputError(
                f"train_sae: architecture {name} without target_l0", remedy="say how many latents are to be active"
            )
        if name == "topk" and self.l0 is not None and not float(self.l0).is_integer():
            raise InputError(f"train_sae: target_l0 {self.l0:g} of topk", allowed="a whole number; batchtopk takes any")
        if name == "matryoshka" and self.d_sae < 8:
            raise InputError(f"train_sae: matryoshka with d_sae {self.d_sae}", allowed="8 latents or more")
        if self.sparsity_cost != "plain" and name not in COSTED:
            raise InputError(
                f"train_sae: sparsity_cost {self.sparsity_cost} of architecture {name}", allowed=" or ".join(COSTED)
            )

    @property
    def made(self) -> Architecture:
        """The architecture that is trained."""
        return self.architecture or ("jumprelu" if self.k is None else "topk")

    @property
    def l0(self) -> float | None:
        """Active latents per token that were asked for; None where a coefficient decides."""
        return self.target_l0 if self.k is None else float(self.k)

    @property
    def is_steered(self) -> bool:
        """Whether training looks for the coefficient that reaches `target_l0`."""
        return self.made in COSTED and self.l0 is not None


@dataclass(frozen=True, config=STRICT, kw_only=True)
class MetaSae:
    """A small dictionary of the decoder rows of each subject's SAE: what is each latent composed of?"""

    d_sae: int | None = Field(default=None, ge=2)
    """Number of meta-latents; when not given, one for every `rows_per_meta_latent` living latents."""
    rows_per_meta_latent: int = Field(default=10, ge=2)
    """Living latents for each meta-latent."""
    target_l0: float = Field(default=4, gt=0)
    """Meta-latents of a latent, on average."""
    steps: int = Field(default=2000, ge=1)
    """Training steps."""
    batch_size: int = Field(default=256, ge=1)
    """Decoder rows per step."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Peak learning rate of Adam."""
    n_named: int = Field(default=5, ge=1)
    """Other latents named for each meta-latent, those in which it weighs most."""
