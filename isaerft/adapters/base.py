"""Bounds that keep changed activations where an SAE's own could lie, and leave the identity exact.

What an adapter does to the latents of some tokens, in the cheapest form that it has.

Let delta be the change of the activations, (n_tokens, d_sae). A bias changes every token alike, a scale only the active
latents, a low-rank map along a few patterns; keeping that structure spares a matrix as wide as the dictionary for every
token.

The base that every adapter on latent activations stands on, and how adapters are saved and loaded.

The base of what is trained outside the SAE's basis: adapters on the residual stream, or on the model's weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from isaerft.errors import InputError, shown
from isaerft.io import read_json, replacing, write_json
from isaerft.registry import ADAPTERS
from isaerft.subjects.cache import Batch
from isaerft.subjects.dictionary import Codes, Dictionary
from isaerft.subjects.hooks import HookState
from isaerft.subjects.load import LoadedSubject


@dataclass(frozen=True)
class Bounds:
    """Where changed activations f' may lie.

    Attributes
    ----------
    nonnegative : bool
        f' >= 0, as every activation of a ReLU-like SAE is.
    clamp : float or None
        |f'| <= clamp, in the activations' units.

    Notes
    -----
    An activation that already lies outside may stay where it is but not move further out, so that no change at all is
    always allowed. Gradients reach a parameter as long as f' is inside or on its bound.
    """

    nonnegative: bool = False
    clamp: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.nonnegative, bool):
            raise InputError(f"adapter option nonnegative = {shown(self.nonnegative)}", allowed="true, false")
        is_number = isinstance(self.clamp, int | float) and not isinstance(self.clamp, bool)
        if self.clamp is not None and not (is_number and self.clamp > 0):
            raise InputError(f"adapter option clamp = {shown(self.clamp)}", allowed="a number above 0")

    def __bool__(self) -> bool:
        return self.nonnegative or self.clamp is not None

    def limit(self, change: torch.Tensor, activations: torch.Tensor) -> torch.Tensor:
        """Return the part of `change` (..., n) that keeps `activations` (..., n) plus it inside."""
        if not self:
            return change
        highest = None if self.clamp is None else torch.relu(self.clamp - activations)
        below = activations if self.nonnegative else activations + self.clamp
        return torch.clamp(change, min=-torch.relu(below), max=highest)

    def options(self) -> dict[str, bool | float]:
        """Return the options that are set."""
        return {name: value for name, value in vars(self).items() if value}


@dataclass(frozen=True)
class Shift:
    """A change of latent activations; the parts that are given add up.

    Attributes
    ----------
    codes : Codes
        The activations that are changed.
    constant : (d_sae,) or None
        Added at every token.
    entries : (n_active,) or None
        Added at the active latents, in the order of ``codes.indices``.
    dense : (n_tokens, d_sae) or None
        Any change at all.
    factors : (n_tokens, r) and (r, d_sae), or None
        Their product is added.
    """

    codes: Codes
    constant: torch.Tensor | None = None
    entries: torch.Tensor | None = None
    dense: torch.Tensor | None = None
    factors: tuple[torch.Tensor, torch.Tensor] | None = None

    def weighted(self, weights: torch.Tensor) -> Shift:
        """Return the shift with each latent's change multiplied by its entry of `weights` (d_sae,)."""
        return Shift(
            self.codes,
            constant=None if self.constant is None else self.constant * weights,
            entries=None if self.entries is None else self.entries * weights[self.codes.indices],
            dense=None if self.dense is None else self.dense * weights,
            factors=None if self.factors is None else (self.factors[0], self.factors[1] * weights),
        )

    def residual(self, decoder: torch.Tensor) -> torch.Tensor:
        """Return delta @ decoder: what reaches the residual stream, (n_tokens, d_in)."""
        result = decoder.new_zeros(self.codes.n_tokens, decoder.shape[1])
        if self.constant is not None:
            result = result + self.constant @ decoder
        if self.entries is not None:
            result = result + self.codes.combine(decoder, self.entries)
        if self.dense is not None:
            result = result + self.dense @ decoder
        if self.factors is not None:
            result = result + self.factors[0] @ (self.factors[1] @ decoder)
        return result

    def without(self, latents: torch.Tensor) -> Shift:
        """Return the change with `latents`, (n,) int64, set back: they do what they did before training."""
        weights = torch.ones(self.codes.d_sae, device=self.codes.indices.device)
        weights[latents] = 0
        return self.weighted(weights)

    def total(self) -> torch.Tensor:
        """Return the sum of delta over tokens, (d_sae,)."""
        result = self.codes.values.new_zeros(self.codes.d_sae)
        if self.constant is not None:
            result = result + self.codes.n_tokens * self.constant
        if self.entries is not None:
            result = result + self.codes.sum_over_tokens(self.entries)
        if self.dense is not None:
            result = result + self.dense.sum(0)
        if self.factors is not None:
            result = result + self.factors[0].sum(0) @ self.factors[1]
        return result

    def against(self, decoder: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
        """Return for each latent the sum over tokens of delta times the inner product of decoder row and `direction`.

        Parameters
        ----------
        direction : (n_tokens, d_in)
            For instance the gradient of the loss with respect to the residual stream.

        Returns
        -------
        (d_sae,)
        """
        result = decoder.new_zeros(self.codes.d_sae)
        if self.constant is not None:
            result = result + self.constant * (decoder @ direction.sum(0))
        if self.entries is not None:
            tokens = self.codes.tokens()
            inner = (decoder[self.codes.indices] * direction[tokens]).sum(-1)
            result = result + self.codes.sum_over_tokens(self.entries * inner)
        if self.dense is not None:
            result = result + (self.dense * (direction @ decoder.T)).sum(0)
        if self.factors is not None:
            result = result + (self.factors[1] * (self.factors[0].T @ direction @ decoder.T)).sum(0)
        return result


CONFIG, WEIGHTS, SEED = "adapter_config.json", "adapter_model.safetensors", "seed_"


class LatentAdapter(nn.Module):
    """A change of latent activations, the exact identity when it is made.

    A subclass gives `forward`; where the change has structure (constant, only at active latents, of low rank) it
    overrides `shift` too, which must say the same as `forward` does. Its effect on the residual stream is
    x + decode(f') - decode(f), so the SAE's reconstruction error never reaches the model.

    Parameters
    ----------
    d_sae : int
        Number of latents.
    nonnegative : bool
        Keep every changed activation at or above 0; see `Bounds`.
    clamp : float, optional
        Keep every changed activation within this distance of 0; see `Bounds`.
    """

    kind: str

    def __init__(self, d_sae: int, *, nonnegative: bool = False, clamp: float | None = None) -> None:
        super().__init__()
        self.d_sae = d_sae
        self.bounds = Bounds(nonnegative, clamp)

    def reset(self, seed: int) -> None:
        """Draw the start of the parameters that do not begin at 0; the adapter stays the identity."""

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
        """Return the parameters (..., d_sae) that write latents: where their entries at a latent are 0 it is unchanged.

        An adapter that gives them can be trained sparsely.
        """
        return ()

    def silence(self, latents: torch.Tensor) -> None:
        """Set all numbers that make the change of `latents`, (d_sae,) bool, to 0, so that they do not change."""
        with torch.no_grad():
            for parameter in self.writing_parameters():
                parameter[..., latents] = 0

    def n_active(self) -> int | None:
        """Return the number of latents that the adapter changes, or None where it cannot tell."""
        parameters = self.writing_parameters()
        return int(norms(parameters).count_nonzero()) if parameters else None

    def options(self) -> dict[str, Any]:
        """Return the keyword arguments, beside `d_sae`, that make this adapter again."""
        return self.bounds.options()


def norms(parameters: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Return the norm of all numbers that belong to each latent in tensors (..., d_sae), as (d_sae,)."""
    squares = [parameter.detach().reshape(-1, parameter.shape[-1]).square().sum(0) for parameter in parameters]
    return torch.stack(squares).sum(0).sqrt()


def count_option(kind: str, name: str, value: object, least: int) -> int:
    """Return an option that must be a whole number of at least `least`; anything else is an `InputError`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"adapter {kind!r}: {name} = {shown(value)}", allowed=f"a whole number of at least {least}")
    return value


def make_adapter(kind: str, d_sae: int, options: dict[str, Any], seed: int = 0) -> LatentAdapter:
    """Make a registered adapter; options that its kind does not have are an `InputError`.

    Parameters
    ----------
    seed : int
        Draws what does not begin at 0 (the inner maps of low_rank and mlp).
    """
    try:
        adapter = ADAPTERS[kind](d_sae, **options)
    except TypeError as error:
        raise InputError(
            f"adapter {kind!r} with options {options}: {error}", remedy="check the adapter's options"
        ) from None
    adapter.reset(seed)
    return adapter


def adapted(
    dictionary: Dictionary, adapter: LatentAdapter, batch: Batch, weigh: Callable[[Shift], Shift] | None = None
) -> torch.Tensor:
    """Return the batch's residual stream under an adapter, x + decode(f') - decode(f), (n_tokens, d_in).

    Parameters
    ----------
    weigh : callable, optional
        Changes the shift before it is decoded, as gates on latents do.
    """
    shift = adapter.shift(batch.codes)
    shift = shift if weigh is None else weigh(shift)
    return batch.residual + shift.residual(dictionary.W_dec).to(batch.residual.dtype)


def save_adapter(adapter: LatentAdapter, folder: str | Path) -> None:
    """Write adapter_config.json and adapter_model.safetensors under `folder`, atomically."""
    with replacing(folder) as temporary:
        temporary.mkdir()
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in adapter.state_dict().items()},
            temporary / WEIGHTS,
        )
        write_json(temporary / CONFIG, {"kind": adapter.kind, "d_sae": adapter.d_sae, "options": adapter.options()})


