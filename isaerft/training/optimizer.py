"""How parameters are moved: SGD whose first gradient is scaled to length 1, or Adam."""

from __future__ import annotations

import torch
from torch import nn

from isaerft import config
from isaerft.training.row_space import RowSpace


class Optimizer:
    """SGD whose first gradient has length 1 (so the learning rate is a length), or Adam.

    Parameters
    ----------
    module : nn.Module
        Its parameters that require a gradient are moved.
    """

    def __init__(self, module: nn.Module, options: config.Adapter) -> None:
        self.module = module
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.scale: float | None = 1.0 if options.optimizer == "adam" else None
        if options.optimizer == "adam":
            self.inner: torch.optim.Optimizer = torch.optim.Adam(self.parameters, lr=options.learning_rate)
        else:
            self.inner = torch.optim.SGD(self.parameters, lr=options.learning_rate, momentum=options.momentum)

    def clear(self) -> None:
        """Forget the gradients."""
        self.inner.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Move the parameters along their gradients."""
        if self.scale is None:
            norm = self._gradient_norm()
            self.scale = 1 / norm if norm > 0 else 1.0
        if self.scale != 1.0:
            for parameter in self.parameters:
                parameter.grad.mul_(self.scale)
        self.inner.step()

    def _gradient_norm(self) -> float:
        norms = {id(parameter): parameter.grad.norm() for parameter in self.parameters}
        if isinstance(self.module, RowSpace):
            norms[id(self.module.weights)] = self.module.constant_gradient_norm()
        return float(torch.stack(list(norms.values())).norm())
