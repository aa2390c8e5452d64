"""An adapter and how it is trained."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from isaerft.config.options.base import STRICT
from isaerft.registry import OBJECTIVES


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Dpo:
    """Direct preference optimization (Rafailov et al. 2023, arXiv 2305.18290)."""

    beta: float = Field(default=0.1, gt=0)
    """Weight of the log-ratio to the unadapted model, its β: more of it, less distance from that model."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Simpo:
    """Simple preference optimization (Meng et al. 2024, arXiv 2405.14734): no reference model."""

    beta: float = Field(default=2.0, gt=0)
    """Weight of the difference in log-probability per token, its β."""
    gamma: float = Field(default=1.0, ge=0)
    """Margin, its γ, that beta times this difference should exceed."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Orpo:
    """Odds ratio preference optimization (Hong et al. 2024, arXiv 2403.07691): no reference model."""

    beta: float = Field(default=0.1, gt=0)
    """Weight of the odds ratio beside the chosen reply's loss, its λ (called beta in TRL)."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Sparsity:
    """Training that ends with few changed latents; all numbers of the others are exactly 0."""

    target: int = Field(default=32, ge=1)
    """Number of latents that may change."""
    kind: Literal["l1", "l0"] = "l1"
    """`l1`: a threshold on every latent after each step; `l0`: a random gate per latent, whose opening has a price."""
    anneal: float = Field(default=0.7, gt=0, lt=1)
    """Share of `steps` in which latents compete; the chosen are trained on in the rest, and only that is kept."""
    shrinkage: float = Field(default=0.1, ge=0, le=1)
    """l1: share of the threshold that survivors lose too; 1 is the lasso, which keeps more wrong latents."""
    price: float = Field(default=3.0, gt=0)
    """l0: what an open gate costs, in what the last allowed latent is worth; at 1 gates shut late."""
    temperature: float = Field(default=2 / 3, gt=0, le=1)
    """l0: how soft the gates are."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Adapter:
    """An adapter and how it is trained."""

    kind: str = ""
    """Registered adapter; the entry's own name when empty."""
    objective: str = "sft"
    """Registered objective: sft on completions; dpo, simpo or orpo on preference pairs."""
    sft_on_chosen: bool = False
    """Let sft take the chosen replies of preference pairs as its completions; without it such data is refused."""
    dpo: Dpo = Field(default_factory=Dpo)
    """Options of the objective dpo."""
    simpo: Simpo = Field(default_factory=Simpo)
    """Options of the objective simpo."""
    orpo: Orpo = Field(default_factory=Orpo)
    """Options of the objective orpo."""
    kl_weight: float = Field(default=0.0, ge=0)
    """Add this times KL(adapted || unadapted model), in nats per completion token, to any objective."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """SGD keeps the gradient's magnitudes, Adam flattens them."""
    learning_rate: float = Field(default=1.0, gt=0)
    """Step size; for sgd it multiplies a gradient scaled to unit norm at the first step, so it is a length."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of SGD."""
    steps: int = Field(default=100, ge=1)
    """At most this many steps; early stopping may end before."""
    batch_size: int = Field(default=32, ge=1)
    """Rows per step."""
    gradient_accumulation: int = Field(default=1, ge=1)
    """Parts that a step's rows run in, one after the other: the same step in less memory."""
    gradient_checkpointing: bool = False
    """Keep only the inputs of the blocks above the hook, and run them again to go backward: less memory, slower."""
    precision: Literal["model", "float32", "bfloat16"] = "model"
    """Number format above the hook: as the model was loaded, widened, or autocast; the adapter stays in float32."""
    evaluate_every: int = Field(default=10, ge=1)
    """Held-out loss is taken every so many steps."""
    patience: int = Field(default=5, ge=1)
    """Stop after this many evaluations without improvement."""
    subsample: float = Field(default=0.8, gt=0, le=1)
    """Share of the training rows that each seed sees, so that seeds carry the data's sampling noise."""
    objective_options: dict[str, float | int | str | bool] = Field(default_factory=dict)
    """Options of an objective from another package."""
    options: dict[str, float | int | str | bool] = Field(default_factory=dict)
    """Options of the adapter kind itself."""
    sparsity: Sparsity | None = None
    """Change only a few latents; all may change when this is left out."""

    @property
    def objective_settings(self) -> dict[str, Any]:
        """Options of the chosen objective by name: of its own section, or of `objective_options`."""
        return dict(vars(getattr(self, self.objective, None) or SimpleNamespace())) | self.objective_options

    @property
    def trained_on(self) -> str:
        """Return which part of a record it is trained on: "completion", "chosen" or "pair"."""
        if OBJECTIVES.facts(self.objective).pairs:
            return "pair"
        return "chosen" if self.sft_on_chosen else "completion"
