"""Where in a Hugging Face model an SAE sits, and running only one side of that place.

The hook of an SAE is a point in the residual stream between two transformer blocks: ``blocks.L.hook_resid_post`` is the
output of block L, ``blocks.L.hook_resid_pre`` its input, so `pre` of block L is `post` of block L - 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from isaerft.errors import InputError

_HOOK = re.compile(r"blocks\.(\d+)\.hook_resid_(pre|post)")
_BLOCK_RETURNS_TUPLE: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
_ALLOWED = "blocks.L.hook_resid_pre, blocks.L.hook_resid_post"


@dataclass(frozen=True)
class Site:
    """A point in the residual stream: the number of blocks below it, of `n_blocks` in all."""

    n_below: int
    n_blocks: int


def find_site(model: nn.Module, hook_name: str) -> Site:
    """Return the place that `hook_name` names in `model`; an unknown hook or a block that is not there is refused."""
    match = _HOOK.fullmatch(hook_name)
    if match is None:
        raise InputError(f"SAE hook {hook_name!r}", allowed=_ALLOWED, remedy="choose a residual-stream SAE")
    n_blocks = len(decoder_blocks(model))
    n_below = int(match[1]) + (match[2] == "post")
    if int(match[1]) >= n_blocks:
        raise InputError(
            f"SAE hook {hook_name!r}, but the model has {n_blocks} blocks", allowed=f"L from 0 to {n_blocks - 1}"
        )
    return Site(n_below, n_blocks)


def decoder_blocks(model: nn.Module) -> nn.ModuleList:
    """Return the list of transformer blocks of a decoder-only Hugging Face model."""
    n_blocks = model.config.get_text_config().num_hidden_layers
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == n_blocks:
            return module
    raise InputError(
        f"{type(model).__name__} has no list of {n_blocks} blocks", allowed="decoder-only Hugging Face models"
    )


def residual_stream(model: nn.Module, site: Site, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Run the blocks below `site`.

    Parameters
    ----------
    tokens, mask : (n_rows, length) int64
        Token ids and attention mask, padded on the right.

    Returns
    -------
    (n_rows, length, d_model)
        The residual stream at the site, without gradient.
    """
    caught: list[torch.Tensor] = []
    with torch.no_grad(), _stopping_at(model, site, caught), suppress(_Caught):
        model.base_model(input_ids=tokens, attention_mask=mask, use_cache=False)
    return caught[0]


def hidden_above(model: nn.Module, site: Site, residual: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Run only the blocks above `site` on a given residual stream.

    Parameters
    ----------
    residual : (n_rows, length, d_model)
        Residual stream at the site; gradients flow back to it.
    mask : (n_rows, length) int64
        Attention mask, padded on the right.

    Returns
    -------
    (n_rows, length, d_model)
        Last hidden state after the final normalisation, equal to that of a full forward pass.
    """
    with _starting_at(model, site, residual):
        # The embeddings given here only carry the shape: the residual stream replaces them at the site.
        return model.base_model(inputs_embeds=residual.detach(), attention_mask=mask, use_cache=False).last_hidden_state


def unembed(model: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """Turn (n, d_model) hidden states into (n, n_vocabulary) logits, with Gemma's soft cap where the model has one."""
    logits = model.get_output_embeddings()(hidden)
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return torch.tanh(logits / cap) * cap if cap else logits


class _Caught(Exception):
    """Raised inside the forward pass to leave it once the residual stream is known."""


@contextmanager
def _stopping_at(model: nn.Module, site: Site, caught: list[torch.Tensor]) -> Iterator[None]:
    blocks = decoder_blocks(model)

    def stop(residual: torch.Tensor) -> None:
        caught.append(residual)
        raise _Caught

    if site.n_below < site.n_blocks:
        handle = blocks[site.n_below].register_forward_pre_hook(
            lambda _, args, kwargs: stop(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
        )
    else:
        handle = blocks[-1].register_forward_hook(lambda _, args, output: stop(_first(output)))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _starting_at(model: nn.Module, site: Site, residual: torch.Tensor) -> Iterator[None]:
    """Make the blocks below the site pass their input on, and the last of them hand out `residual`."""
    blocks = decoder_blocks(model)
    below = list(blocks[: site.n_below])
    tuples = _returns_tuple(model)

    def passing(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return (hidden_states,) if tuples else hidden_states

    def injecting(*args: Any, **kwargs: Any) -> Any:
        return (residual,) if tuples else residual

    handle = None
    if below:
        for block in below[:-1]:
            block.forward = passing
        below[-1].forward = injecting
    else:
        handle = blocks[0].register_forward_pre_hook(
            lambda _, args, kwargs: (
                ((residual, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": residual})
            ),
            with_kwargs=True,
        )
    try:
        yield
    finally:
        for block in below:
            del block.forward
        if handle is not None:
            handle.remove()


def _returns_tuple(model: nn.Module) -> bool:
    """Tell, by running the model, whether its blocks return a tuple or (newer code) the hidden states alone."""
    if model not in _BLOCK_RETURNS_TUPLE:
        outputs: list[Any] = []
        handle = decoder_blocks(model)[0].register_forward_hook(lambda _, args, output: outputs.append(output))
        try:
            with torch.no_grad():
                model.base_model(input_ids=torch.zeros(1, 1, dtype=torch.int64, device=model.device), use_cache=False)
        finally:
            handle.remove()
        _BLOCK_RETURNS_TUPLE[model] = isinstance(outputs[0], tuple)
    return _BLOCK_RETURNS_TUPLE[model]


def _first(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output
