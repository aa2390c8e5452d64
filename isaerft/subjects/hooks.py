"""Run a Hugging Face model below and above the hook of a dictionary, and the path from its hook to the logits.

Adding a vector to what a dictionary writes to equals adding it to the residual stream at the injection point, with one
exception: a normalization that lies between attention's projection and the residual stream (Gemma 2, Gemma 3, OLMo 2).
`reaching` says what arrives in either case, so adapters need not know the hook (`isaerft.subjects.points`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import PreTrainedModel

from isaerft.errors import InputError
from isaerft.subjects.blocks import (
    attention_of,
    decoder_blocks,
    decoder_of,
    has_known_parts,
    mlp_of,
    norm_before_mlp,
    norm_behind,
    projection_of,
    writer_of,
)
from isaerft.subjects.points import HookPoint

_FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm")
_LARGE = 128.0


@dataclass(frozen=True)
class HookState:
    """What a model's tokens look like at a hook.

    Attributes
    ----------
    activation : (..., d_in)
        The hook's activation, which the dictionary reads.
    residual : (..., d_model)
        The residual stream at the injection point; the same tensor where the dictionary reads the residual stream.
    """

    activation: torch.Tensor
    residual: torch.Tensor


@dataclass(frozen=True)
class BelowState(HookState):
    """The same of a model that was run to the injection point, with what the dictionary makes of it.

    Attributes
    ----------
    target : (..., d_out)
        What the dictionary reconstructs; the same tensor as the activation, except for a transcoder.
    written : (..., d_model)
        The output that the dictionary writes to.
    """

    target: torch.Tensor
    written: torch.Tensor


def run_below(
    model: PreTrainedModel, hook: HookPoint, tokens: torch.Tensor, mask: torch.Tensor, *, gradient: bool = False
) -> BelowState:
    """Run the model up to the injection point.

    Parameters
    ----------
    tokens, mask : (n_rows, length) int64
        Token ids and attention mask, padded on the right.
    gradient : bool
        Whether gradients flow back into the layers below the hook.

    Returns
    -------
    BelowState
        Each tensor is (n_rows, length, ...).
    """
    blocks = decoder_blocks(model)
    inputs: dict[str, nn.Module] = {}
    outputs: dict[str, nn.Module] = {}
    if hook.reads != "residual":
        # First, since the forward pass may end at the same module.
        outputs["written"] = written_by(model, hook)
    if hook.reads in _READ_AT_INPUT:
        inputs["read"] = read_by(model, hook)
    if hook.inside:
        inputs["input"], outputs["attention"] = blocks[hook.block], writer_of(model, hook.block, "attention")
    elif hook.n_below == hook.n_blocks:
        outputs["residual"] = blocks[-1]
    else:
        inputs["residual"] = blocks[hook.n_below]
    last, reading = "attention" if hook.inside else "residual", reading_of(model, hook)
    with torch.set_grad_enabled(gradient), _record_until(last, inputs=inputs, outputs=outputs) as seen:
        decoder_of(model)(input_ids=tokens, attention_mask=mask, use_cache=False)
    # The block itself adds these two, and floating-point addition commutes: the sum is what its MLP reads.
    residual = seen["input"] + seen["attention"] if hook.inside else seen["residual"]
    written = seen.get("written", residual)
    with torch.set_grad_enabled(gradient):
        activation = reading(seen["read"]) if hook.reads in _READ_AT_INPUT else written
    return BelowState(activation, residual, written if hook.is_transcoder else activation, written)


_READ_AT_INPUT = ("heads", "mlp_input", "normalized")


def read_by(model: PreTrainedModel, hook: HookPoint) -> nn.Module:
    """Return the module whose input a dictionary reads that does not read an output."""
    if hook.reads == "heads":
        return projection_of(model, hook.block)
    return mlp_of(model, hook.block) if hook.reads == "mlp_input" else norm_before_mlp(model, hook.block)


def written_by(model: PreTrainedModel, hook: HookPoint) -> nn.Module:
    """Return the module to whose output a dictionary writes that does not write to the residual stream itself."""
    if hook.reads == "heads":
        return projection_of(model, hook.block)
    return writer_of(model, hook.block, "attention" if hook.writes == "attention" else "mlp")


def reading_of(model: PreTrainedModel, hook: HookPoint) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what makes the activation (..., d_in) that a dictionary reads of the input of `read_by`."""
    if hook.reads == "normalized":
        norm = norm_before_mlp(model, hook.block)
        return lambda hidden: _normalized(norm, hidden)
    if hook.folds_value_biases:
        bias = value_bias(model, hook.block)
        return lambda heads: heads - bias.to(heads)
    return lambda hidden: hidden


def _normalized(norm: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """Return hidden states (..., d_model) normalized without the norm's gain and bias, in float32."""
    epsilon = next((getattr(norm, name) for name in ("eps", "variance_epsilon") if hasattr(norm, name)), 0.0)
    x = hidden.float()
    if isinstance(norm, nn.LayerNorm):
        x = x - x.mean(-1, keepdim=True)
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon)


