"""Sparse training: an adapter that ends up changing a given number of latents, whatever its kind.

Both ways work on the parameters that write latents (`LatentAdapter.writing_parameters`), all numbers of one latent as a
group, and have two phases. While the number of latents allowed falls from all to the target, latents compete. Then the
choice is fixed and the chosen are trained on alone, which undoes the shrinkage; only this phase's parameters are kept.
What is left is an ordinary adapter of its kind whose other numbers are exactly 0.
"""

from __future__ import annotations

import math

import torch

from isaerft import config
from isaerft.adapters.base import LatentAdapter, Shift, norms
from isaerft.errors import InputError

# The hard-concrete distribution's stretch beyond [0, 1], and the gates' start (Louizos et al. 2018, section 4).
LOW, HIGH, OPEN = -0.1, 1.1, 2.0
# How far Adam can move a gate's log alpha while latents compete: from open to shut and back.
GATE_RANGE = 12.0
# Share of the competition in which the number of latents falls; in the rest it stands at the target.
FALL = 0.8
# A gate's worth is the loss it saves for each probability of being open: averaged over steps with this memory, and not
# read from gates that hardly move.
MEMORY, LEAST_SLOPE = 0.9, 1e-3


class Dense:
    """What the training loop asks of sparsity, for an adapter that is trained whole."""

    settled_at = 0
    """The step from which on the choice of latents is fixed, so that its held-out loss counts."""
    trained: tuple[torch.Tensor, ...] = ()
    """What it trains itself, beside the adapter's parameters."""

    def weigh(self, shift: Shift) -> Shift:
        """Return the shift as the loss should see it."""
        return shift

    def after_step(self, step: int) -> None:
        """Follow the optimizer's step number `step`, counted from 1."""


class Sparse(Dense):
    """What both kinds share: the number of latents allowed at each step, and the fixed choice at the end.

    Parameters
    ----------
    adapter : LatentAdapter
        Trained in place.
    steps : int
        Steps of the whole training.
    """

    def __init__(self, adapter: LatentAdapter, options: config.Sparsity, steps: int) -> None:
        self.parameters = adapter.writing_parameters()
        if not self.parameters:
            raise not_sparse(adapter.kind)
        if options.target >= adapter.d_sae:
            raise InputError(
                f"sparsity.target {options.target} for an SAE of {adapter.d_sae} latents",
                allowed=f"1 to {adapter.d_sae - 1}",
            )
        self.adapter, self.options = adapter, options
        self.settled_at = max(1, round(options.anneal * steps))
        self.chosen: torch.Tensor | None = None

    def allowed(self, step: int) -> int:
        """Return the number of latents that may be active after a step: it falls by the same ratio at each."""
        share = min(1.0, step / max(1.0, FALL * self.settled_at))
        return round(self.adapter.d_sae ** (1 - share) * self.options.target**share)

    def after_step(self, step: int) -> None:
        """Let latents compete, or keep those that were not chosen at 0."""
        with torch.no_grad():
            if self.chosen is None:
                self.compete(step)
            if step == self.settled_at:
                self.chosen = self.choose()
            if self.chosen is not None:
                self.adapter.silence(~self.chosen)

    def compete(self, step: int) -> None:
        """Weaken latents so that the allowed number wins."""
        raise NotImplementedError

    def choose(self) -> torch.Tensor:
        """Return the latents to go on with, (d_sae,) bool."""
        return norms(self.parameters) > 0


class Proximal(Sparse):
    """l1: after each step a threshold on every latent's norm, as high as leaves the allowed number.

    With all of the threshold taken off the survivors too, this is proximal gradient descent on a group lasso (Yuan and
    Lin 2006) whose weight follows from the number of latents. Where decoder rows overlap, that much shrinkage makes
    room for wrong latents that stand in for what the right ones lost; `Sparsity.shrinkage` takes off less.
    """

    def compete(self, step: int) -> None:
        """Draw every latent's numbers towards 0 by the norm of the first latent that is not allowed."""
        norm = norms(self.parameters)
        threshold = norm.sort(descending=True).values[min(self.allowed(step), len(norm) - 1)]
        shrunk = 1 - self.options.shrinkage * threshold / norm.clamp_min(torch.finfo(norm.dtype).tiny)
        kept = torch.where(norm > threshold, shrunk, 0.0)
        for parameter in self.parameters:
            parameter.mul_(kept)


