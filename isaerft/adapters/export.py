"""LoRA of a study in PEFT's own format, which merges into the model's weights exactly."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors.torch import save
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from isaerft.adapters.saved import CONFIG, WEIGHTS, read_tensors
from isaerft.adapters.weights import is_conv1d
from isaerft.errors import InputError, shown
from isaerft.io import read_json
from isaerft.outside import loading, origin_remedy
from isaerft.subjects.blocks import decoder_blocks
from isaerft.subjects.load import check_blocks

KIND = "lora"


def peft_files(folder: Path, model: str, revision: str | None = None, *, base: str | None = None) -> dict[str, bytes]:
    """Return the files of a saved LoRA as PEFT writes them, by name.

    Parameters
    ----------
    folder : Path
        Folder of one seed.
    model : str
        The base model's id or folder; only its config is read.
    base : str, optional
        What the files call the base model; its id by default.

    Raises
    ------
    InputError
        The folder holds another kind of adapter, or the config cannot be read.
    """
    saved = read_json(folder / CONFIG)
    if saved.get("kind") != KIND:
        raise InputError(f"adapter in {str(folder)!r} is a {shown(saved.get('kind'))}", allowed=KIND)
    empty = _without_weights(model, revision)
    prefix = next(name for name, part in empty.named_modules() if part is decoder_blocks(empty))
    tensors = read_tensors(folder / WEIGHTS)
    # blocks.{number}.{map}.lora_A.weight
    named = {f"{prefix}.{name.removeprefix('blocks.')}": value.contiguous() for name, value in tensors.items()}
    targets = sorted({name.rpartition(".lora_")[0] for name in named})
    rank = saved["options"]["rank"]
    transposed = any(is_conv1d(empty.get_submodule(name)) for name in targets)
    settings = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=targets, fan_in_fan_out=transposed, task_type="CAUSAL_LM",
        base_model_name_or_path=base or model, revision=revision, inference_mode=True,
    )  # fmt: skip
    text = json.dumps({name: _plain(value) for name, value in settings.to_dict().items()}, indent=2, sort_keys=True)
    weights = {f"base_model.model.{name}": value for name, value in named.items()}
    return {CONFIG: (text + "\n").encode(), WEIGHTS: save(weights, metadata={"format": "pt"})}


def _plain(value: object) -> object:
    return sorted(value) if isinstance(value, set) else getattr(value, "value", value)


def _without_weights(model: str, revision: str | None) -> PreTrainedModel:
    """Return a model made from its config alone."""
    with loading(f"config of {model!r}", model, remedy=origin_remedy(model)):
        stated = AutoConfig.from_pretrained(
            model, trust_remote_code=False, **({"revision": revision} if revision else {})
        )
        check_blocks(stated)
        with torch.device("meta"):
            empty: PreTrainedModel = AutoModelForCausalLM.from_config(stated, trust_remote_code=False)
    return empty
