"""How the frozen part above the hook runs while an adapter is trained: number format and stored activations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from isaerft import config
from isaerft.subjects.cache import Batch
from isaerft.subjects.load import LoadedSubject
from isaerft.subjects.site import decoder_blocks
from isaerft.training.objective import Adapt


@contextmanager
def frozen_part(subject: LoadedSubject, adapt: Adapt, options: config.Adapter) -> Iterator[Adapt]:
    """Run the model as `options` say, and give an `adapt` that itself keeps full precision."""
    model = subject.model
    with ExitStack() as stack:
        if options.precision == "float32":
            stack.enter_context(_float32(model))
        if options.precision == "bfloat16":
            stack.enter_context(torch.autocast(model.device.type, torch.bfloat16))
        if options.gradient_checkpointing:
            stack.enter_context(_checkpointed(decoder_blocks(model)[subject.site.n_below :]))

        def full_precision(batch: Batch) -> torch.Tensor:
            if options.precision == "float32":
                batch = replace(batch, residual=batch.residual.float())
            with torch.autocast(model.device.type, enabled=False):
                return adapt(batch)

        yield full_precision


@contextmanager
def _float32(model: nn.Module) -> Iterator[None]:
    """Widen the model for a while; a narrower format is restored exactly."""
    dtype = model.dtype
    model.float()
    try:
        yield
    finally:
        model.to(dtype)


@contextmanager
def _checkpointed(blocks: nn.ModuleList) -> Iterator[None]:
    """Keep only the blocks' inputs for the backward pass, which runs each block again (Chen et al. 2016).

    Transformers' own switch does nothing in evaluation mode, and in training mode dropout would set in.
    """
    # A forward that somebody put on the block itself must come back; that of its class comes back by itself.
    own = [vars(block).get("forward") for block in blocks]
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    try:
        yield
    finally:
        for block, forward in zip(blocks, own, strict=True):
            del block.forward
            if forward is not None:
                block.forward = forward
