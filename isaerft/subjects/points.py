"""Where dictionaries (SAEs and transcoders) read and write: hooks by their TransformerLens names.

Three points matter. A dictionary *reads* an activation at its hook: the residual stream, what attention or the MLP adds
to it, the heads of attention, or what the MLP reads. It *writes* to the output of a part of the block. The *injection
point* is where adapters act: the point of the residual stream which that output has reached and nothing has read yet.

=================  ===============================  ================  ================================================
hook               reads                            writes to         injection point
=================  ===============================  ================  ================================================
hook_resid_pre     the input of block L             the same          the same
hook_resid_mid     between attention and MLP        the same          the same (sequential blocks only)
hook_resid_post    the output of block L            the same          the same; `post` of L is `pre` of L + 1
hook_mlp_out       the output of the MLP            the same          the output of block L
hook_attn_out      the output of attention          the same          between attention and MLP; in parallel blocks the
                                                                      output of L
attn.hook_z        the heads, side by side          the output        as hook_attn_out
                                                    projection
mlp.hook_in,       what the MLP reads, or that      the output of     the output of block L
ln2.hook_...       before the norm's gain           the MLP
=================  ===============================  ================  ================================================

The residual stream between blocks is found in any decoder-only model. Hooks inside a block need the names of the
block's parts, which differ between families (`isaerft.subjects.blocks`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedModel

from isaerft.errors import InputError, shown
from isaerft.subjects.blocks import decoder_blocks, is_parallel, norm_before_mlp, norm_behind, writer_of

_HOOK = re.compile(
    r"blocks\.(\d+)\.(?:hook_(resid_pre|resid_mid|resid_post|attn_out|mlp_out)|attn\.hook_(z)"
    r"|mlp\.(hook_in)|ln2\.(hook_normalized))"
)
# Modules of Hugging Face models by which some SAEs name the block whose output they read.
_MODULE = re.compile(r"(?:\w+\.)*(?:layers|h|blocks)\.(\d+)")
_AT = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out", "attn.hook_z")
_ALLOWED = ", ".join(f"blocks.L.{at}" for at in _AT)
_TRANSCODERS = "transcoders from blocks.L.mlp.hook_in or blocks.L.ln2.hook_normalized to blocks.L.hook_mlp_out"


@dataclass(frozen=True)
class HookPoint:
    """The hook of a dictionary and its injection point.

    Attributes
    ----------
    n_below : int
        Number of blocks that lie wholly below the injection point.
    n_blocks : int
        Number of blocks of the model.
    reads : {"residual", "attention", "mlp", "heads", "mlp_input", "normalized"}
        What the dictionary reads: the residual stream at the injection point, the output of attention or of the MLP,
        the heads of attention, what the MLP reads, or that before the gain of the normalization.
    inside : bool
        Whether the injection point lies inside block `n_below`, between its attention and its MLP.
    is_normed : bool
        Whether a normalization lies between what the dictionary writes to and the residual stream.
    folds_value_biases : bool
        Whether the heads are read without the value biases (see `find_hook`).
    """

    n_below: int
    n_blocks: int
    reads: Literal["residual", "attention", "mlp", "heads", "mlp_input", "normalized"] = "residual"
    inside: bool = False
    is_normed: bool = False
    folds_value_biases: bool = False

    @property
    def block(self) -> int:
        """Last block that runs, wholly or in part, to reach the injection point; -1 below the first block."""
        return self.n_below if self.inside else self.n_below - 1

    @property
    def writes(self) -> Literal["residual", "attention", "mlp"]:
        """What the dictionary writes to: the residual stream itself, or what attention or the MLP adds to it."""
        if self.reads in ("residual", "attention", "mlp"):
            return self.reads
        return "attention" if self.reads == "heads" else "mlp"

    @property
    def is_transcoder(self) -> bool:
        """Whether the dictionary reconstructs something else than it reads."""
        return self.reads in ("mlp_input", "normalized")


def find_hook(
    model: PreTrainedModel, hook_name: str, hook_name_out: str = "", *, fold_value_biases: bool = False
) -> HookPoint:
    """Return the hook point of `model` with the TransformerLens name `hook_name`.

    Parameters
    ----------
    hook_name_out : str
        Where a transcoder writes, by the same names; empty for an SAE.
    fold_value_biases : bool
        Read the heads (attn.hook_z) without the value biases, as in a model that TransformerLens has processed.

    Raises
    ------
    InputError
        The hook is not supported, or the model does not have it.
    """
    match = _HOOK.fullmatch(hook_name)
    if match is None:
        raise _unsupported(hook_name)
    block, at = int(match[1]), match[match.lastindex or 2]
    n_blocks = len(decoder_blocks(model))
    if block >= n_blocks:
        raise InputError(
            f"SAE hook {hook_name!r}, but the model has {n_blocks} blocks", allowed=f"L from 0 to {n_blocks - 1}"
        )
    if fold_value_biases and at != "z":
        raise InputError(f"fold_value_biases at {hook_name!r}, which has none", allowed="SAEs at blocks.L.attn.hook_z")
    is_transcoder = at in ("hook_in", "hook_normalized")
    if is_transcoder or hook_name_out not in ("", hook_name):
        _check_transcoder(hook_name, hook_name_out, block, is_transcoder)
    if at in ("resid_pre", "resid_post"):
        return HookPoint(block + (at == "resid_post"), n_blocks)
    if is_transcoder:
        writer_of(model, block, "mlp")
        if at == "hook_in":
            return HookPoint(block + 1, n_blocks, "mlp_input")
        norm_before_mlp(model, block)
        return HookPoint(block + 1, n_blocks, "normalized")
    if at == "mlp_out":
        writer_of(model, block, "mlp")
        return HookPoint(block + 1, n_blocks, "mlp")
    parallel = is_parallel(model)
    if at == "attn_out":
        return HookPoint(block + parallel, n_blocks, "attention", inside=not parallel)
    if at == "z":
        return HookPoint(
            block + parallel,
            n_blocks,
            "heads",
            inside=not parallel,
            is_normed=norm_behind(model, block) is not None,
            folds_value_biases=fold_value_biases,
        )
    if parallel:
        raise InputError(
            f"SAE hook {hook_name!r}, but attention and MLP of this model's blocks read the same residual stream",
            allowed=_ALLOWED.replace("blocks.L.hook_resid_mid, ", ""),
        )
    return HookPoint(block, n_blocks, inside=True)


def _unsupported(hook_name: str) -> InputError:
    """Return the error for a hook that has another name than those of `_HOOK`."""
    problem, ambiguous = f"unsupported SAE hook {shown(hook_name)}", re.fullmatch(r"(blocks\.\d+)\..*mlp_in", hook_name)
    if ambiguous:
        return InputError(
            f"{problem}: the residual stream in TransformerLens, what the MLP reads in other code",
            allowed=_TRANSCODERS,
            remedy=f"for the latter set hook_name: {ambiguous[1]}.mlp.hook_in",
        )
    module = _MODULE.fullmatch(hook_name)
    return InputError(
        problem,
        allowed=f"{_ALLOWED}; {_TRANSCODERS}",
        remedy="choose an SAE on the residual stream, or on attention or an MLP; if this is one, say where: "
        f"hook_name: blocks.{module[1] if module else 'L'}.hook_resid_post",
    )


def _check_transcoder(hook_name: str, hook_name_out: str, block: int, is_transcoder: bool) -> None:
    """Refuse a dictionary that does not read what an MLP reads and write what that MLP writes."""
    if is_transcoder and hook_name_out == f"blocks.{block}.hook_mlp_out":
        return
    if hook_name_out in ("", hook_name):
        raise InputError(
            f"an SAE at {hook_name!r}: what it writes reaches the residual stream through the MLP alone",
            allowed=f"{_ALLOWED}; {_TRANSCODERS}",
        )
    out = _HOOK.fullmatch(hook_name_out)
    crosses = out is not None and int(out[1]) != block
    raise InputError(
        f"a transcoder from {shown(hook_name)} to {shown(hook_name_out)}"
        + ", another block: a latent's effect would have to be added in several places" * crosses,
        allowed=_TRANSCODERS,
    )
