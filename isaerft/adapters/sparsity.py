"""Sparse training: any kind of adapter, limited to a given number of changed latents.

Both methods act on the parameters that write latents (`LatentAdapter.writing_parameters`), with all numbers of a latent
as one group, in two phases. First latents compete, while the number allowed falls from all to the target. Then the
choice is fixed and the chosen latents are trained alone, which undoes the shrinkage; only parameters of this phase are
kept. The result is an ordinary adapter of its kind whose other numbers are exactly 0. With a target for the reading
side, l1 does the same at once with the parameters that read latents.
"""

from __future__ import annotations

import math

import torch

from isaerft import config
from isaerft.adapters.base import LatentAdapter, norms
from isaerft.adapters.shift import Shift
from isaerft.errors import InputError

# Stretch of the hard-concrete distribution beyond [0, 1], and the initial log alpha (Louizos et al. 2018, section 4).
LOW, HIGH, OPEN = -0.1, 1.1, 2.0
# How far Adam can move a gate's log alpha during the competition: from open to shut and back.
GATE_RANGE = 12.0
# Fraction of the competition during which the number of latents falls; then it stays at the target.
FALL = 0.8
# A gate's worth is the loss it saves per unit probability of being open: a running average with this memory, damped
# for gates that hardly move.
MEMORY, LEAST_SLOPE = 0.9, 1e-3


class Dense:
    """No sparsity; base class of objects that follow the training loop's steps."""

    settled_at = 0
    """First step at which the choice of latents is fixed; parameters of earlier steps are never kept."""
    trained: tuple[torch.Tensor, ...] = ()
    """Tensors that it trains itself, in addition to the adapter's parameters."""

    def weigh(self, shift: Shift) -> Shift:
        """Return the shift that the loss sees."""
        return shift

    def after_step(self, step: int) -> None:
        """Act after the optimizer's step number `step`, counted from 1."""


class Sparse(Dense):
    """Common base of both methods: the number of latents allowed at each step, and the choice at the end.

    Parameters
    ----------
    adapter : LatentAdapter
        Trained in place.
    steps : int
        Number of steps of the whole training.
    """

    def __init__(self, adapter: LatentAdapter, options: config.Sparsity, steps: int) -> None:
        self.parameters = adapter.writing_parameters()
        if not self.parameters:
            raise not_sparse(adapter.kind)
        for name, target in (("target", options.target), ("read_target", options.read_target)):
            if target is not None and target >= adapter.d_sae:
                raise InputError(
                    f"sparsity.{name} {target} for an SAE of {adapter.d_sae} latents",
                    allowed=f"1 to {adapter.d_sae - 1}",
                )
        self.adapter, self.options = adapter, options
        self.settled_at = max(1, round(options.anneal * steps))
        self.chosen: torch.Tensor | None = None

    def allowed(self, step: int, target: int | None = None) -> int:
        """Return how many latents may be active after a step; the number falls geometrically to a target."""
        share = min(1.0, step / max(1.0, FALL * self.settled_at))
        n_allowed: float = self.adapter.d_sae ** (1 - share) * (target or self.options.target) ** share
        return round(n_allowed)

    def after_step(self, step: int) -> None:
        """Let latents compete, or keep the latents that were not chosen at 0."""
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
        """Return the latents to keep, (d_sae,) bool."""
        return norms(self.parameters) > 0


