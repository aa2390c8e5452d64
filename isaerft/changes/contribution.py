"""contribution: how much of each latent the adapter adds to the residual stream."""

from __future__ import annotations

import torch

from isaerft.changes.base import Trained
from isaerft.registry import MEASURES


@MEASURES("contribution")
def contribution(trained: Trained) -> torch.Tensor:
    """Return the mean change of activation times decoder norm, (d_sae,), in the residual stream's units per token.

    (1 / T) sum_t (f'_ti - f_ti) * ||W_dec_i|| over the T tokens of the held-out rows: a scale counts only as far as its
    latent fires, and latents with different decoder norms become comparable.
    """
    device = trained.subject.model.device
    total = torch.zeros(trained.subject.dictionary.d_sae, device=device)
    n_tokens = 0
    with torch.no_grad():
        for batch in trained.heldout.batches(trained.batch_size):
            total += trained.shift(batch.to(device)).total()
            n_tokens += batch.codes.n_tokens
    return total / n_tokens * trained.subject.dictionary.decoder_norm
