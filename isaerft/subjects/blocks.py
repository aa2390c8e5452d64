"""What the parts of a transformer block are called in each family of Hugging Face models.

The residual stream between two blocks is found in any decoder-only model. What attention and MLP add to it lies inside
a block, and there the families differ: in names, in a normalisation between a part and the addition, and in whether
the MLP reads what attention wrote (sequential blocks) or both read the block's input (parallel blocks).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from isaerft.errors import InputError, shown

Part = Literal["attention", "mlp"]


@dataclass(frozen=True)
class Layout:
    """The names of a block's parts.

    Attributes
    ----------
    attention, mlp : str
        The two parts.
    attention_norm, mlp_norm : str or None
        Normalisation of a part's output before it is added to the residual stream.
    parallel : bool or str
        Whether both parts read the block's input; a string names the config's own flag.
    """

    attention: str = "self_attn"
    mlp: str = "mlp"
    attention_norm: str | None = None
    mlp_norm: str | None = None
    parallel: bool | str = False


_SEQUENTIAL = Layout()
_PARALLEL = Layout(parallel=True)
_SANDWICH = Layout(attention_norm="post_attention_layernorm", mlp_norm="post_feedforward_layernorm")
_GPT = Layout(attention="attn")
LAYOUTS = {
    "cohere": _PARALLEL,
    "gemma": _SEQUENTIAL,
    "gemma2": _SANDWICH,
    "gemma3_text": _SANDWICH,
    "gpt2": _GPT,
    "gpt_neo": _GPT,
    "gpt_neox": Layout(attention="attention", parallel="use_parallel_residual"),
    "gptj": Layout(attention="attn", parallel=True),
    "llama": _SEQUENTIAL,
    "mistral": _SEQUENTIAL,
    "olmo2": _SANDWICH,
    "phi": _PARALLEL,
    "phi3": _SEQUENTIAL,
    "qwen2": _SEQUENTIAL,
    "qwen3": _SEQUENTIAL,
    "stablelm": Layout(parallel="use_parallel_residual"),
}


def decoder_of(model: nn.Module) -> nn.Module:
    """Return the part of a Hugging Face model that turns tokens into last hidden states."""
    return model.get_decoder()


def decoder_blocks(model: nn.Module) -> nn.ModuleList:
    """Return the list of transformer blocks of a decoder-only Hugging Face model."""
    n_blocks = model.config.get_text_config().num_hidden_layers
    for module in decoder_of(model).modules():
        if isinstance(module, nn.ModuleList) and len(module) == n_blocks:
            return module
    raise InputError(
        f"{type(model).__name__} has no list of {n_blocks} blocks", allowed="decoder-only Hugging Face models"
    )


def is_parallel(model: nn.Module) -> bool:
    """Tell whether attention and MLP of a block both read the block's input."""
    flag = _layout(model).parallel
    return bool(getattr(model.config.get_text_config(), flag)) if isinstance(flag, str) else flag


def attention_of(model: nn.Module, block: int) -> nn.Module:
    """Return the attention of a block."""
    return getattr(decoder_blocks(model)[block], _layout(model).attention)


def writer_of(model: nn.Module, block: int, part: Part) -> nn.Module:
    """Return the module whose output is what a part of a block adds to the residual stream.

    The part itself, or the normalisation after it: the point that TransformerLens calls hook_attn_out or hook_mlp_out.
    """
    layout = _layout(model)
    name = {"attention": layout.attention_norm or layout.attention, "mlp": layout.mlp_norm or layout.mlp}[part]
    return getattr(decoder_blocks(model)[block], name)


def _layout(model: nn.Module) -> Layout:
    family = model.config.get_text_config().model_type
    if family not in LAYOUTS:
        raise InputError(
            f"an SAE inside the blocks of a {shown(family)} model",
            allowed=f"inside blocks: {', '.join(LAYOUTS)}",
            remedy="choose an SAE on the residual stream between blocks (hook_resid_pre, hook_resid_post)",
        )
    return LAYOUTS[family]
