"""What the parts of a transformer block are called in each family of Hugging Face models.

The residual stream between two blocks is found in any decoder-only model. What attention and MLP add to it lies inside
a block, and there the families differ: in names, in a normalisation between a part and the addition, and in whether
the MLP reads what attention wrote (sequential blocks) or both read the block's input (parallel blocks).

Running a part of a Hugging Face model: leaving its forward pass early, or letting modules give something else.

Where in a Hugging Face model an SAE sits, and running only one side of that place.

Two points matter. The SAE encodes its hook's activation. What an adapter writes is added to the residual stream at the
injection point, the first one at which all that reads the hook's activation still lies above:

==============  ===================================  =============================================================
hook            activation                           injection point
==============  ===================================  =============================================================
hook_resid_pre  the input of block L                 the same
hook_resid_mid  between attention and MLP            the same (sequential blocks)
hook_resid_post the output of block L                the same; `post` of block L is `pre` of block L + 1
hook_mlp_out    what the MLP adds                    the output of block L
hook_attn_out   what attention adds                  between attention and MLP; in parallel blocks the output of L
==============  ===================================  =============================================================

Adding a vector to the activation is adding it to the residual stream there, so adapters know nothing of the hook.
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


_N_OUTPUTS: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()


class _Reached(Exception):
    """Raised inside the forward pass to leave it."""


@contextmanager
def leaving(
    *, inputs: Mapping[str, nn.Module], outputs: Mapping[str, nn.Module], last: str
) -> Iterator[dict[str, torch.Tensor]]:
    """Note the hidden states that enter `inputs` and come out of `outputs`, and leave the forward pass with `last`."""
    seen: dict[str, torch.Tensor] = {}

    def note(name: str, value: torch.Tensor) -> None:
        seen[name] = value
        if name == last:
            raise _Reached

    def at_input(name: str) -> Callable[..., None]:
        return lambda _, args, kwargs: note(name, args[0] if args else kwargs["hidden_states"])

    def at_output(name: str) -> Callable[..., None]:
        return lambda _, args, output: note(name, output[0] if isinstance(output, tuple) else output)

    with ExitStack() as handles:
        for name, module in inputs.items():
            handles.callback(module.register_forward_pre_hook(at_input(name), with_kwargs=True).remove)
        for name, module in outputs.items():
            handles.callback(module.register_forward_hook(at_output(name)).remove)
        with suppress(_Reached):
            yield seen


@contextmanager
def entering(module: nn.Module, hidden: torch.Tensor) -> Iterator[None]:
    """Let `module` read `hidden` in place of the hidden states it is given."""
    handle = module.register_forward_pre_hook(
        lambda _, args, kwargs: ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden}),
        with_kwargs=True,
    )
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def giving(
    model: nn.Module, modules: Mapping[nn.Module, Callable[[torch.Tensor], torch.Tensor]], like: nn.Module
) -> Iterator[None]:
    """Let each module give what a function makes of the hidden states it reads, in the form that `like` returns."""
    n = _n_outputs(model, like)

    def forward(make: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Any]:
        def give(*args: Any, **kwargs: Any) -> Any:
            made = make(args[0] if args else kwargs["hidden_states"])
            return (made, *[None] * (n - 1)) if n else made

        return give

    with ExitStack() as undo:
        for module, make in modules.items():
            module.forward = forward(make)
            undo.callback(delattr, module, "forward")
        yield


def _n_outputs(model: nn.Module, module: nn.Module) -> int:
    """Tell, by running the model, how long the tuple is that a module returns; 0 for a tensor alone."""
    if module not in _N_OUTPUTS:
        outputs: list[Any] = []
        handle = module.register_forward_hook(lambda _, args, output: outputs.append(output))
        try:
            with torch.no_grad():
                decoder_of(model)(input_ids=torch.zeros(1, 1, dtype=torch.int64, device=model.device), use_cache=False)
        finally:
            handle.remove()
        _N_OUTPUTS[module] = len(outputs[0]) if isinstance(outputs[0], tuple) else 0
    return _N_OUTPUTS[module]


_HOOK = re.compile(r"blocks\.(\d+)\.hook_(resid_pre|resid_mid|resid_post|attn_out|mlp_out)")
_ALLOWED = ", ".join(f"blocks.L.hook_{at}" for at in ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"))


@dataclass(frozen=True)
class Site:
    """Where an SAE sits.

    Attributes
    ----------
    n_below, n_blocks : int
        Blocks wholly below the injection point, of how many in all.
    reads : str
        What the SAE encodes: the residual stream at the injection point, or what attention or MLP add to it.
    inside : bool
        Whether the injection point lies inside block `n_below`, between its attention and its MLP.
    """

    n_below: int
    n_blocks: int
    reads: Literal["residual", "attention", "mlp"] = "residual"
    inside: bool = False

    @property
    def block(self) -> int:
        """The block last run to reach the injection point, wholly or in part; -1 below the first."""
        return self.n_below if self.inside else self.n_below - 1


@dataclass(frozen=True)
class Below:
    """What the frozen part of the model hands to what lies above.

    Attributes
    ----------
    activation : (n_rows, length, d_in)
        At the SAE's hook: what it encodes.
    residual : (n_rows, length, d_in)
        The residual stream at the injection point; the same tensor where the SAE reads the residual stream.
    """

    activation: torch.Tensor
    residual: torch.Tensor


def find_site(model: nn.Module, hook_name: str) -> Site:
    """Return the place that `hook_name` names in `model`.

    Raises
    ------
    InputError
        Such a hook cannot be used, or the model does not have it.
    """
    match = _HOOK.fullmatch(hook_name)
    if match is None:
        heads = "hook_z" in hook_name
        raise InputError(
            f"SAE hook {shown(hook_name)}" + (" (attention heads, before they are added)" if heads else ""),
            allowed=_ALLOWED,
            remedy="choose an SAE on the residual stream, or on what attention or MLP add to it",
        )
    block, at = int(match[1]), match[2]
    n_blocks = len(decoder_blocks(model))
    if block >= n_blocks:
        raise InputError(
            f"SAE hook {hook_name!r}, but the model has {n_blocks} blocks", allowed=f"L from 0 to {n_blocks - 1}"
        )
    if at in ("resid_pre", "resid_post"):
        return Site(block + (at == "resid_post"), n_blocks)
    if at == "mlp_out":
        writer_of(model, block, "mlp")
        return Site(block + 1, n_blocks, "mlp")
    parallel = is_parallel(model)
    if at == "attn_out":
        return Site(block + parallel, n_blocks, "attention", inside=not parallel)
    if parallel:
        raise InputError(
            f"SAE hook {hook_name!r}, but attention and MLP of this model's blocks read the same residual stream",
            allowed=_ALLOWED.replace("blocks.L.hook_resid_mid, ", ""),
        )
    return Site(block, n_blocks, inside=True)


def run_below(
    model: nn.Module, site: Site, tokens: torch.Tensor, mask: torch.Tensor, *, gradient: bool = False
) -> Below:
    """Run what lies below the injection point.

    Parameters
    ----------
    tokens, mask : (n_rows, length) int64
        Token ids and attention mask, padded on the right.
    gradient : bool
        Whether gradients flow back into what lies below.
    """
    blocks, inputs, outputs = decoder_blocks(model), {}, {}
    if site.inside:
        inputs["input"], outputs["attention"] = blocks[site.block], writer_of(model, site.block, "attention")
    elif site.n_below == site.n_blocks:
        outputs["residual"] = blocks[-1]
    else:
        inputs["residual"] = blocks[site.n_below]
    if site.reads != "residual":
        outputs[site.reads] = writer_of(model, site.block, site.reads)
    last = "attention" if site.inside else "residual"
    with torch.set_grad_enabled(gradient), leaving(inputs=inputs, outputs=outputs, last=last) as seen:
        decoder_of(model)(input_ids=tokens, attention_mask=mask, use_cache=False)
    # The block itself adds these two, and floating-point addition commutes: the sum is what its MLP reads.
    residual = seen["input"] + seen["attention"] if site.inside else seen["residual"]
    return Below(residual if site.reads == "residual" else seen[site.reads], residual)


def residual_stream(model: nn.Module, site: Site, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the residual stream at the injection point alone, (n_rows, length, d_model), without gradient."""
    return run_below(model, site, tokens, mask).residual


