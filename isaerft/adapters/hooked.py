"""Adapters inside a model's own forward pass: a hook at an SAE that changes the hidden states."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from isaerft.subjects.blocks import decoder_blocks, writer_of
from isaerft.subjects.codes import Codes
from isaerft.subjects.dictionary import CHUNK, Dictionary
from isaerft.subjects.hooks import read_by, reading_of, written_by
from isaerft.subjects.points import HookPoint


@dataclass(frozen=True)
class ForwardPass:
    """What adapters need to know about a forward pass in addition to the hidden states.

    Attributes
    ----------
    is_bos : (n_rows, length) bool, or None
        Where a row begins with BOS; None if no row does or the token ids are unknown.
    n_past : int
        Tokens of each row, padding included, that are in the key-value cache already.
    inputs : dict
        Inputs (n_rows, length, d_model) of the blocks and MLPs that a hook reads before it writes.
    """

    is_bos: torch.Tensor | None
    n_past: int = 0
    inputs: dict[AdapterHook, torch.Tensor] = field(default_factory=dict)


class PassTracker:
    """Knows the forward pass that is running; while gradient checkpointing reruns one, the last that took gradients."""

    def __init__(self) -> None:
        self._running: list[ForwardPass] = []
        self._last_training = ForwardPass(None)

    def track(self, model: PreTrainedModel, bos: int | None) -> list[RemovableHandle]:
        """Track the forward passes of `model` from now on.

        Parameters
        ----------
        bos : int, optional
            Token with which a row may begin; no latent is active there.
        """

        def begin(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            arguments = kwargs if not args else {"input_ids": args[0], **kwargs}
            past = arguments.get("past_key_values")
            one = ForwardPass(begins_with_bos(arguments, bos), 0 if past is None else int(past.get_seq_length()))
            self._running.append(one)
            if torch.is_grad_enabled():
                self._last_training = one

        def end(*_: object) -> None:
            self._running.pop()

        return [
            model.base_model.register_forward_pre_hook(begin, with_kwargs=True),
            model.base_model.register_forward_hook(end, always_call=True),
        ]

    @property
    def current(self) -> ForwardPass:
        """The pass that the current hidden states belong to."""
        return self._running[-1] if self._running else self._last_training


class AdapterHook(nn.Module):
    """One SAE's hook in a model, with the adapters on its latents by name.

    The SAE's own tensors are neither parameters nor buffers, so they are not trained, saved or cast with the model.
    They follow the hidden states to their device.

    Parameters
    ----------
    tracker : PassTracker
        Tracks the forward passes of the model that the hook is registered in.
    """

    def __init__(self, dictionary: Dictionary, hook: HookPoint, tracker: PassTracker) -> None:
        super().__init__()
        self.adapters = nn.ModuleDict()
        self.active: set[str] = set()
        self.hook, self._dictionary, self._tracker = hook, dictionary, tracker

    @property
    def dictionary(self) -> Dictionary:
        """The SAE."""
        return self._dictionary

    def register(self, model: PreTrainedModel) -> list[RemovableHandle]:
        """Register the hook in the forward pass of `model`."""
        hook, blocks = self.hook, decoder_blocks(model)
        self._reading = reading_of(model, hook)
        if hook.is_transcoder:
            kept = read_by(model, hook).register_forward_pre_hook(self._keep_input, with_kwargs=True)
            return [kept, written_by(model, hook).register_forward_hook(self._at_mlp)]
        if hook.reads == "heads":
            return [read_by(model, hook).register_forward_hook(self._at_projection)]
        if hook.reads != "residual":
            return [written_by(model, hook).register_forward_hook(self._at_output)]
        if hook.inside:
            writer = writer_of(model, hook.block, "attention")
            kept = blocks[hook.block].register_forward_pre_hook(self._keep_input, with_kwargs=True)
            return [kept, writer.register_forward_hook(self._at_attention)]
        if hook.n_below == hook.n_blocks:
            return [blocks[-1].register_forward_hook(self._at_output)]
        return [blocks[hook.n_below].register_forward_pre_hook(self._at_input, with_kwargs=True)]

    @contextmanager
    def registered(self, model: PreTrainedModel, bos: int | None) -> Iterator[None]:
        """Register the hook, and track the model's forward passes, inside the block."""
        handles = [*self._tracker.track(model, bos), *self.register(model)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def forward(self, activation: torch.Tensor) -> torch.Tensor | None:
        """Return decode(f') - decode(f) where the dictionary writes, (n_rows, length, d_model).

        Active adapters read the same f, and their changes add up; None if none is active.

        Parameters
        ----------
        activation : (n_rows, length, d_in)
            Activation at the hook.
        """
        adapters: list[Any] = [adapter for name, adapter in self.adapters.items() if name in self.active]
        if not adapters:
            return None
        if self._dictionary.W_dec.device != activation.device:
            self._dictionary = self._dictionary.to(activation.device)
        with torch.autocast(activation.device.type, enabled=False):
            codes = self._codes(activation)
            shifts = [adapter.shift(codes).residual(self._dictionary.decoder) for adapter in adapters]
            total: torch.Tensor = sum(shifts)
            return total.view(*activation.shape[:-1], -1)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        """Follow the model to another device but not to another dtype: adapters stay in float32."""
        super()._apply(fn, recurse)
        return super()._apply(lambda tensor: tensor.float() if tensor.is_floating_point() else tensor, recurse)

    def _codes(self, hidden: torch.Tensor) -> Codes:
        """Return the codes of the activation's tokens; at BOS no latent is active, as in the cached path."""
        flat = hidden.reshape(-1, hidden.shape[-1])
        if hidden.requires_grad and torch.is_grad_enabled():
            # An adapter below trains too, and these activations carry its gradient.
            codes = Codes.concatenate(Codes.from_dense(self._dictionary.encode_dense(x)) for x in flat.split(CHUNK))
        else:
            codes = self._dictionary.encode(flat)
        is_bos = self._tracker.current.is_bos
        return codes if is_bos is None else codes.emptied(is_bos.to(hidden.device).flatten())

    def _at_input(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hidden = _hidden(args, kwargs)
        shift = self(hidden)
        if shift is None:
            return None
        changed = hidden + shift.to(hidden.dtype)
        return ((changed, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": changed})

    def _at_output(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        shift = self(output[0] if isinstance(output, tuple) else output)
        return None if shift is None else _added(output, shift)

    def _at_projection(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        shift = self(self._reading(args[0]))
        return None if shift is None else _added(output, shift)

    def _at_mlp(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        shift = self(self._reading(self._tracker.current.inputs[self]))
        return None if shift is None else _added(output, shift)

    def _keep_input(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._tracker.current.inputs[self] = _hidden(args, kwargs)

    def _at_attention(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        # The MLP reads the sum of input and attention, so adding to attention's output adds to what it reads.
        attention = output[0] if isinstance(output, tuple) else output
        shift = self(self._tracker.current.inputs[self] + attention)
        return None if shift is None else _added(output, shift)


def _hidden(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    hidden: torch.Tensor = args[0] if args else kwargs["hidden_states"]
    return hidden


def _added(output: Any, shift: torch.Tensor) -> Any:
    if isinstance(output, tuple):
        return output[0] + shift.to(output[0].dtype), *output[1:]
    return output + shift.to(output.dtype)


def begins_with_bos(arguments: dict[str, Any], bos: int | None) -> torch.Tensor | None:
    """Return where rows of a decoder's input begin with the token `bos`, (n_rows, length) bool; None if none does.

    Parameters
    ----------
    arguments : dict
        What a Hugging Face decoder was called with. A row begins at its first unmasked token, unless that is already
        in the key-value cache. Where several texts are packed into one row, `position_ids` restart with each.
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
    result: torch.Tensor = is_bos & first
    return result
