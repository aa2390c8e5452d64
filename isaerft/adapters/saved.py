"""saved: an adapter from a file, to be analysed without training; also those of the original ISaeRFT code.

A folder in our own format holds adapter_config.json and adapter_model.safetensors. The original code
(github.com/AMindToThink/interpretable-fine-tuning) leaves adapter_config.json (its `peft_type` is ISAERFT),
blocks_manifest.json with the names of its blocks, and for each block a torch zip file with a state dict of
`sequential.0.bias` (a bias) or `scaling_factors` (a scale, 0 at the identity). A block is named after its hook, dots as
underscores. That code replaces the residual stream by the SAE's reconstruction; ours keeps the reconstruction error.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from isaerft.adapters.base import CONFIG, LatentAdapter, load_adapter, make_adapter
from isaerft.errors import InputError, shown
from isaerft.io import read_json
from isaerft.subjects.dictionary import Dictionary

MANIFEST = "blocks_manifest.json"
KINDS = {"sequential.0.bias": "bias", "scaling_factors": "scale"}


class Saved:
    """The registered kind. What it makes is the adapter that was saved, of that adapter's own kind."""

    @staticmethod
    def open(options: dict[str, Any], dictionary: Dictionary) -> LatentAdapter:
        """Read the adapter at `options["path"]`, as `open_adapter` does."""
        path = options.get("path")
        if not isinstance(path, str) or set(options) != {"path"}:
            raise InputError(f"adapter 'saved' with options {shown(options)}", allowed="path, and nothing else")
        return open_adapter(path, dictionary)


def open_adapter(path: str | Path, dictionary: Dictionary) -> LatentAdapter:
    """Read an adapter for `dictionary` from our own format or from the original code's.

    Parameters
    ----------
    path : str or Path
        A folder in either format, or one block's file (.pt, .safetensors) of the original code.

    Raises
    ------
    InputError
        Nothing is there, it is for another hook or another number of latents, or its weights are neither safetensors
        nor a torch zip file of tensors.
    """
    path = Path(path)
    if path.is_dir() and not (path / MANIFEST).is_file():
        if read_json(path / CONFIG).get("peft_type") == "ISAERFT":
            raise InputError(
                f"adapter in {str(path)!r} has no {MANIFEST}", remedy="give the path of one of its .pt files"
            )
        return load_adapter(path, dictionary.d_sae)
    file = _block_file(path, dictionary) if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"adapter file {str(file)!r} does not exist", remedy="check the adapter's option `path`")
    return _original(file, dictionary.d_sae)


def _block_file(folder: Path, dictionary: Dictionary) -> Path:
    """Return the file of the block at the dictionary's hook."""
    names = read_json(folder / MANIFEST).get("block_names", [])
    wanted = dictionary.hook_name.replace(".", "_").replace("/", "_")
    chosen = [name for name in names if name == wanted]
    if not chosen:
        raise InputError(
            f"adapter in {str(folder)!r} has no block for hook {dictionary.hook_name}",
            allowed=", ".join(map(shown, names)) or "no block is listed",
            remedy="choose the subject whose SAE it was trained on, or give the path of one block's file",
        )
    return folder / f"{Path(chosen[0]).name}.pt"


def _original(file: Path, d_sae: int) -> LatentAdapter:
    """Make an adapter of one block's state dict."""
    tensors = read_tensors(file)
    names = set(tensors)
    if len(names) != 1 or not names <= set(KINDS):
        raise InputError(f"adapter {str(file)!r} holds {shown(sorted(names))}", allowed=f"one of {', '.join(KINDS)}")
    ((name, values),) = tensors.items()
    if tuple(values.shape) != (d_sae,):
        raise InputError(
            f"adapter {str(file)!r} is for {shown(tuple(values.shape))} latents", allowed=f"{d_sae}, as the SAE has"
        )
    if not values.isfinite().all():
        raise InputError(f"adapter {str(file)!r} holds numbers that are not finite")
    adapter = make_adapter(KINDS[name], d_sae, {})
    with torch.no_grad():
        adapter.writing_parameters()[0].copy_(values)
    return adapter


def read_tensors(file: str | Path) -> dict[str, torch.Tensor]:
    """Read named tensors from a safetensors file or a torch zip file; nothing in the file is ever run.

    Raises
    ------
    InputError
        The file is of another kind (a plain pickle, say), or holds anything but named tensors.
    """
    path = Path(file)
    allowed = "safetensors, or a torch zip file that loads with weights_only=True"
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if not zipfile.is_zipfile(path):
            raise InputError(f"weights {str(path)!r} are not a zip file, and may run code when read", allowed=allowed)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split())
        raise InputError(f"weights {str(path)!r} cannot be read ({reason[:200]})", allowed=allowed) from None
    named = isinstance(tensors, dict) and all(isinstance(value, torch.Tensor) for value in tensors.values())
    if not named:
        raise InputError(f"weights {str(path)!r} hold a {type(tensors).__name__}", allowed="a state dict of tensors")
    return dict(tensors)
