"""Adapters inside a model's own forward pass: what is done to the hidden states at one SAE's hook."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from isaerft.subjects.dictionary import CHUNK, Codes, Dictionary
from isaerft.subjects.hooks import HookPoint, decoder_blocks, writer_of


@dataclass(frozen=True)
class Pass:
    """What the adapters must know of a forward pass beside the hidden states.

    Attributes
    ----------
    is_bos : (n_rows, length) bool, or None
        Where a row begins with BOS; None where no row does, or the token ids are not known.
    inputs : dict
        What entered the blocks whose residual stream is needed between attention and MLP, (n_rows, length, d_in).
    """

    is_bos: torch.Tensor | None
    inputs: dict[Place, torch.Tensor] = field(default_factory=dict)


class Passes:
    """The forward pass that is running, or, while gradient checkpointing runs one again, the last one that trains."""

    def __init__(self) -> None:
        self._running: list[Pass] = []
        self._last_training = Pass(None)

    def follow(self, model: PreTrainedModel, bos: int | None) -> list[RemovableHandle]:
        """Note from now on when a forward pass of `model` begins and ends; at BOS no latent is active.

        Parameters
        ----------
        bos : int, optional
            Token with which a row may begin.
        """

        def begin(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            arguments = kwargs if not args else {"input_ids": args[0], **kwargs}
            one = Pass(begins_with_bos(arguments, bos))
            self._running.append(one)
            if torch.is_grad_enabled():
                self._last_training = one

        def end(*_: Any) -> None:
            self._running.pop()

        return [
            model.base_model.register_forward_pre_hook(begin, with_kwargs=True),
            model.base_model.register_forward_hook(end, always_call=True),
        ]

    @property
    def current(self) -> Pass:
        """The pass to which the hidden states at hand belong."""
        return self._running[-1] if self._running else self._last_training


class Place(nn.Module):
    """One SAE in a model, and the adapters on its latents by name.

    The SAE's own tensors are no parameters or buffers: they are not trained, saved or cast with the model. They follow
    the hidden states to their device.
    """

    def __init__(self, dictionary: Dictionary, site: HookPoint, passes: Passes) -> None:
        super().__init__()
        self.adapters = nn.ModuleDict()
        self.active: set[str] = set()
        self.site, self._dictionary, self._passes = site, dictionary, passes

    @property
    def dictionary(self) -> Dictionary:
        """The SAE."""
        return self._dictionary

    def hook(self, model: nn.Module) -> list[RemovableHandle]:
        """Put this place into the forward pass of `model`."""
        site, blocks = self.site, decoder_blocks(model)
        if site.reads != "residual":
            return [writer_of(model, site.block, site.reads).register_forward_hook(self._at_output)]
        if site.inside:
            writer = writer_of(model, site.block, "attention")
            noting = blocks[site.block].register_forward_pre_hook(self._note_input, with_kwargs=True)
            return [noting, writer.register_forward_hook(self._at_attention)]
        if site.n_below == site.n_blocks:
            return [blocks[-1].register_forward_hook(self._at_output)]
        return [blocks[site.n_below].register_forward_pre_hook(self._at_input, with_kwargs=True)]

    def forward(self, activation: torch.Tensor) -> torch.Tensor | None:
        """Return decode(f') - decode(f) of the hook's activation (n_rows, length, d_in), None where nothing acts.

        Adapters that are active together read the same f, and their changes add up.
        """
        adapters = [adapter for name, adapter in self.adapters.items() if name in self.active]
        if not adapters:
            return None
        if self._dictionary.W_dec.device != activation.device:
            self._dictionary = self._dictionary.to(activation.device)
        with torch.autocast(activation.device.type, enabled=False):
            codes = self._codes(activation)
            shifts = [adapter.shift(codes).residual(self._dictionary.W_dec) for adapter in adapters]
            return sum(shifts).view_as(activation).to(activation.dtype)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Place:
        """Follow the model to another device, but not into another number format: adapters stay in float32."""
        super()._apply(fn, recurse)
        return super()._apply(lambda tensor: tensor.float() if tensor.is_floating_point() else tensor, recurse)

    def _codes(self, hidden: torch.Tensor) -> Codes:
        """Return the codes of the activation's tokens; at BOS no latent is active, as in the cached path."""
        flat = hidden.reshape(-1, hidden.shape[-1])
        if hidden.requires_grad and torch.is_grad_enabled():
            # An adapter below trains too, and reaches the loss through these activations as well.
            codes = Codes.concatenate(Codes.from_dense(self._dictionary.encode_dense(x)) for x in flat.split(CHUNK))
        else:
            codes = self._dictionary.encode(flat)
        is_bos = self._passes.current.is_bos
        return codes if is_bos is None else codes.emptied(is_bos.to(hidden.device).flatten())

    def _at_input(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        shift = self(_hidden(args, kwargs))
        if shift is None:
            return None
        if args:
            return (args[0] + shift, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": kwargs["hidden_states"] + shift}

    def _at_output(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        shift = self(output[0] if isinstance(output, tuple) else output)
        return None if shift is None else _added(output, shift)

    def _note_input(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._passes.current.inputs[self] = _hidden(args, kwargs)

    def _at_attention(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        # The block adds these two; what is added to attention's output is added to their sum, which the MLP reads.
        attention = output[0] if isinstance(output, tuple) else output
        shift = self(self._passes.current.inputs[self] + attention)
        return None if shift is None else _added(output, shift)


def _hidden(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    return args[0] if args else kwargs["hidden_states"]


def _added(output: Any, shift: torch.Tensor) -> Any:
    return (output[0] + shift, *output[1:]) if isinstance(output, tuple) else output + shift


def begins_with_bos(arguments: dict[str, Any], bos: int | None) -> torch.Tensor | None:
    """Return where a row of a decoder's input begins with the token `bos`, (n_rows, length) bool, or None.

    Parameters
    ----------
    arguments : dict
        What a Hugging Face decoder was called with. A row's beginning is its first token that is not masked; one that
        is already in the key-value cache is not there again. `position_ids` begin anew with each text where several
        are packed into one row.
    """
    tokens = arguments.get("input_ids")
    if bos is None or tokens is None:
        return None
    is_bos = tokens == bos
    if not bool(is_bos.any()):
        return None
    positions, mask, past = (arguments.get(name) for name in ("position_ids", "attention_mask", "past_key_values"))
    if positions is not None and positions.dim() <= 2 and positions.shape[-1] == tokens.shape[-1]:
        first = positions.expand_as(tokens) == 0
    elif isinstance(mask, torch.Tensor) and mask.dim() == 2:
        first = (mask.cumsum(-1) == 1)[:, -tokens.shape[1] :]
    else:
        first = torch.zeros_like(is_bos)
        first[:, :1] = past is None or past.get_seq_length() == 0
    if isinstance(mask, torch.Tensor) and mask.dim() == 2:
        first = first & mask[:, -tokens.shape[1] :].bool()
    return is_bos & first