def load_adapter(folder: str | Path, d_sae: int) -> LatentAdapter:
    """Read an adapter for a dictionary of `d_sae` latents.

    Raises
    ------
    InputError
        The folder holds no adapter, or one for a dictionary of another size.
    """
    saved = read_json(Path(folder) / CONFIG)
    if "d_sae" not in saved:
        raise InputError(
            f"adapter in {str(folder)!r} is a {saved.get('kind')}", allowed="adapters on latent activations"
        )
    if saved["d_sae"] != d_sae:
        raise InputError(
            f"adapter in {str(folder)!r} is for {saved['d_sae']} latents", allowed=f"{d_sae}, as the SAE has"
        )
    adapter = make_adapter(saved["kind"], d_sae, saved["options"])
    adapter.load_state_dict(load_file(Path(folder) / WEIGHTS))
    return adapter


class OutsideAdapter(nn.Module):
    """A change of the model that knows nothing of the SAE, the identity when it is made.

    It is pulled back into the SAE's basis afterwards (`isaerft.changes.pullback`), from what it does to the residual
    stream at the hook.

    Attributes
    ----------
    kind : str
        Name in the registry.
    """

    kind: ClassVar[str]

    @classmethod
    @contextmanager
    def on(cls, subject: LoadedSubject, options: dict[str, Any], seed: int) -> Iterator[OutsideAdapter]:
        """Give a new adapter of a subject; when the block ends the model is again as it was.

        Parameters
        ----------
        seed : int
            Draws what does not begin at 0.
        """
        raise NotImplementedError

    def at_hook(self, subject: LoadedSubject, batch: Batch) -> HookState:
        """Return what a batch's tokens look like at the hook under the adapter, with gradients where they are on."""
        raise NotImplementedError

    def adapted(self, subject: LoadedSubject, batch: Batch) -> torch.Tensor:
        """Return the residual stream of a batch's tokens under the adapter, (n_tokens, d_in)."""
        return self.at_hook(subject, batch).residual

    @contextmanager
    def in_model(self, subject: LoadedSubject) -> Iterator[LoadedSubject]:
        """Give a subject in whose own forward passes the adapter is at work inside the block."""
        yield subject

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the trained tensors by name."""
        return dict(self.state_dict())

    def take(self, weights: dict[str, torch.Tensor]) -> None:
        """Take over tensors that `weights` returned."""
        self.load_state_dict(weights)

    def options(self) -> dict[str, Any]:
        """Return the options that make this adapter again."""
        return {}

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Have the model above the hook be the base model inside the block; `at_hook` still works."""
        yield


