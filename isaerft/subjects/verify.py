"""Does running the part above a hook give what the whole model gives? Asked once of every model that is loaded.

Nothing here knows a family of models: a final scale that `unembed` does not know, or a block that does not add what its
parts give, shows as different logits.
"""

from __future__ import annotations

import torch
from torch import nn

from isaerft.errors import InputError
from isaerft.subjects.blocks import writer_of
from isaerft.subjects.site import Site, hidden_above, run_below, unembed

N_TOKENS = 8
FIRST_TOKEN = 5


def verify_site(model: nn.Module, site: Site) -> None:
    """Compare logits from below and above `site` with the model's own, on a few tokens.

    Where the SAE reads what attention or MLP add, also with that output doubled: the same must come of adding it to
    the residual stream at the injection point.

    Raises
    ------
    InputError
        They differ by more than the number format explains, or are not finite.
    """
    vocabulary = model.config.get_text_config().vocab_size
    tokens = (torch.arange(N_TOKENS, device=model.device)[None] + FIRST_TOKEN) % vocabulary
    mask = torch.ones_like(tokens)
    below = run_below(model, site, tokens, mask)
    given = _whole(model, tokens, mask)
    name = f"{type(model).__name__} in {str(given.dtype).removeprefix('torch.')}"
    if not given.isfinite().all():
        raise InputError(f"{name} gives logits that are not finite", remedy="set dtype: bfloat16 or float32")
    _compare(
        given,
        _logits(model, site, below.residual, mask),
        f"{name}: what lies above the hook does not give the model's own logits",
        "it changes logits after the unembedding, or its blocks read more than the residual stream",
    )
    if site.reads == "residual":
        return
    handle = writer_of(model, site.block, site.reads).register_forward_hook(_doubled)
    try:
        given = _whole(model, tokens, mask)
    finally:
        handle.remove()
    _compare(
        given,
        _logits(model, site, below.residual + below.activation, mask),
        f"{name}: what its {site.reads} gives is not what its blocks add to the residual stream",
        "choose an SAE on the residual stream between blocks",
    )


def _whole(model: nn.Module, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=tokens, attention_mask=mask, use_cache=False).logits


def _logits(model: nn.Module, site: Site, residual: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return unembed(model, hidden_above(model, site, residual, mask))


def _doubled(module: nn.Module, args: object, output: torch.Tensor | tuple) -> torch.Tensor | tuple:
    return (2 * output[0], *output[1:]) if isinstance(output, tuple) else 2 * output


def _compare(given: torch.Tensor, found: torch.Tensor, what: str, remedy: str) -> None:
    difference = float((given - found).abs().max())
    allowed = torch.finfo(given.dtype).eps ** 0.5 * float(given.abs().max())
    if not difference <= allowed:
        raise InputError(f"{what} (they differ by {difference:.3g})", allowed=f"{allowed:.3g}", remedy=remedy)
