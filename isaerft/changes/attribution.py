"""attribution: how much of the fall in held-out loss each latent's change brought about."""

from __future__ import annotations

import numpy as np
import torch

from isaerft.changes.base import Trained
from isaerft.registry import MEASURES
from isaerft.subjects.cache import Batch, completion_losses

N_POINTS = 8


@MEASURES("attribution")
def attribution(trained: Trained) -> torch.Tensor:
    """Return the integrated gradient of the held-out loss along the learned change, (d_sae,), in nats per token.

    -(f' - f) * integral_0^1 dL(x + a (x' - x)) / df da, summed over tokens (Sundararajan et al. 2017), by
    Gauss-Legendre quadrature along what really is added to the residual stream. Positive where a latent's change lowers
    the loss; over latents it adds up to the fall in loss that the dictionary explains, for an adapter on latents all.
    """
    device = trained.subject.model.device
    points, weights = np.polynomial.legendre.leggauss(N_POINTS)
    total = torch.zeros(trained.subject.dictionary.d_sae, device=device)
    n_losses = 0
    for batch in trained.heldout.batches(trained.batch_size):
        moved = batch.to(device)
        with torch.no_grad():
            shift, step = trained.shift(moved), trained.displacement(moved)
        gradient = torch.zeros_like(step)
        for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
            gradient += weight * _loss_gradient(trained, moved, moved.residual + point * step)
        with torch.no_grad():
            total -= shift.against(trained.subject.dictionary.W_dec, gradient.float())
        n_losses += len(moved.labels)
    return total / n_losses


def _loss_gradient(trained: Trained, batch: Batch, residual: torch.Tensor) -> torch.Tensor:
    """Return the gradient of the summed loss with respect to the residual stream, (n_tokens, d_in)."""
    point = residual.detach().requires_grad_(True)
    loss = completion_losses(trained.subject, batch, point).sum()
    return torch.autograd.grad(loss, point)[0]
