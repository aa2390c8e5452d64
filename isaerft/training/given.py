"""What a user may give for an SAE and for an adapter, turned into what this package works with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from isaerft.adapters.base import CONFIG, LatentAdapter, make_adapter
from isaerft.adapters.saved import Saved, open_adapter
from isaerft.errors import InputError, shown, unknown_name
from isaerft.registry import ADAPTERS
from isaerft.subjects.dictionary import Dictionary, load_dictionary


def as_dictionary(sae: object, hook_name: str | None, center_writing_weights: bool) -> Dictionary:
    """Return the dictionary of a `Dictionary`, an SAE of SAELens, or a folder in SAELens' format.

    Raises
    ------
    InputError
        It is none of these, or the SAE is no linear dictionary, or its normalisation is not folded in.
    """
    if isinstance(sae, Dictionary):
        dictionary = replace(sae, center=sae.center or center_writing_weights)
    elif isinstance(sae, str | Path):
        dictionary = load_dictionary(sae, center=center_writing_weights)
    else:
        save = getattr(sae, "save_inference_model", None) or getattr(sae, "save_model", None)
        if save is None:
            raise InputError(
                f"SAE {shown(type(sae).__name__)}",
                allowed="an SAE of sae_lens, a folder in its format, or an isaerft Dictionary",
            )
        with TemporaryDirectory() as folder:
            save(folder)
            dictionary = load_dictionary(folder, center=center_writing_weights)
    dictionary = replace(dictionary, hook_name=hook_name or dictionary.hook_name)
    if not dictionary.hook_name:
        raise InputError("an SAE that does not say where it sits", remedy='give hook_name="blocks.L.hook_resid_post"')
    return dictionary


def as_adapter(adapter: object, dictionary: Dictionary, options: dict[str, Any], seed: int) -> LatentAdapter:
    """Return the adapter of a registered kind with options, a `LatentAdapter`, or a saved one.

    A saved one is a folder in our own format or in the original code's (`isaerft.adapters.saved`).

    Raises
    ------
    InputError
        It is none of these, it does not act on latents, or it is for a dictionary of another size.
    """
    d_sae = dictionary.d_sae
    if isinstance(adapter, str) and adapter in ADAPTERS:
        kind = ADAPTERS[adapter]
        if kind is Saved:
            return Saved.open(options, dictionary)
        if not (isinstance(kind, type) and issubclass(kind, LatentAdapter)):
            raise InputError(
                f"adapter {adapter!r}, which does not act on latents",
                allowed="adapters on latent activations",
                remedy="use PEFT itself for LoRA",
            )
        if kind.made != "latents":
            raise InputError(
                f"adapter {adapter!r}, which is not trained but {kind.made}",
                remedy="make it in a study and give the folder that the study wrote",
            )
        return make_adapter(adapter, d_sae, options, seed)
    if options:
        raise InputError(f"options {shown(options)} for an adapter that is already made", allowed="none")
    if isinstance(adapter, LatentAdapter):
        if adapter.d_sae != d_sae:
            raise InputError(f"an adapter for {adapter.d_sae} latents", allowed=f"{d_sae}, as the SAE has")
        return adapter
    if isinstance(adapter, str | Path) and (Path(adapter) / CONFIG).is_file():
        return open_adapter(adapter, dictionary)
    if isinstance(adapter, str) and "/" not in adapter:
        raise unknown_name("adapter", adapter, ADAPTERS)
    raise InputError(
        f"adapter {shown(adapter)}", allowed=f"a registered kind, a LatentAdapter, or a folder with {CONFIG}"
    )
