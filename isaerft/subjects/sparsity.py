"""Training classes of SAELens whose sparsity follows a target or the latents' frequencies.

SAELens' own classes are used as they are wherever they do what is asked. Beyond them, a cost can depend on how often a
latent fires, and a coefficient can be steered until L0 is the one that was asked for.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from sae_lens import (
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    JumpReLUTrainingSAE,
    JumpReLUTrainingSAEConfig,
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
    SAETrainer,
    StandardTrainingSAE,
    StandardTrainingSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
)
from sae_lens.saes.jumprelu_sae import Step
from sae_lens.saes.sae import TrainingSAE, TrainStepInput, TrainStepOutput

from isaerft import config

DECAY = 0.99
"""Of the running firing frequency, per step."""
RAREST = 1e-4
"""Frequencies below this one cost as much."""
COMMON = 0.1
"""Frequency at which the quadratic penalty p (1 + p / COMMON) is twice the plain cost p."""
RATE = 0.02
"""Change of the logarithm of the coefficient, per step, at an L0 of e times the target."""
GAIN = 1.0
"""Change of the logarithm of the coefficient by that of L0."""
MIN_L0 = 0.1
NESTED = (8, 4, 2, 1)
"""A matryoshka reconstructs also with the first of its latents: these parts of them."""


class FiringCost:
    """What an active latent costs by its running firing frequency p.

    ``weighted``: in proportion to log(1/p). ``penalty``: to 1 + 2p/`COMMON`, the gradient of p (1 + p/`COMMON`), which
    is how the quadratic-frequency loss discourages latents that fire often.
    """

    def __init__(self, kind: config.SparsityCost) -> None:
        self.kind = kind
        self._frequency: torch.Tensor | None = None

    def __call__(self, active: torch.Tensor) -> torch.Tensor:
        """Return the cost of each latent, (d_sae,), after a batch (n_tokens, d_sae) of what is positive if active.

        Costs are scaled so that at present frequencies all active latents together cost as much as if each cost 1.
        """
        fired = (active > 0).float().mean(0)
        before = fired if self._frequency is None else self._frequency
        self._frequency = DECAY * before + (1 - DECAY) * fired
        return cost_of(self._frequency, self.kind)


def cost_of(frequency: torch.Tensor, kind: config.SparsityCost) -> torch.Tensor:
    """Return the cost of each latent from the share of tokens on which it fires, both (d_sae,)."""
    if kind == "plain":
        return torch.ones_like(frequency)
    p = frequency.clamp_min(RAREST)
    cost = -p.log() if kind == "weighted" else 1 + 2 * p / COMMON
    return cost * p.sum() / (p * cost).sum()


class CostedStandardSAE(StandardTrainingSAE):
    """SAELens' standard SAE with an L1 cost that depends on how often a latent fires."""

    cost: FiringCost

    def calculate_aux_loss(
        self, step_input: TrainStepInput, feature_acts: torch.Tensor, hidden_pre: torch.Tensor, sae_out: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return SAELens' loss of activations that are scaled by their latents' costs."""
        costly = feature_acts * self.cost(feature_acts.detach())
        return super().calculate_aux_loss(step_input, costly, hidden_pre, sae_out)


class _Gates(torch.autograd.Function):
    """SAELens' `JumpReLU` and the sum over latents of its `Step`, which share most of what they compute.

    The numbers are SAELens' own, to the bit; a step of training takes four fifths of the time.
    """

    @staticmethod
    def forward(
        ctx: Any, pre: torch.Tensor, threshold: torch.Tensor, bandwidth: float, ste_to_input: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return activations (n_tokens, d_sae) and the number of active latents (n_tokens,)."""
        active = pre > threshold
        ctx.save_for_backward(pre, threshold, active)
        ctx.bandwidth, ctx.ste_to_input = bandwidth, ste_to_input
        return pre * active, active.sum(-1, dtype=pre.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return straight-through gradients: of pre-activations within half a bandwidth of their threshold."""
        (of_activations, of_l0), (pre, threshold, active) = gradients, ctx.saved_tensors
        near = ((pre - threshold).div_(ctx.bandwidth).abs_() < 0.5).to(pre)
        of_pre = active * of_activations
        jump = (near * (threshold / ctx.bandwidth)).mul_(of_activations)
        step = near.mul_(1.0 / ctx.bandwidth).mul_(of_l0[:, None])
        of_threshold = -(jump.sum(0) + step.sum(0))
        if ctx.ste_to_input:
            of_pre.add_(jump).add_(step)
        return of_pre, of_threshold, None, None


class FusedJumpReLUSAE(JumpReLUTrainingSAE):
    """SAELens' JumpReLU SAE with its default sparsity loss, in fewer passes over the activations."""

    _l0: torch.Tensor | None = None

    def encode_with_hidden_pre(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return activations and pre-activations, (n_tokens, d_sae) each."""
        pre = self.hook_sae_acts_pre(self.process_sae_in(x) @ self.W_enc + self.b_enc)
        acts, self._l0 = _Gates.apply(pre, self.threshold, self.bandwidth, self.cfg.jumprelu_ste_to_input)
        return self.hook_sae_acts_post(acts), pre

    def calculate_aux_loss(
        self, step_input: TrainStepInput, feature_acts: torch.Tensor, hidden_pre: torch.Tensor, sae_out: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return the mean L0 of the tokens that were just encoded, times the coefficient."""
        l0, self._l0 = self._l0, None
        if l0 is None:
            return super().calculate_aux_loss(step_input, feature_acts, hidden_pre, sae_out)
        return {"l0_loss": (step_input.coefficients["l0"] * l0).mean()}


class CostedJumpReLUSAE(JumpReLUTrainingSAE):
    """SAELens' JumpReLU SAE with an L0 cost that depends on how often a latent fires."""

    cost: FiringCost

    def calculate_aux_loss(
        self, step_input: TrainStepInput, feature_acts: torch.Tensor, hidden_pre: torch.Tensor, sae_out: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return the mean over tokens of what active latents cost together, times the coefficient."""
        threshold = self.threshold.to(hidden_pre.dtype)
        active = Step.apply(hidden_pre, threshold, self.bandwidth, self.cfg.jumprelu_ste_to_input)
        return {"l0_loss": step_input.coefficients["l0"] * (active @ self.cost(feature_acts.detach())).mean()}


class TargetTrainer(SAETrainer[Any, Any]):
    """SAELens' trainer that moves the coefficient of the sparsity loss so that L0 comes to `target_l0`.

    A proportional-integral controller of the logarithm of the coefficient by that of L0 over the target.
    """

    def __init__(self, target_l0: float, **parts: Any) -> None:
        super().__init__(**parts)
        self.target_l0 = target_l0
        self._log_l0: float | None = None

    def step(self, batch: torch.Tensor) -> TrainStepOutput:
        """Train on one batch (n_tokens, d_in), and move the coefficient."""
        output = super().step(batch)
        log_l0 = math.log(max(float(output.feature_acts.detach().count_nonzero()) / len(batch), MIN_L0))
        moved = 0.0 if self._log_l0 is None else log_l0 - self._log_l0
        self._log_l0 = log_l0
        for scheduler in self.coefficient_schedulers.values():
            scheduler.final_value *= math.exp(RATE * (log_l0 - math.log(self.target_l0)) + GAIN * moved)
        return output


def untrained_sae(options: config.TrainSae, steps: int, common: dict[str, Any]) -> TrainingSAE[Any]:
    """Return an SAE that SAELens can train.

    Parameters
    ----------
    steps : int
        Training steps.
    common : dict
        Options that every architecture has.
    """
    if options.made == "topk":
        return TopKTrainingSAE(TopKTrainingSAEConfig(k=int(options.l0 or 0), **common))
    # The threshold that is saved is a running mean, and must have left its start of 0 behind in a short training, too.
    follow = {"topk_threshold_lr": min(1.0, max(0.01, 10 / steps))}
    if options.made == "batchtopk":
        return BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(k=options.l0 or 0, **follow, **common))
    if options.made == "matryoshka":
        widths = [options.d_sae // part for part in NESTED]
        return MatryoshkaBatchTopKTrainingSAE(
            MatryoshkaBatchTopKTrainingSAEConfig(k=options.l0 or 0, matryoshka_widths=widths, **follow, **common)
        )
    warm_up, plain = steps // 8, options.sparsity_cost == "plain"
    if options.made == "standard":
        standard = StandardTrainingSAEConfig(l1_coefficient=1.0, l1_warm_up_steps=warm_up, **common)
        sae: Any = (StandardTrainingSAE if plain else CostedStandardSAE)(standard)
    else:
        jumprelu = JumpReLUTrainingSAEConfig(
            l0_coefficient=options.l0_coefficient,
            l0_warm_up_steps=warm_up,
            # Thresholds alone take thousands of steps to a target: Adam moves each by the learning rate at most.
            jumprelu_ste_to_input=options.l0 is not None,
            **common,
        )
        sae = (FusedJumpReLUSAE if plain else CostedJumpReLUSAE)(jumprelu)
    if not plain:
        sae.cost = FiringCost(options.sparsity_cost)
    return sae
