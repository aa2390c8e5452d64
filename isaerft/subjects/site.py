"""Where in a Hugging Face model an SAE sits, and running only one side of that place.

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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from isaerft.errors import InputError, shown
from isaerft.subjects.blocks import attention_of, decoder_blocks, decoder_of, is_parallel, writer_of
from isaerft.subjects.running import entering, giving, leaving

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
    is checked when a subject is loaded (`isaerft.subjects.verify`).
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