def save_outside(adapter: OutsideAdapter, folder: str | Path) -> None:
    """Write adapter_config.json and adapter_model.safetensors under `folder`, atomically."""
    with replacing(folder) as temporary:
        temporary.mkdir()
        weights = {name: value.detach().cpu().contiguous() for name, value in adapter.weights().items()}
        save_file(weights, temporary / WEIGHTS)
        write_json(temporary / CONFIG, {"kind": adapter.kind, "options": adapter.options()})


def with_defaults(kind: str, options: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Return the options with the defaults filled in; an option that the kind does not have is an `InputError`."""
    for name in options:
        if name not in defaults:
            raise InputError(f"adapter {kind!r} with option {shown(name)}", allowed=", ".join(defaults))
    return defaults | options


@contextmanager
def loaded_outside(cls: type[OutsideAdapter], folder: str | Path, subject: LoadedSubject) -> Iterator[OutsideAdapter]:
    """Give a saved adapter on its subject; when the block ends the model is again as it was.

    Raises
    ------
    InputError
        The tensors do not fit the subject.
    """
    folder = Path(folder)
    options = read_json(folder / CONFIG)["options"]
    with cls.on(subject, options, 0) as adapter:
        try:
            adapter.take(load_file(folder / WEIGHTS))
        except (RuntimeError, KeyError) as error:
            raise InputError(
                f"adapter in {str(folder)!r} does not fit the subject ({' '.join(str(error).split())[:200]})",
                remedy="train it again on this subject",
            ) from None
        yield adapter.requires_grad_(False)
