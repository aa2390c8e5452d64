"""The parts of a decoder-only Hugging Face model: its blocks, and what these call their attention and MLP."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
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
    projection : str
        Attention's output projection, which reads the heads side by side; a path inside the block.
    attention_norm, mlp_norm : str or None
        Normalization of a part's output before it is added to the residual stream.
    norm_before_mlp : str or None
        Normalization that the MLP alone reads through: TransformerLens' ln2.
    parallel : bool or str
        Whether both parts read the block's input; a string names the config's own flag.
    """

    attention: str = "self_attn"
    mlp: str = "mlp"
    projection: str = "self_attn.o_proj"
    attention_norm: str | None = None
    mlp_norm: str | None = None
    norm_before_mlp: str | None = "post_attention_layernorm"
    parallel: bool | str = False


_SEQUENTIAL = BlockParts()
_SANDWICH = BlockParts(
    attention_norm="post_attention_layernorm",
    mlp_norm="post_feedforward_layernorm",
    norm_before_mlp="pre_feedforward_layernorm",
)
BLOCK_PARTS = {
    "cohere": BlockParts(norm_before_mlp=None, parallel=True),
    "gemma": _SEQUENTIAL,
    "gemma2": _SANDWICH,
    "gemma3_text": _SANDWICH,
    "gpt2": BlockParts(attention="attn", projection="attn.c_proj", norm_before_mlp="ln_2"),
    "gpt_neo": BlockParts(attention="attn", projection="attn.attention.out_proj", norm_before_mlp="ln_2"),
    "gpt_neox": BlockParts(attention="attention", projection="attention.dense", parallel="use_parallel_residual"),
    "gptj": BlockParts(attention="attn", projection="attn.out_proj", norm_before_mlp=None, parallel=True),
    "llama": _SEQUENTIAL,
    "mistral": _SEQUENTIAL,
    "olmo2": replace(_SANDWICH, norm_before_mlp=None),
    "phi": BlockParts(projection="self_attn.dense", norm_before_mlp=None, parallel=True),
    "phi3": _SEQUENTIAL,
    "qwen2": _SEQUENTIAL,
    "qwen3": _SEQUENTIAL,
    "stablelm": BlockParts(parallel="use_parallel_residual"),
}
"""Families whose blocks support hooks inside, by `model_type`."""


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


def norm_behind(model: PreTrainedModel, block: int) -> nn.Module | None:
    """Return the normalization between the attention of a block and the residual stream, if there is one."""
    name = _block_parts(model).attention_norm
    return None if name is None else getattr(decoder_blocks(model)[block], name)


def projection_of(model: PreTrainedModel, block: int) -> nn.Module:
    """Return attention's output projection in a block."""
    return decoder_blocks(model)[block].get_submodule(_block_parts(model).projection)


def projection_matrix(model: PreTrainedModel, block: int) -> torch.Tensor:
    """Return what attention's output projection multiplies the heads by, (n_heads * d_head, d_model) float32."""
    projection = projection_of(model, block)
    weight = cast("torch.Tensor", projection.weight).detach().float()
    # GPT-2 has a Conv1D, which stores its weight transposed.
    return weight.T if isinstance(projection, nn.Linear) else weight


def mlp_of(model: PreTrainedModel, block: int) -> nn.Module:
    """Return the MLP of a block."""
    return getattr(decoder_blocks(model)[block], _block_parts(model).mlp)


def norm_before_mlp(model: PreTrainedModel, block: int) -> nn.Module:
    """Return the normalization that the MLP of a block alone reads through.

    Raises
    ------
    InputError
        There is none.
    """
    name, own = _block_parts(model).norm_before_mlp, decoder_blocks(model)[block]
    norm = getattr(own, name, None) if name is not None else None
    if norm is None:
        raise InputError(
            f"ln2.hook_normalized, but the MLP of a {type(own).__name__} has no normalization of its own",
            allowed="blocks.L.mlp.hook_in, what the MLP reads",
        )
    return norm


def has_known_parts(model: PreTrainedModel) -> bool:
    """Tell whether it is known what the blocks of a model call their attention and MLP."""
    return model.config.get_text_config().model_type in BLOCK_PARTS


def _block_parts(model: PreTrainedModel) -> BlockParts:
    family = model.config.get_text_config().model_type
    if family not in BLOCK_PARTS:
        raise InputError(
            f"hooks inside the blocks of a {shown(family)} model are not supported",
            allowed=f"inside blocks: {', '.join(BLOCK_PARTS)}",
            remedy="choose an SAE on the residual stream between blocks (hook_resid_pre, hook_resid_post)",
        )
    return BLOCK_PARTS[family]