def value_bias(model: PreTrainedModel, block: int) -> torch.Tensor:
    """Return what the value biases add to the heads of every token, (n_heads * d_head,); zeros without any.

    The weights of attention sum to 1, so this is what the heads hold where attention reads nothing but zeros.
    """
    attention, projection = attention_of(model, block), projection_of(model, block)
    tokens = torch.zeros(1, 1, dtype=torch.int64, device=model.device)
    width = model.config.get_text_config().hidden_size
    zeros = torch.zeros(1, 1, width, dtype=model.dtype, device=model.device)
    with (
        torch.no_grad(),
        _replace_input(attention, zeros),
        _record_until("heads", inputs={"heads": projection}, outputs={}) as seen,
    ):
        decoder_of(model)(input_ids=tokens, use_cache=False)
    return seen["heads"][0, 0]


def reaching(
    model: PreTrainedModel, hook: HookPoint, written: torch.Tensor | None, change: torch.Tensor
) -> torch.Tensor:
    """Return what arrives in the residual stream of a change of what a dictionary writes to.

    Parameters
    ----------
    written : (..., d_model) or None
        The output that it writes to; needed only where a normalization lies behind it.
    change : (..., d_model)
        Broadcast against `written`.

    Returns
    -------
    (..., d_model)
        The change itself, or how the output of the normalization changes; exactly 0 where the change is.
    """
    norm = norm_behind(model, hook.block) if hook.is_normed else None
    if norm is None or written is None:
        return change
    difference: torch.Tensor = norm(written + change.to(written.dtype)) - norm(written)
    return difference


def directions_written(model: PreTrainedModel, hook: HookPoint, rows: torch.Tensor) -> torch.Tensor:
    """Return decoder rows (n, d_model) as directions of the residual stream, up to each token's own scale."""
    norm = norm_behind(model, hook.block) if hook.is_normed else None
    return (
        rows
        if norm is None
        else rows * linear_part(norm, model.get_output_embeddings().weight.new_ones(rows.shape[-1]))[0]
    )


def residual_stream(model: PreTrainedModel, hook: HookPoint, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the residual stream at the injection point, (n_rows, length, d_model), without gradient."""
    return run_below(model, hook, tokens, mask).residual


def hidden_above(
    model: PreTrainedModel,
    hook: HookPoint,
    residual: torch.Tensor,
    mask: torch.Tensor,
    *,
    wanted: torch.Tensor | None = None,
) -> torch.Tensor:
    """Run the model from the injection point on.

    Parameters
    ----------
    residual : (n_rows, length, d_model)
        Residual stream at the injection point; gradients flow back to it.
    mask : (n_rows, length) int64
        Attention mask, padded on the right.
    wanted : (n_rows, length) bool, optional
        Tokens whose last hidden state will be read; those of others then mean nothing.

    Returns
    -------
    (n_rows, length, d_model)
        Last hidden state after the final normalization, equal to that of a full forward pass.
    """
    with _start_at(model, hook, residual), _mlps_where_needed(model, hook, mask, wanted):
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
    gain, centers = linear_part(final_norm(model), model.get_output_embeddings().weight.new_ones(read.shape[-1]))
    read = read * gain
    return read - read.mean(-1, keepdim=True) if centers else read


def linear_part(norm: nn.Module, ones: torch.Tensor) -> tuple[torch.Tensor, bool]:
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
def _mlps_where_needed(
    model: PreTrainedModel, hook: HookPoint, mask: torch.Tensor, wanted: torch.Tensor | None
) -> Iterator[None]:
    """Leave out padding in MLPs above the hook, and in the last one all tokens but those `wanted`.

    An MLP reads one token at a time, so nothing else changes. Not where a backward pass runs blocks again (gradient
    checkpointing), which would find the MLPs whole, nor on a GPU, whose steps wait for kernels and not for numbers.
    """
    blocks = decoder_blocks(model)
    with ExitStack() as undo:
        if wanted is not None and mask.device.type == "cpu" and has_known_parts(model):
            tokens, read = mask.bool().nonzero(as_tuple=True), wanted.nonzero(as_tuple=True)
            for number in range(hook.n_below, len(blocks)):
                mlp = mlp_of(model, number)
                if "forward" not in {**vars(blocks[number]), **vars(mlp)}:
                    mlp.forward = partial(_at, mlp.forward, read if number == len(blocks) - 1 else tokens)
                    undo.callback(delattr, mlp, "forward")
        yield


def _at(
    function: Callable[[torch.Tensor], torch.Tensor], places: tuple[torch.Tensor, ...], hidden: torch.Tensor
) -> torch.Tensor:
    """Return a function of `hidden` (n_rows, length, d) at some tokens, and zeros elsewhere."""
    found = function(hidden[places][None])[0]
    return found.new_zeros(*hidden.shape[:2], found.shape[-1]).index_put(places, found)


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
