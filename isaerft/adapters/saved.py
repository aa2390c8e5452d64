"""Adapters on disk: our own format, and that of the original ISaeRFT code.

A folder in our format holds adapter_config.json and adapter_model.safetensors. The config also says at which SAE the
adapter was trained: at another one its numbers belong to other latents, so `open_adapter` refuses it. The original code
(github.com/AMindToThink/interpretable-fine-tuning) writes adapter_config.json (its `peft_type` is ISAERFT),
blocks_manifest.json with the names of its blocks, and for each block a torch zip file with a state dict of
`sequential.0.bias` (a bias) or `scaling_factors` (a scale, 0 at the identity). A block is named after its hook, with
underscores for dots. That code replaces the residual stream by the SAE's reconstruction; ours keeps the error.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from isaerft.adapters.base import LatentAdapter, make_adapter
from isaerft.adapters.model import ModelAdapter
from isaerft.directory import saes_directory
from isaerft.errors import InputError, printable, shown
from isaerft.io import read_json, replacing, write_json
from isaerft.layout import ADAPTER_SEED, CHECKPOINT_STEP, checkpoints_of
from isaerft.outside import damage, loading
from isaerft.registry import ADAPTERS
from isaerft.subjects.dictionary import Dictionary
from isaerft.subjects.load import LoadedSubject

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MANIFEST = "blocks_manifest.json"
_TRAIN_AGAIN = "train it again on this subject"
ORIGINAL = "ISAERFT"
OTHER_SAE = "other_sae"
KINDS = {"sequential.0.bias": "bias", "scaling_factors": "scale"}


def save_adapter(
    adapter: LatentAdapter | ModelAdapter, folder: str | Path, dictionary: Dictionary | None = None
) -> None:
    """Write adapter_config.json and adapter_model.safetensors under `folder`, atomically.

    Parameters
    ----------
    dictionary : Dictionary, optional
        The SAE that a latent adapter belongs to.
    """
    weights = adapter.weights() if isinstance(adapter, ModelAdapter) else adapter.state_dict()
    size: dict[str, Any] = {} if isinstance(adapter, ModelAdapter) else {"d_sae": adapter.d_sae}
    if dictionary is not None:
        size["sae"] = {"hook_name": dictionary.hook_name, "fingerprint": dictionary.fingerprint}
    with replacing(folder) as temporary:
        temporary.mkdir()
        save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, temporary / WEIGHTS)
        write_json(temporary / CONFIG, {"kind": adapter.kind} | size | {"options": adapter.options()})


def load_adapter(folder: str | Path, d_sae: int) -> LatentAdapter:
    """Load a latent adapter for a dictionary of `d_sae` latents.

    Raises
    ------
    InputError
        The folder holds no latent adapter, or one for a dictionary of another size.
    """
    saved = _config_of(folder)
    if "d_sae" not in saved:
        raise InputError(
            f"adapter in {str(folder)!r} is a {printable(saved.get('kind', ORIGINAL))}",
            allowed="adapters on latent activations",
        )
    if saved["d_sae"] != d_sae:
        raise InputError(
            f"adapter in {str(folder)!r} is for {saved['d_sae']} latents", allowed=f"{d_sae}, as the SAE has"
        )
    adapter, weights = make_adapter(saved["kind"], d_sae, saved["options"]), read_tensors(Path(folder) / WEIGHTS)
    with loading(f"adapter in {str(folder)!r}", remedy="its weights are not those of its config: save it again"):
        adapter.load_state_dict(weights)
    return adapter


@contextmanager
def load_model_adapter(folder: str | Path, subject: LoadedSubject) -> Iterator[ModelAdapter]:
    """Give a saved model adapter on its subject; the model is restored when the block ends.

    Raises
    ------
    InputError
        The tensors do not fit the subject.
    """
    folder = Path(folder)
    saved = _config_of(folder)
    with ADAPTERS[saved["kind"]].on(subject, saved["options"], 0) as adapter:
        weights = read_tensors(folder / WEIGHTS)
        with loading(f"adapter in {str(folder)!r} on this subject", remedy=_TRAIN_AGAIN):
            adapter.load_weights(weights)
        yield adapter.requires_grad_(False)


def is_model_adapter(folder: str | Path) -> bool:
    """Tell whether the adapter saved in `folder` acts on the model outside the SAE's basis."""
    return ADAPTERS.facts(_config_of(folder)["kind"]).on_model


