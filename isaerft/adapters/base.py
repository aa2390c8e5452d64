"""The base that every adapter on latent activations stands on, and how adapters are saved and loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from isaerft.adapters.bounds import Bounds
from isaerft.adapters.shift import Shift
from isaerft.errors import InputError, shown
from isaerft.files import read_json, replacing, write_json
from isaerft.registry import ADAPTERS
from isaerft.subjects.cache import Batch
from isaerft.subjects.codes import Codes
from isaerft.subjects.dictionary import Dictionary

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
    made: ClassVar[str] = "latents"
    """How `isaerft.training.run` comes by one."""

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