class Proximal(Sparse):
    """l1: after each step a threshold on every latent's norm that leaves the allowed number.

    If the full threshold is taken off the survivors too, this is proximal gradient descent on a group lasso (Yuan and
    Lin 2006) whose weight follows from the number of latents. Where decoder rows overlap, so much shrinkage lets wrong
    latents make up for what the right ones lost; `Sparsity.shrinkage` takes off less.
    """

    def __init__(self, adapter: LatentAdapter, options: config.Sparsity, steps: int) -> None:
        super().__init__(adapter, options, steps)
        # Columns of these are groups, as rows of the reading parameters are.
        self.reading = tuple(parameter.detach().T for parameter in adapter.reading_parameters())
        self.read: torch.Tensor | None = None
        if options.read_target is not None and not self.reading:
            raise InputError(
                f"adapter {adapter.kind!r} with sparsity.read_target",
                allowed="mlp with `options: {depth: 0}`, whose numbers each read one latent and start at 0",
            )

    def after_step(self, step: int) -> None:
        """Let latents compete, or keep those that were not chosen at 0, on both sides."""
        super().after_step(step)
        if self.options.read_target is not None:
            if step == self.settled_at:
                self.read = norms(self.reading) > 0
            if self.read is not None:
                self.adapter.ignore(~self.read)

    def compete(self, step: int) -> None:
        """Shrink every latent's numbers toward 0 by the norm of the first latent that is not allowed."""
        written = self._kept(self.parameters, self.allowed(step))
        if self.options.read_target is not None:
            read = self._kept(self.reading, self.allowed(step, self.options.read_target))
            for parameter in self.reading:
                parameter.mul_(read)
        for parameter in self.parameters:
            parameter.mul_(written)

    def _kept(self, groups: tuple[torch.Tensor, ...], n_allowed: int) -> torch.Tensor:
        """Return the factor of every group of numbers, (d_sae,): 0 for those that are not allowed."""
        norm = norms(groups)
        threshold = norm.sort(descending=True).values[min(n_allowed, len(norm) - 1)]
        shrunk = 1 - self.options.shrinkage * threshold / norm.clamp_min(torch.finfo(norm.dtype).tiny)
        return torch.where(norm > threshold, shrunk, 0.0)


class Gated(Sparse):
    """l0: a hard-concrete gate on every latent's change (Louizos et al. 2018), priced so that the allowed number opens.

    The gates have their own optimizer. At the choice each chosen gate is multiplied into its latent's parameters.
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
        """Multiply each latent's change by its gate, with noise if gradients are enabled."""
        if self.chosen is not None:
            return shift
        if not torch.is_grad_enabled():
            return shift.weighted(self.gates())
        uniform = torch.rand(self.adapter.d_sae, generator=self.noise).clamp(1e-6, 1 - 1e-6).to(self.device)
        drawn = torch.sigmoid((uniform.logit() + self.log_alpha) / self.options.temperature)
        return shift.weighted((drawn * (HIGH - LOW) + LOW).clamp(0, 1))

    def gates(self) -> torch.Tensor:
        """Return the noiseless gates, (d_sae,)."""
        return (torch.sigmoid(self.log_alpha.detach()) * (HIGH - LOW) + LOW).clamp(0, 1)

    def compete(self, step: int) -> None:
        """Move the gates against a price for being open, about what the last allowed latent is worth.

        Price times expected number of open gates is the penalty of Louizos et al. Its gradient is added here, so that
        a gate's worth is read from the loss alone.
        """
        gradient = self.log_alpha.grad
        if gradient is None:
            return
        is_open = torch.sigmoid(self.log_alpha - self.options.temperature * math.log(-LOW / HIGH))
        slope = is_open * (1 - is_open)
        self.worth.lerp_(-gradient / (slope + LEAST_SLOPE), 1 - MEMORY)
        last = float(self.worth.sort(descending=True).values[self.allowed(step) - 1])
        gradient += self.options.price * max(last, 0.0) * slope
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def choose(self) -> torch.Tensor:
        """Multiply the gates into the parameters and keep the widest open ones, as many as the target."""
        chosen = torch.zeros(self.adapter.d_sae, dtype=torch.bool, device=self.device)
        chosen[self.log_alpha.detach().topk(self.options.target).indices] = True
        for parameter in self.parameters:
            parameter.mul_(self.gates())
        return chosen


def not_sparse(kind: str) -> InputError:
    """Return the error for an adapter without latents to choose among."""
    return InputError(f"adapter {kind!r} cannot be trained sparsely", remedy="leave its sparsity out of the config")


def sparsity(adapter: LatentAdapter, options: config.Sparsity | None, steps: int, seed: int) -> Dense:
    """Return the method that makes an adapter's training sparse, or `Dense` without options.

    Parameters
    ----------
    seed : int
        Draws the noise of l0's gates.
    """
    if options is None:
        return Dense()
    return Proximal(adapter, options, steps) if options.kind == "l1" else Gated(adapter, options, steps, seed)
