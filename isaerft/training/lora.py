"""lora: PEFT's LoRA on the block right above the hook, the reference that latent adapters are measured against.

It reads the same residual stream that the latent adapters change, so it trains from the same cache.
"""

from __future__ import annotations

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from safetensors.torch import save_file
from torch import nn

from isaerft.adapters.base import CONFIG, WEIGHTS
from isaerft.errors import InputError
from isaerft.files import replacing, write_json
from isaerft.registry import ADAPTERS
from isaerft.subjects.load import LoadedSubject
from isaerft.subjects.site import decoder_blocks

RANK = 8


@ADAPTERS("lora")
def add_lora(subject: LoadedSubject, *, rank: int = RANK, seed: int = 0) -> nn.Module:
    """Put LoRA on every linear map of the block above the subject's hook, in place, and return that block.

    Raises
    ------
    InputError
        There is no block above the hook.
    """
    if subject.site.n_below == subject.site.n_blocks:
        raise InputError(
            "no block lies above the SAE's hook for LoRA to change", remedy="choose a reference of another kind"
        )
    torch.manual_seed(seed)
    block = decoder_blocks(subject.model)[subject.site.n_below]
    targets = {name: part for name, part in block.named_modules() if isinstance(part, nn.Linear) or _is_conv1d(part)}
    transposed = any(_is_conv1d(part) for part in targets.values())
    settings = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(targets), fan_in_fan_out=transposed)
    inject_adapter_in_model(settings, block)
    return block.to(subject.model.device)


def remove_lora(block: nn.Module) -> None:
    """Take LoRA out of a block again and leave its own weights as they were."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, part in list(block.named_modules()):
        if isinstance(part, BaseTunerLayer):
            owner, _, child = name.rpartition(".")
            setattr(block.get_submodule(owner), child, part.get_base_layer())
    # PEFT keeps its settings on the block too, and would take the next LoRA for a second one.
    if hasattr(block, "peft_config"):
        del block.peft_config


def save_lora(block: nn.Module, folder: str | Path, rank: int) -> None:
    """Write the LoRA weights of a block, atomically."""
    with replacing(folder) as temporary:
        temporary.mkdir()
        weights = {name: value.cpu().contiguous() for name, value in get_peft_model_state_dict(block).items()}
        save_file(weights, temporary / WEIGHTS)
        write_json(temporary / CONFIG, {"kind": "lora", "rank": rank})


def _is_conv1d(part: nn.Module) -> bool:
    """GPT-2's linear maps are Conv1D modules."""
    return type(part).__name__ == "Conv1D"