def seed_folders(folder: Path) -> list[Path]:
    """Return the folders seed_0, seed_1, ... of a trained adapter, by seed; a checkpoint may have only one."""
    folders = sorted(folder.glob(f"{ADAPTER_SEED}*"), key=seed_of)
    if not folders:
        raise InputError(f"no trained adapter in {str(folder)!r}", remedy="run `isaerft train` first")
    return folders


def seed_of(folder: Path) -> int:
    """Return k of a folder seed_k."""
    return int(folder.name.removeprefix(ADAPTER_SEED))


def checkpoint_folders(adapter: Path, seed: int) -> dict[int, Path]:
    """Return step -> folder of the checkpoints of one seed of a trained adapter, by step."""
    folders = checkpoints_of(adapter, seed).glob(f"{CHECKPOINT_STEP}*")
    return dict(sorted((int(folder.name.removeprefix(CHECKPOINT_STEP)), folder) for folder in folders))


def _config_of(folder: str | Path) -> dict[str, Any]:
    """Return an adapter's config: the original code's, or one of ours with a registered kind and its options."""
    path = Path(folder) / CONFIG
    config: Any = read_json(path)
    ours = isinstance(config, dict) and isinstance(config.get("kind"), str)
    theirs = isinstance(config, dict) and config.get("peft_type") == ORIGINAL
    if not ours and not theirs:
        raise InputError(
            f"{path} holds {shown(config)}",
            allowed="kind and options of an adapter of isaerft, or an adapter of the original ISaeRFT code",
            remedy="use kind `checkpoint` for an adapter of PEFT",
        )
    if ours and not isinstance(config.setdefault("options", {}), dict):
        raise InputError(f"{path}: options are {shown(config['options'])}", allowed="an object")
    if ours:
        ADAPTERS.check(config["kind"])
    return dict(config)


class Saved:
    """The registered kind `saved`: opens a saved adapter, which keeps its own kind."""

    @staticmethod
    def open(options: Mapping[str, object], dictionary: Dictionary) -> LatentAdapter:
        """Open the adapter at `options["path"]`, as `open_adapter` does; `other_sae` as there."""
        path, other_sae = options.get("path"), options.get(OTHER_SAE, False)
        if not isinstance(path, str) or not isinstance(other_sae, bool) or not set(options) <= {"path", OTHER_SAE}:
            raise InputError(
                f"adapter 'saved' with options {shown(options)}", allowed=f"path, and {OTHER_SAE}: true or false"
            )
        return open_adapter(path, dictionary, other_sae=other_sae)


def open_adapter(path: str | Path, dictionary: Dictionary, *, other_sae: bool = False) -> LatentAdapter:
    """Load a latent adapter for `dictionary` in our format or the original code's.

    Parameters
    ----------
    path : str or Path
        A folder in either format, or one block's file (.pt, .safetensors) of the original code.
    other_sae : bool
        Take an adapter that says that it was trained at another SAE.

    Raises
    ------
    InputError
        There is no adapter, it is for another SAE, another hook or another number of latents, or its weights are
        neither safetensors nor a torch zip file of tensors.
    """
    path = Path(path)
    saved = _config_of(path) if (path / CONFIG).is_file() or (path.is_dir() and not (path / MANIFEST).is_file()) else {}
    if not other_sae:
        _check_sae(path, saved, dictionary)
    if path.is_dir() and not (path / MANIFEST).is_file():
        if "kind" not in saved:
            raise InputError(
                f"adapter in {str(path)!r} has no {MANIFEST}", remedy="give the path of one of its .pt files"
            )
        return load_adapter(path, dictionary.d_sae)
    file = _block_file(path, dictionary) if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"adapter file {str(file)!r} does not exist", remedy="check the adapter's option `path`")
    return _from_block(file, dictionary.d_sae)


