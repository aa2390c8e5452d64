"""Run a Hugging Face model below and above the hook of an SAE.

Two points matter. The *hook* is where the SAE reads: the residual stream, or what attention or the MLP adds to it. The
*injection point* is where adapters write: the point of the residual stream at which the hook's activation has been
added and nothing has read it yet.

==============  ===================================  =============================================================
hook            activation                           injection point
==============  ===================================  =============================================================
hook_resid_pre  the input of block L                 the same
hook_resid_mid  between attention and MLP            the same (sequential blocks only)
hook_resid_post the output of block L                the same; `post` of block L is `pre` of block L + 1
hook_mlp_out    the output of the MLP                the output of block L
hook_attn_out   the output of attention              between attention and MLP; in parallel blocks the output of L
==============  ===================================  =============================================================

Adding a vector to the hook's activation equals adding it to the residual stream at the injection point, so adapters
need not know the hook. The residual stream between blocks is found in any decoder-only model. Hooks inside a block need
the names of the block's parts, which differ between families (`isaerft.subjects.blocks`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import PreTrainedModel

from isaerft.errors import InputError, shown
from isaerft.subjects.blocks import attention_of, decoder_blocks, decoder_of, is_parallel, writer_of

_HOOK = re.compile(r"blocks\.(\d+)\.hook_(resid_pre|resid_mid|resid_post|attn_out|mlp_out)")
# Modules of Hugging Face models by which some SAEs name the block whose output they read.
_MODULE = re.compile(r"(?:\w+\.)*(?:layers|h|blocks)\.(\d+)")
_FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm")
_LARGE = 128.0
_ALLOWED = ", ".join(f"blocks.L.hook_{at}" for at in ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"))


@dataclass(frozen=True)
class HookPoint:
    """The hook of an SAE and its injection point.

    Attributes
    ----------
    n_below : int
        Number of blocks that lie wholly below the injection point.
    n_blocks : int
        Number of blocks of the model.
    reads : {"residual", "attention", "mlp"}
        What the SAE reads: the residual stream at the injection point, or the output of attention or of the MLP.
    inside : bool
        Whether the injection point lies inside block `n_below`, between its attention and its MLP.
    """

    n_below: int
    n_blocks: int
    reads: Literal["residual", "attention", "mlp"] = "residual"
    inside: bool = False

    @property
    def block(self) -> int:
        """Last block that runs, wholly or in part, to reach the injection point; -1 below the first block."""
        return self.n_below if self.inside else self.n_below - 1


@dataclass(frozen=True)
class HookState:
    """Output of the model below the hook.

    Attributes
    ----------
    activation : (..., d_in)
        The hook's activation, which the SAE reads.
    residual : (..., d_in)
        The residual stream at the injection point; the same tensor where the SAE reads the residual stream.
    """

    activation: torch.Tensor
    residual: torch.Tensor


def find_hook(model: PreTrainedModel, hook_name: str) -> HookPoint:
    """Return the hook point of `model` with the TransformerLens name `hook_name`.

    Raises
    ------
    InputError
        The hook is not supported, or the model does not have it.
    """
    match = _HOOK.fullmatch(hook_name)
    if match is None:
        heads = "hook_z" in hook_name
        remedy = "choose an SAE on the residual stream, or on the output of attention or of an MLP"
        if not heads:
            module = _MODULE.fullmatch(hook_name)
            remedy += f"; if this is one, say where: hook_name: blocks.{module[1] if module else 'L'}.hook_resid_post"
        raise InputError(
            f"unsupported SAE hook {shown(hook_name)}" + (" (attention heads before the output projection)" * heads),
            allowed=_ALLOWED,
            remedy=remedy,
        )
    block, at = int(match[1]), match[2]
    n_blocks = len(decoder_blocks(model))
    if block >= n_blocks:
        raise InputError(
            f"SAE hook {hook_name!r}, but the model has {n_blocks} blocks", allowed=f"L from 0 to {n_blocks - 1}"
        )
    if at in ("resid_pre", "resid_post"):
        return HookPoint(block + (at == "resid_post"), n_blocks)
    if at == "mlp_out":
        writer_of(model, block, "mlp")
        return HookPoint(block + 1, n_blocks, "mlp")
    parallel = is_parallel(model)
    if at == "attn_out":
        return HookPoint(block + parallel, n_blocks, "attention", inside=not parallel)
    if parallel:
        raise InputError(
            f"SAE hook {hook_name!r}, but attention and MLP of this model's blocks read the same residual stream",
            allowed=_ALLOWED.replace("blocks.L.hook_resid_mid, ", ""),
        )
    return HookPoint(block, n_blocks, inside=True)


def run_below(
    model: PreTrainedModel, hook: HookPoint, tokens: torch.Tensor, mask: torch.Tensor, *, gradient: bool = False
) -> HookState:
    """Run the model up to the injection point.

    Parameters
    ----------
    tokens, mask : (n_rows, length) int64
        Token ids and attention mask, padded on the right.
    gradient : bool
        Whether gradients flow back into the layers below the hook.

    Returns
    -------
    HookState
        Both tensors are (n_rows, length, d_in).
    """
    blocks = decoder_blocks(model)
    inputs: dict[str, nn.Module] = {}
    outputs: dict[str, nn.Module] = {}
    if hook.inside:
        inputs["input"], outputs["attention"] = blocks[hook.block], writer_of(model, hook.block, "attention")
    elif hook.n_below == hook.n_blocks:
        outputs["residual"] = blocks[-1]
    else:
        inputs["residual"] = blocks[hook.n_below]
    if hook.reads != "residual":
        outputs[hook.reads] = writer_of(model, hook.block, hook.reads)
    last = "attention" if hook.inside else "residual"
    with torch.set_grad_enabled(gradient), _record_until(last, inputs=inputs, outputs=outputs) as seen:
        decoder_of(model)(input_ids=tokens, attention_mask=mask, use_cache=False)
    # The block itself adds these two, and floating-point addition commutes: the sum is what its MLP reads.
    residual = seen["input"] + seen["attention"] if hook.inside else seen["residual"]
    return HookState(residual if hook.reads == "residual" else seen[hook.reads], residual)


def residual_stream(model: PreTrainedModel, hook: HookPoint, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the residual stream at the injection point, (n_rows, length, d_model), without gradient."""
    return run_below(model, hook, tokens, mask).residual


