"""A trained adapter in the SAE's basis: how it changes the latents and the residual stream of a batch.

An adapter on latents states its change of latents. Any other adapter's effect is pulled back. Let x be a token's
activation at the hook and x' the same under the adapter. The change of its latents is delta = encode(x') - encode(x),
and what delta adds to the residual stream is the part of its displacement d that the dictionary explains: delta @ W_dec
where the dictionary reads the residual stream itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from isaerft.adapters.base import LatentAdapter
from isaerft.adapters.model import ModelAdapter
from isaerft.adapters.saved import is_model_adapter, load_adapter, load_model_adapter
from isaerft.adapters.shift import Shift
from isaerft.subjects.cache import Batch, CachedRows, base_state, bos_mask, completion_losses
from isaerft.subjects.codes import Codes
from isaerft.subjects.device import in_float64
from isaerft.subjects.hooks import HookState
from isaerft.subjects.load import LoadedSubject


@dataclass(frozen=True)
class Trained:
    """A trained adapter on its subject, with the held-out rows that changes are measured on.

    Measures use only `shift`, `displacement` and `latent_parameter`. They are defined here for an adapter on latents;
    `PulledBack` defines them for one that acts elsewhere in the model.

    Attributes
    ----------
    batch_size : int
        Rows per forward pass.
    """

    subject: LoadedSubject
    adapter: LatentAdapter
    heldout: CachedRows
    batch_size: int

    def shift(self, batch: Batch) -> Shift:
        """Return the change of the latent activations of a batch's tokens."""
        return self.adapter.shift(batch.codes)

    def displacement(self, batch: Batch) -> torch.Tensor:
        """Return what is added to the residual stream of a batch's tokens, (n_tokens, d_model)."""
        return self.explained(batch, self.shift(batch))

    def explained(self, batch: Batch, shift: Shift) -> torch.Tensor:
        """Return what a change of latents adds to the residual stream of a batch's tokens, (n_tokens, d_model)."""
        change = shift.residual(self.subject.dictionary.decoder).to(batch.residual.dtype)
        return self.subject.reaching(batch.written, change)

    def latent_parameter(self) -> torch.Tensor:
        """Return the adapter's own number for each latent, (d_sae,), 0 where the adapter does not change it."""
        return self.adapter.latent_parameter()

    def mean_shift(self) -> torch.Tensor:
        """Return the mean change of each latent's activation over the held-out tokens, (d_sae,)."""
        device = self.subject.model.device
        total = torch.zeros(self.subject.dictionary.d_sae, device=device)
        n_tokens = 0
        with torch.no_grad():
            for batch in self.heldout.batches(self.batch_size):
                total += self.shift(batch.to(device)).total()
                n_tokens += batch.codes.n_tokens
        return total / n_tokens


@dataclass(frozen=True)
class PulledBack(Trained):
    """An adapter on the model outside the SAE's basis, or a fine-tuned checkpoint.

    Attributes
    ----------
    adapter : ModelAdapter
        On the subject's model, idle above the hook.
    """

    adapter: ModelAdapter  # type: ignore[assignment]

    def shift(self, batch: Batch) -> Shift:
        """Return encode(x') - encode(x); at BOS no latent counts as active."""
        after = self.subject.dictionary.encode(self._at_hook(batch).activation)
        return activation_change(batch.codes, after.emptied(bos_mask(self.subject, batch)))

    def displacement(self, batch: Batch) -> torch.Tensor:
        """Return the change of the residual stream of a batch's tokens, (n_tokens, d_model)."""
        return self._at_hook(batch).residual - batch.residual

    def latent_parameter(self) -> torch.Tensor:
        """Return the mean change of activation over the held-out tokens, (d_sae,).

        No trained number belongs to one latent, so the mean effect on the latent is used instead.
        """
        return self.mean_shift()

    def diagnostics(self) -> dict[str, float | None]:
        """Return how much of the effect passes through the hook, and how much of that the dictionary explains.

        Returns
        -------
        dict
            explained_share (see `explained_share`), and the held-out losses, in nats per completion token, with only
            the displacement at the hook (heldout_loss_displaced) or only its explained part
            (heldout_loss_pulled_back).
        """
        return {
            "explained_share": self.explained_share(),
            "heldout_loss_displaced": self._heldout_loss(self.displacement),
            "heldout_loss_pulled_back": self._heldout_loss(lambda batch: self.explained(batch, self.shift(batch))),
        }

    def explained_share(self) -> float | None:
        """Return the share of the displacement on held-out tokens that the dictionary explains.

        1 - ||d - explained||^2 / ||d||^2, both summed over all tokens but BOS: 1 if the dictionary explains
        everything, 0 if nothing, negative if what it says points elsewhere. None without any displacement.
        """
        device = self.subject.model.device
        missed = whole = 0.0
        with torch.no_grad():
            for batch in self.heldout.batches(self.batch_size):
                moved = batch.to(device)
                kept = ~bos_mask(self.subject, moved)
                displaced = in_float64(self.displacement(moved)[kept])
                explained = in_float64(self.explained(moved, self.shift(moved))[kept])
                missed += float((displaced - explained).square().sum())
                whole += float(displaced.square().sum())
        return 1 - missed / whole if whole > 0 else None

    def _heldout_loss(self, displace: Callable[[Batch], torch.Tensor]) -> float:
        """Return the mean loss of the held-out completion tokens under a displacement, in nats."""
        total = n_tokens = 0.0
        with torch.no_grad():
            for batch in self.heldout.batches(self.batch_size):
                moved = batch.to(self.subject.model.device)
                losses = completion_losses(self.subject, moved, moved.residual + displace(moved))
                total += float(in_float64(losses).sum())
                n_tokens += len(losses)
        return total / n_tokens

    def hook_states(self, batch: Batch) -> tuple[HookState, HookState]:
        """Return what a batch's tokens look like at the hook without the adapter and with it."""
        return base_state(self.subject, batch), self._at_hook(batch)

    def _at_hook(self, batch: Batch) -> HookState:
        with torch.no_grad():
            return self.adapter.at_hook(self.subject, batch)


@contextmanager
def load_trained(folder: str | Path, subject: LoadedSubject, heldout: CachedRows, batch_size: int) -> Iterator[Trained]:
    """Give the adapter saved in `folder` on its subject; the model is restored when the block ends."""
    if is_model_adapter(folder):
        with load_model_adapter(folder, subject) as model_adapter, model_adapter.idle():
            yield PulledBack(subject, model_adapter, heldout, batch_size)
    else:
        adapter = load_adapter(folder, subject.dictionary.d_sae).to(subject.model.device)
        yield Trained(subject, adapter.requires_grad_(False), heldout, batch_size)


def activation_change(before: Codes, after: Codes) -> Shift:
    """Return the change between two sets of activations of the same tokens, over latents active in either.

    A latent with the same activation in both has a change of exactly 0.
    """
    keys = torch.cat([codes.tokens() * codes.d_sae + codes.indices for codes in (before, after)])
    union, position = keys.unique(return_inverse=True)
    values = before.values.new_zeros(len(union)).index_add(0, position[: len(before.values)], before.values)
    change = (-values).index_add(0, position[len(before.values) :], after.values.to(values.dtype))
    counts = torch.bincount(union // before.d_sae, minlength=before.n_tokens)
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return Shift(Codes(union % before.d_sae, values, starts, before.d_sae), entries=change)
