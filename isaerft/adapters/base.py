"""The base of adapters on latent activations.

An adapter starts as the exact identity. Its effect on what the dictionary writes to is x + decode(f') - decode(f), so
the dictionary's error never reaches the model: of a transcoder x is the MLP's own output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from isaerft.adapters.hooked import AdapterHook, PassTracker
from isaerft.adapters.shift import Bounds, Shift
from isaerft.errors import InputError, shown
from isaerft.registry import ADAPTERS
from isaerft.subjects.cache import Batch
from isaerft.subjects.codes import Codes
from isaerft.subjects.load import LoadedSubject


class LatentAdapter(nn.Module):
    """A change of latent activations, the exact identity before training.

    A subclass defines `forward` and `latent_parameter`. Where the change has structure (constant, only at active
    latents, of low rank) it overrides `shift` too, which must agree with `forward`.

    Parameters
    ----------
    d_sae : int
        Number of latents.
    nonnegative : bool
        Keep every changed activation at or above 0; see `Bounds`.
    clamp : float, optional
        Keep every changed activation within this distance of 0; see `Bounds`.

    Attributes
    ----------
    kind : str
        Registered name; `make_adapter` sets it.
    """

    kind: str

    def __init__(self, d_sae: int, *, nonnegative: bool = False, clamp: float | None = None) -> None:
        super().__init__()
        self.d_sae = d_sae
        self.bounds = Bounds(nonnegative, clamp)

    def reset(self, seed: int) -> None:
        """Draw the initial parameters that are not 0; the adapter stays the identity."""

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """Return the changed activations of activations (..., d_sae)."""
        raise NotImplementedError

    def shift(self, codes: Codes) -> Shift:
        """Return the change of some tokens' activations."""
        dense = codes.dense()
        return Shift(codes, dense=self(dense) - dense)

    def latent_parameter(self) -> torch.Tensor:
        """Return the trained number of each latent, (d_sae,), 0 at the identity."""
        raise NotImplementedError

    def writing_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return the parameters (..., d_sae) that write latents; a latent whose entries are all 0 does not change.

        Sparse training needs them.
        """
        return ()

    def reading_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return the parameters (d_sae, ...) that read latents; one whose entries are all 0 changes nothing.

        They start at 0, so that their size tells what is read. Training with a sparse reading side needs them.
        """
        return ()

    def silence(self, latents: torch.Tensor) -> None:
        """Set every number that changes `latents`, (d_sae,) bool, to 0."""
        with torch.no_grad():
            for parameter in self.writing_parameters():
                parameter[..., latents] = 0

    def ignore(self, latents: torch.Tensor) -> None:
        """Set every number that reads `latents`, (d_sae,) bool, to 0."""
        with torch.no_grad():
            for parameter in self.reading_parameters():
                parameter[latents] = 0

    def n_active(self) -> int | None:
        """Return the number of latents that the adapter changes; None without writing parameters."""
        parameters = self.writing_parameters()
        return int(norms(parameters).count_nonzero()) if parameters else None

    @contextmanager
    def in_model(self, subject: LoadedSubject) -> Iterator[LoadedSubject]:
        """Give a subject whose own forward passes include the adapter inside the block, as on cached activations."""
        hook = AdapterHook(subject.dictionary, subject.hook, PassTracker())
        hook.adapters["adapter"] = self
        hook.active = {"adapter"}
        with hook.registered(subject.model, subject.language.bos[0] if subject.language.bos else None):
            yield subject

    def options(self) -> dict[str, object]:
        """Return the keyword arguments, other than `d_sae`, that rebuild this adapter."""
        return self.bounds.options()


def make_adapter(kind: str, d_sae: int, options: Mapping[str, object], seed: int = 0) -> LatentAdapter:
    """Build a registered adapter.

    Parameters
    ----------
    seed : int
        Draws the initial parameters that are not 0 (the inner maps of low_rank and mlp).

    Raises
    ------
    InputError
        The kind is unknown or has no such options.
    """
    try:
        adapter: LatentAdapter = ADAPTERS[kind](d_sae, **options)
    except TypeError as error:
        raise InputError(
            f"adapter {kind!r} with options {options}: {error}", remedy="check the adapter's options"
        ) from None
    adapter.kind = kind
    adapter.reset(seed)
    return adapter


def adapted(
    subject: LoadedSubject, adapter: LatentAdapter, batch: Batch, weigh: Callable[[Shift], Shift] | None = None
) -> torch.Tensor:
    """Return a batch's residual stream under an adapter, x + decode(f') - decode(f), (n_tokens, d_model).

    Parameters
    ----------
    weigh : callable, optional
        Changes the shift before it is decoded, as gates on latents do.
    """
    shift = adapter.shift(batch.codes)
    shift = shift if weigh is None else weigh(shift)
    change = subject.reaching(batch.written, shift.residual(subject.dictionary.decoder))
    return batch.residual + change.to(batch.residual.dtype)


def norms(parameters: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Return each latent's norm over its numbers in all tensors (..., d_sae), as (d_sae,)."""
    squares = [parameter.detach().reshape(-1, parameter.shape[-1]).square().sum(0) for parameter in parameters]
    return torch.stack(squares).sum(0).sqrt()


def n_trainable(module: nn.Module) -> int:
    """Return the number of entries of the parameters that require a gradient."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def check_count(kind: str, name: str, value: object, least: int, most: int | None = None) -> int:
    """Return an option that must be a whole number from `least` to `most`; anything else is an `InputError`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least or (most is not None and value > most):
        allowed = f"a whole number of at least {least}" if most is None else f"a whole number from {least} to {most}"
        raise InputError(f"adapter {kind!r}: {name} = {shown(value)}", allowed=allowed)
    return value