def hidden_above(model: PreTrainedModel, hook: HookPoint, residual: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Run the model from the injection point on.

    Parameters
    ----------
    residual : (n_rows, length, d_model)
        Residual stream at the injection point; gradients flow back to it.
    mask : (n_rows, length) int64
        Attention mask, padded on the right.

    Returns
    -------
    (n_rows, length, d_model)
        Last hidden state after the final normalization, equal to that of a full forward pass.
    """
    with _start_at(model, hook, residual):
        # The embeddings only carry the shape: the residual stream replaces them at the injection point.
        inputs = residual.detach()
        return decoder_of(model)(inputs_embeds=inputs, attention_mask=mask, use_cache=False).last_hidden_state


def unembed(model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
    """Return the logits (n, n_vocabulary) of last hidden states (n, d_model).

    Includes the final steps that configs declare: the scales of Granite and Cohere, the soft cap of Gemma. Loading a
    subject checks that there are no others (`isaerft.subjects.load.verify_hook`).
    """
    config = model.config.get_text_config()
    logits = model.get_output_embeddings()(hidden)
    divisor, factor = getattr(config, "logits_scaling", None), getattr(config, "logit_scale", None)
    logits = logits / divisor if divisor else logits
    logits = logits * factor if factor else logits
    cap = getattr(config, "final_logit_softcapping", None)
    return torch.tanh(logits / cap) * cap if cap else logits


def direct_path(model: PreTrainedModel, weights: torch.Tensor) -> torch.Tensor:
    """Return the direction of the residual stream that raises a weighted sum of logits by the direct path.

    Only the final normalization and the unembedding are read (the logit lens), no layer between. At a given size of the
    residual stream the normalization is linear: it multiplies each dimension by a gain, a LayerNorm after removing the
    mean over dimensions. Its size, and scales of the logits, would only change the direction's length. Biases and a
    soft cap of the logits are left out.

    Parameters
    ----------
    weights : (n_vocabulary,) float
        Weight of each token's logit.

    Returns
    -------
    (d_model,) float32
    """
    unembedding = model.get_output_embeddings().weight
    weighted = weights.to(unembedding.device).nonzero()[:, 0]
    read = weights.to(unembedding.device)[weighted] @ unembedding[weighted].to(weights.dtype)
    return _through_norm(model, read.float())


def token_directions(model: PreTrainedModel, tokens: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Return the directions of the residual stream that raise each token's logit above the mean by the direct path.

    See `direct_path`. The mean is over the logits of a text's tokens, so a constant in all unembeddings cancels, as it
    does in probabilities.

    Parameters
    ----------
    tokens : (n_tokens,) int64
        Token ids.
    counts : (n_vocabulary,) int64
        How often each token id occurs in the text.

    Returns
    -------
    (n_tokens, d_model) float32
    """
    unembedding = model.get_output_embeddings().weight
    occurring = counts.to(unembedding.device).nonzero()[:, 0]
    share = (counts / counts.sum()).to(unembedding.device, torch.float32)[occurring]
    mean = share @ unembedding[occurring].float()
    return _through_norm(model, unembedding[tokens.to(unembedding.device)].float() - mean)


def final_norm(model: PreTrainedModel) -> nn.Module:
    """Return the normalization between the last block and the unembedding."""
    for name in _FINAL_NORMS:
        norm = getattr(decoder_of(model), name, None)
        if isinstance(norm, nn.Module):
            return norm
    raise InputError(f"{type(model).__name__} has no final normalization", allowed=", ".join(_FINAL_NORMS))


def _through_norm(model: PreTrainedModel, read: torch.Tensor) -> torch.Tensor:
    """Return directions (..., d_model) behind the final normalization as directions of the residual stream."""
    gain, centers = _linear_part(final_norm(model), model.get_output_embeddings().weight.new_ones(read.shape[-1]))
    read = read * gain
    return read - read.mean(-1, keepdim=True) if centers else read


def _linear_part(norm: nn.Module, ones: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """Return a normalization's gain per dimension, (d_model,) float32, and whether it removes the mean over dimensions.

    Both are read off its output, since families differ in what their weights mean (Gemma's gain is 1 + weight). As
    many dimensions at +1 as at -1 have mean 0 and size 1, which leaves the gain; equal ones are nothing but a mean.
    """
    signs = ones.clone()
    signs[1::2] = -1

    def odd(pattern: torch.Tensor) -> torch.Tensor:
        large = _LARGE * pattern  # beside which the normalization's epsilon vanishes
        with torch.no_grad():
            return (norm(large).float() - norm(-large).float()) / 2

    gain = odd(signs) * signs.float()
    return gain, bool(odd(ones).norm() < gain.norm() / 2)


class _ReachedLast(Exception):
    """Raised inside the forward pass to leave it."""


@contextmanager
def _record_until(
    last: str, *, inputs: Mapping[str, nn.Module], outputs: Mapping[str, nn.Module]
) -> Iterator[dict[str, torch.Tensor]]:
    """Record the hidden states that enter `inputs` and leave `outputs`; stop the forward pass after `last`."""
    seen: dict[str, torch.Tensor] = {}

    def record(name: str, value: torch.Tensor) -> None:
        seen[name] = value
        if name == last:
            raise _ReachedLast

    def at_input(name: str) -> Callable[..., None]:
        return lambda _, args, kwargs: record(name, args[0] if args else kwargs["hidden_states"])

    def at_output(name: str) -> Callable[..., None]:
        return lambda _, args, output: record(name, output[0] if isinstance(output, tuple) else output)

    with ExitStack() as handles:
        for name, module in inputs.items():
            handles.callback(module.register_forward_pre_hook(at_input(name), with_kwargs=True).remove)
        for name, module in outputs.items():
            handles.callback(module.register_forward_hook(at_output(name)).remove)
        with suppress(_ReachedLast):
            yield seen


@contextmanager
def _start_at(model: PreTrainedModel, hook: HookPoint, residual: torch.Tensor) -> Iterator[None]:
    """Make the blocks below the injection point pass their input on, and the last of them return `residual`.

    If the injection point lies inside a block, that block reads `residual`, and its attention, which `residual` already
    contains, adds zeros.
    """
    blocks = decoder_blocks(model)
    below: dict[nn.Module, Callable[[torch.Tensor], torch.Tensor]] = {
        block: lambda hidden: hidden for block in blocks[: hook.n_below]
    }
    with ExitStack() as running:
        if below:
            below[blocks[hook.n_below - 1]] = lambda hidden: residual
            running.enter_context(_replace_forward(model, below, like=blocks[0]))
        else:
            running.enter_context(_replace_input(blocks[0], residual))
        if hook.inside:
            attention = attention_of(model, hook.block)
            running.enter_context(_replace_forward(model, {attention: torch.zeros_like}, like=attention))
        yield


@contextmanager
def _replace_input(module: nn.Module, hidden: torch.Tensor) -> Iterator[None]:
    """Make `module` read `hidden` instead of its own hidden states."""
    handle = module.register_forward_pre_hook(
        lambda _, args, kwargs: ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden}),
        with_kwargs=True,
    )
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _replace_forward(
    model: PreTrainedModel, modules: Mapping[nn.Module, Callable[[torch.Tensor], torch.Tensor]], like: nn.Module
) -> Iterator[None]:
    """Make each module return a function of its hidden states, packed as `like` packs its output."""
    n = _output_length(model, like)

    def replacement(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            output = function(args[0] if args else kwargs["hidden_states"])
            return (output, *[None] * (n - 1)) if n else output

        return forward

    with ExitStack() as undo:
        for module, function in modules.items():
            module.forward = replacement(function)
            undo.callback(delattr, module, "forward")
        yield


_OUTPUT_LENGTHS: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()


def _output_length(model: PreTrainedModel, module: nn.Module) -> int:
    """Run the model to find the length of the tuple that a module returns; 0 for a single tensor."""
    if module not in _OUTPUT_LENGTHS:
        outputs: list[object] = []
        handle = module.register_forward_hook(lambda _, args, output: outputs.append(output))
        try:
            with torch.no_grad():
                decoder_of(model)(input_ids=torch.zeros(1, 1, dtype=torch.int64, device=model.device), use_cache=False)
        finally:
            handle.remove()
        _OUTPUT_LENGTHS[module] = len(outputs[0]) if isinstance(outputs[0], tuple) else 0
    return _OUTPUT_LENGTHS[module]
