"""The parts of a decoder-only Hugging Face model: its blocks, and what these call their attention and MLP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn
from transformers import PreTrainedModel

from isaerft.errors import InputError, shown

Part = Literal["attention", "mlp"]


@dataclass(frozen=True)
class BlockParts:
    """What the parts of a transformer block are called in one family of models.

    Attributes
    ----------
    attention, mlp : str
        The two parts.
    attention_norm, mlp_norm : str or None
        Normalization of a part's output before it is added to the residual stream.
    parallel : bool or str
        Whether both parts read the block's input; a string names the config's own flag.
    """

    attention: str = "self_attn"
    mlp: str = "mlp"
    attention_norm: str | None = None
    mlp_norm: str | None = None
    parallel: bool | str = False


_SEQUENTIAL = BlockParts()
_PARALLEL = BlockParts(parallel=True)
_SANDWICH = BlockParts(attention_norm="post_attention_layernorm", mlp_norm="post_feedforward_layernorm")
_GPT = BlockParts(attention="attn")
BLOCK_PARTS = {
    "cohere": _PARALLEL,
    "gemma": _SEQUENTIAL,
    "gemma2": _SANDWICH,
    "gemma3_text": _SANDWICH,
    "gpt2": _GPT,
    "gpt_neo": _GPT,
    "gpt_neox": BlockParts(attention="attention", parallel="use_parallel_residual"),
    "gptj": BlockParts(attention="attn", parallel=True),
    "llama": _SEQUENTIAL,
    "mistral": _SEQUENTIAL,
    "olmo2": _SANDWICH,
    "phi": _PARALLEL,
    "phi3": _SEQUENTIAL,
    "qwen2": _SEQUENTIAL,
    "qwen3": _SEQUENTIAL,
    "stablelm": BlockParts(parallel="use_parallel_residual"),
}
"""Families whose blocks support hooks inside (`hook_attn_out`, `hook_mlp_out`, `hook_resid_mid`), by `model_type`."""


def decoder_of(model: PreTrainedModel) -> nn.Module:
    """Return the part of a Hugging Face model that turns tokens into last hidden states."""
    return model.get_decoder()


def decoder_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """Return the transformer blocks of a decoder-only Hugging Face model."""
    n_blocks = model.config.get_text_config().num_hidden_layers
    for module in decoder_of(model).modules():
        if isinstance(module, nn.ModuleList) and len(module) == n_blocks:
            return module
    raise InputError(
        f"{type(model).__name__} has no list of {n_blocks} blocks", allowed="decoder-only Hugging Face models"
    )


def is_parallel(model: PreTrainedModel) -> bool:
    """Tell whether attention and MLP of a block both read the block's input."""
    flag = _block_parts(model).parallel
    return bool(getattr(model.config.get_text_config(), flag)) if isinstance(flag, str) else flag


def attention_of(model: PreTrainedModel, block: int) -> nn.Module:
    """Return the attention of a block."""
    return getattr(decoder_blocks(model)[block], _block_parts(model).attention)


def writer_of(model: PreTrainedModel, block: int, part: Part) -> nn.Module:
    """Return the module whose output a part of a block adds to the residual stream.

    This is the part itself or the normalization after it: TransformerLens' hook_attn_out or hook_mlp_out.
    """
    names = _block_parts(model)
    name = {"attention": names.attention_norm or names.attention, "mlp": names.mlp_norm or names.mlp}[part]
    return getattr(decoder_blocks(model)[block], name)


def _block_parts(model: PreTrainedModel) -> BlockParts:
    family = model.config.get_text_config().model_type
    if family not in BLOCK_PARTS:
        raise InputError(
            f"hooks inside the blocks of a {shown(family)} model are not supported",
            allowed=f"inside blocks: {', '.join(BLOCK_PARTS)}",
            remedy="choose an SAE on the residual stream between blocks (hook_resid_pre, hook_resid_post)",
        )
    return BLOCK_PARTS[family]