def _check_sae(path: Path, saved: Mapping[str, Any], dictionary: Dictionary) -> None:
    """Refuse an adapter whose config names another SAE than `dictionary`; some configs name none."""
    said, hooks = saved.get("sae"), saved.get("target_hooks")
    pairs: list[tuple[object, object]] = []
    if isinstance(said, dict):
        pairs = [(said.get("hook_name"), dictionary.hook_name), (said.get("fingerprint"), dictionary.fingerprint)]
    elif isinstance(hooks, list) and dictionary.release:
        own = [dictionary.release, dictionary.sae_id]
        pairs = [(own if any(_is_one_sae(hook, own) for hook in hooks) else hooks, own)]
    for theirs, ours in pairs:
        if theirs and theirs != ours:
            raise InputError(
                f"adapter in {str(path)!r} was trained at another SAE ({shown(theirs)})",
                allowed=f"one trained at {shown(ours)}, the SAE here",
                remedy=f"choose the subject with that SAE; if you mean it, give the option {OTHER_SAE}: true",
            )


def _is_one_sae(said: object, own: list[str]) -> bool:
    """Tell whether two pairs of release and id are names of one SAE."""
    if said == own:
        return True
    if not (isinstance(said, list) and len(said) == 2 and all(isinstance(name, str) for name in said)):
        return False
    theirs, ours = (saes_directory().weights_of(*names) for names in (said, own))
    return theirs is not None and theirs == ours


def _block_file(folder: Path, dictionary: Dictionary) -> Path:
    """Return the file of the block at the dictionary's hook."""
    manifest: Any = read_json(folder / MANIFEST)
    names = manifest.get("block_names") if isinstance(manifest, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{folder / MANIFEST} holds {shown(manifest)}", allowed="block_names, a list of names")
    wanted = dictionary.hook_name.replace(".", "_").replace("/", "_")
    chosen = [name for name in names if name == wanted]
    if not chosen:
        raise InputError(
            f"adapter in {str(folder)!r} has no block for hook {dictionary.hook_name}",
            allowed=", ".join(map(shown, names)) or "no block is listed",
            remedy="choose the subject whose SAE it was trained on, or give the path of one block's file",
        )
    return folder / f"{Path(chosen[0]).name}.pt"


def _from_block(file: Path, d_sae: int) -> LatentAdapter:
    """Build an adapter from one block's file of the original code."""
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
    """Read named tensors from a safetensors file or a torch zip file, without running anything in it.

    Raises
    ------
    InputError
        The file is of another format (a plain pickle, say), or holds anything but named tensors.
    """
    path = Path(file)
    allowed = "safetensors, or a torch zip file that loads with weights_only=True"
    if not path.is_file():
        raise InputError(f"weights {str(path)!r} do not exist", remedy="check the path")
    with loading(f"weights {str(path)!r}", path, allowed=allowed):
        if path.suffix == ".safetensors":
            return load_file(path)
        if not zipfile.is_zipfile(path):
            found = damage(path)
            raise InputError(
                f"weights {str(path)!r} are not a zip file, and may run code when read"
                + (f" ({found.reason})" if found else ""),
                allowed=allowed,
                remedy=found.remedy if found else "",
            )
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    named = isinstance(tensors, dict) and all(isinstance(value, torch.Tensor) for value in tensors.values())
    if not named:
        raise InputError(f"weights {str(path)!r} hold a {type(tensors).__name__}", allowed="a state dict of tensors")
    return dict(tensors)
