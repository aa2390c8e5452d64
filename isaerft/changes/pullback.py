"""Pulling a change back into the SAE's basis: what an adapter outside it does to the latents.

Let x be a token's activation at the hook and x' the same under the adapter. The change of its latents is
delta = encode(x') - encode(x), and delta @ W_dec is the part of d = x' - x that the dictionary explains.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from isaerft.adapters.base import OutsideAdapter, Shift
from isaerft.changes.measures import Trained
from isaerft.subjects.cache import Batch, bos_mask
from isaerft.subjects.dictionary import Codes
from isaerft.subjects.hooks import HookState


@dataclass(frozen=True)
class PulledBack(Trained):
    """An adapter that was trained outside the SAE's basis, or a fine-tuned checkpoint.

    Attributes
    ----------
    adapter : OutsideAdapter
        On the subject's model; its own part above the hook plays no role here.
    """

    adapter: OutsideAdapter

    def shift(self, batch: Batch) -> Shift:
        """Return encode(x') - encode(x); at BOS no latent counts as active."""
        after = self.subject.dictionary.encode(self._at_hook(batch).activation)
        return activation_change(batch.codes, after.emptied(bos_mask(self.subject, batch)))

    def displacement(self, batch: Batch) -> torch.Tensor:
        """Return the change of the residual stream of a batch's tokens, (n_tokens, d_in)."""
        return self._at_hook(batch).residual - batch.residual

    def latent_parameter(self) -> torch.Tensor:
        """Return the mean change of activation over the held-out tokens, (d_sae,).

        Nothing that was trained here belongs to one latent, so its mean effect on the latent stands in for it.
        """
        device = self.subject.model.device
        total = torch.zeros(self.subject.dictionary.d_sae, device=device)
        n_tokens = 0
        with torch.no_grad():
            for batch in self.heldout.batches(self.batch_size):
                total += self.shift(batch.to(device)).total()
                n_tokens += batch.codes.n_tokens
        return total / n_tokens

    def explained_share(self) -> float | None:
        """Return the share of the displacement on held-out tokens that the dictionary explains.

        1 - ||d - delta @ W_dec||^2 / ||d||^2, both summed over all tokens but BOS: 1 where the dictionary says all,
        0 where it says nothing, negative where what it says points elsewhere. None where nothing was displaced.
        """
        device, decoder = self.subject.model.device, self.subject.dictionary.W_dec
        missed = whole = 0.0
        with torch.no_grad():
            for batch in self.heldout.batches(self.batch_size):
                moved = batch.to(device)
                kept = ~bos_mask(self.subject, moved)
                displaced = self.displacement(moved)[kept].double()
                explained = self.shift(moved).residual(decoder)[kept].double()
                missed += float((displaced - explained).square().sum())
                whole += float(displaced.square().sum())
        return 1 - missed / whole if whole > 0 else None

    def _at_hook(self, batch: Batch) -> HookState:
        with torch.no_grad():
            return self.adapter.at_hook(self.subject, batch)


def activation_change(before: Codes, after: Codes) -> Shift:
    """Return the change from one set of activations to another of the same tokens, over the latents active in either.

    A latent that fires alike in both has a change of exactly 0.
    """
    keys = torch.cat([codes.tokens() * codes.d_sae + codes.indices for codes in (before, after)])
    union, place = keys.unique(return_inverse=True)
    values = before.values.new_zeros(len(union)).index_add(0, place[: len(before.values)], before.values)
    change = (-values).index_add(0, place[len(before.values) :], after.values.to(values.dtype))
    counts = torch.bincount(union // before.d_sae, minlength=before.n_tokens)
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return Shift(Codes(union % before.d_sae, values, starts, before.d_sae), entries=change)