class Gated(Sparse):
    """l0: a hard-concrete gate on every latent's change (Louizos et al. 2018), priced so that the allowed number opens.

    The gates have an optimizer of their own. When the choice is made each chosen gate is multiplied into the latent's
    parameters and gone.
    """

    def __init__(self, adapter: LatentAdapter, options: config.Sparsity, steps: int, seed: int) -> None:
        super().__init__(adapter, options, steps)
        self.device = self.parameters[0].device
        self.log_alpha = torch.full((adapter.d_sae,), OPEN, device=self.device, requires_grad=True)
        self.trained = (self.log_alpha,)
        self.optimizer = torch.optim.Adam([self.log_alpha], lr=GATE_RANGE / self.settled_at)
        self.noise = torch.Generator().manual_seed(seed)
        self.worth = torch.zeros(adapter.d_sae, device=self.device)

    def weigh(self, shift: Shift) -> Shift:
        """Multiply each latent's change by its gate: drawn where a gradient is taken, else the gate itself."""
        if self.chosen is not None:
            return shift
        if not torch.is_grad_enabled():
            return shift.weighted(self.gates())
        uniform = torch.rand(self.adapter.d_sae, generator=self.noise).clamp(1e-6, 1 - 1e-6).to(self.device)
        drawn = torch.sigmoid((uniform.logit() + self.log_alpha) / self.options.temperature)
        return shift.weighted((drawn * (HIGH - LOW) + LOW).clamp(0, 1))

    def gates(self) -> torch.Tensor:
        """Return the gates without noise, (d_sae,)."""
        return (torch.sigmoid(self.log_alpha.detach()) * (HIGH - LOW) + LOW).clamp(0, 1)

    def compete(self, step: int) -> None:
        """Move the gates against a price for being open, which is about what the last allowed latent is worth.

        The price times the expected number of open gates is the penalty of Louizos et al.; its gradient is added here,
        so that a gate's worth is read from the loss alone.
        """
        is_open = torch.sigmoid(self.log_alpha - self.options.temperature * math.log(-LOW / HIGH))
        slope = is_open * (1 - is_open)
        self.worth.lerp_(-self.log_alpha.grad / (slope + LEAST_SLOPE), 1 - MEMORY)
        last = float(self.worth.sort(descending=True).values[self.allowed(step) - 1])
        self.log_alpha.grad += self.options.price * max(last, 0.0) * slope
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def choose(self) -> torch.Tensor:
        """Multiply the gates into the parameters and keep the target's number of those widest open."""
        chosen = torch.zeros(self.adapter.d_sae, dtype=torch.bool, device=self.device)
        chosen[self.log_alpha.detach().topk(self.options.target).indices] = True
        for parameter in self.parameters:
            parameter.mul_(self.gates())
        return chosen


def not_sparse(kind: str) -> InputError:
    """Return the error for sparsity where there is nothing to choose latents by."""
    return InputError(f"adapter {kind!r} cannot be trained sparsely", remedy="leave its sparsity out of the config")


def sparsity(adapter: LatentAdapter, options: config.Sparsity | None, steps: int, seed: int) -> Dense:
    """Return what makes an adapter's training sparse, as its options say; without options it is trained whole.

    Parameters
    ----------
    seed : int
        Draws the noise of l0's gates.
    """
    if options is None:
        return Dense()
    return Proximal(adapter, options, steps) if options.kind == "l1" else Gated(adapter, options, steps, seed)