def hidden_above(model: nn.Module, site: Site, residual: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Run only what lies above the injection point, on a given residual stream.

    Parameters
    ----------
    residual : (n_rows, length, d_model)
        Residual stream at the injection point; gradients flow back to it.
    mask : (n_rows, length) int64
        Attention mask, padded on the right.

    Returns
    -------
    (n_rows, length, d_model)
        Last hidden state after the final normalisation, equal to that of a full forward pass.
    """
    with _starting_at(model, site, residual):
        # The embeddings given here only carry the shape: the residual stream replaces them at the site.
        inputs = residual.detach()
        return decoder_of(model)(inputs_embeds=inputs, attention_mask=mask, use_cache=False).last_hidden_state


def unembed(model: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """Turn (n, d_model) hidden states into (n, n_vocabulary) logits.

    With the final steps that a config declares: Granite's and Cohere's scales, Gemma's soft cap. Whether these are all
    is checked when a subject is loaded (`isaerft.subjects.load`).
    """
    config = model.config.get_text_config()
    logits = model.get_output_embeddings()(hidden)
    divisor, factor = getattr(config, "logits_scaling", None), getattr(config, "logit_scale", None)
    logits = logits / divisor if divisor else logits
    logits = logits * factor if factor else logits
    cap = getattr(config, "final_logit_softcapping", None)
    return torch.tanh(logits / cap) * cap if cap else logits


@contextmanager
def _starting_at(model: nn.Module, site: Site, residual: torch.Tensor) -> Iterator[None]:
    """Make the blocks below the injection point pass their input on, and the last of them hand out `residual`.

    For a site inside a block, that block reads `residual` and its attention, already in it, adds zeros.
    """
    blocks = decoder_blocks(model)
    below: dict[nn.Module, Callable[[torch.Tensor], torch.Tensor]] = {
        block: lambda hidden: hidden for block in blocks[: site.n_below]
    }
    with ExitStack() as running:
        if below:
            below[blocks[site.n_below - 1]] = lambda hidden: residual
            running.enter_context(giving(model, below, like=blocks[0]))
        else:
            running.enter_context(entering(blocks[0], residual))
        if site.inside:
            attention = attention_of(model, site.block)
            running.enter_context(giving(model, {attention: torch.zeros_like}, like=attention))
        yield
