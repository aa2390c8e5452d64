"""Running what lies below the hook once more for the tokens of a batch: under changed weights, or with gradients."""

from __future__ import annotations

import torch

from isaerft.subjects.cache import Batch
from isaerft.subjects.load import LoadedSubject
from isaerft.subjects.site import Below, run_below


def rerun(subject: LoadedSubject, batch: Batch) -> Below:
    """Run a batch's tokens through everything below the hook, with gradients where they are on.

    Returns
    -------
    Below
        Activation and residual stream, (n_tokens, d_in) each, tokens in the batch's order.
    """
    padded = batch.tokens.new_full(batch.mask.shape, subject.language.padding)
    padded[batch.mask] = batch.tokens
    gradient = torch.is_grad_enabled()
    below = run_below(subject.model, subject.site, padded, batch.mask.long(), gradient=gradient)
    return Below(below.activation[batch.mask], below.residual[batch.mask])


def from_cache(subject: LoadedSubject, batch: Batch) -> Below:
    """Return the same of the base model, from the cache as far as it is there.

    The cache keeps the residual stream where adapters write; what an SAE on attention or MLP reads is run again.
    """
    if subject.site.reads == "residual":
        return Below(batch.residual, batch.residual)
    with torch.no_grad():
        return Below(rerun(subject, batch).activation, batch.residual)


def at_bos(subject: LoadedSubject, batch: Batch) -> torch.Tensor:
    """Tell which tokens of a batch are BOS, where no latent counts as active, (n_tokens,) bool."""
    is_bos = torch.zeros_like(batch.mask)
    is_bos[:, : len(subject.language.bos)] = True
    return is_bos[batch.mask]
