"""The linear maps inside a trained adapter: what they read, what they write, and how to put others in their place.

A map is given as factors, `read` (n_in, r) and `write` (r, n_out), by which an input x (n_in,) adds x @ read @ write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from isaerft.adapters.base import LatentAdapter, adapted
from isaerft.adapters.maps import LowRank, Mlp
from isaerft.adapters.model import ModelAdapter, Residual
from isaerft.adapters.saved import is_model_adapter, load_adapter, load_model_adapter
from isaerft.adapters.weights import Lora
from isaerft.subjects.blocks import decoder_blocks
from isaerft.subjects.cache import Batch, CachedRows, bos_mask, completion_losses
from isaerft.subjects.device import in_float64
from isaerft.subjects.hooks import linear_part
from isaerft.subjects.load import LoadedSubject

LATENTS, RESIDUAL, INSIDE = "latents", "residual", "inside"
PEFT_NAME = "default"


@dataclass(frozen=True)
class Way:
    """Where one side of a map lies, and the way between there and the residual stream.

    Attributes
    ----------
    space : str
        `latents`, `residual` (the residual stream, through a normalization or not) or `inside` (a block's own units).
    gain : (d_model,) or None
        Factor of each dimension in the normalization on the way.
    centers : bool
        Whether the normalization removes the mean over dimensions.
    """

    space: str
    gain: torch.Tensor | None = None
    centers: bool = False

    def in_residual(self, directions: torch.Tensor) -> torch.Tensor:
        """Return directions (n, d_model) on this side as directions of the residual stream, up to a token's scale."""
        directions = directions if self.gain is None else directions * self.gain.to(directions)
        return directions - directions.mean(-1, keepdim=True) if self.centers else directions


@dataclass(frozen=True)
class MapPart:
    """One linear map of an adapter.

    Attributes
    ----------
    name : str
        Of the weight that a lora changes, `blocks.{number}.{map}`; empty where the adapter is one map.
    read : (n_in, r) float64
    write : (r, n_out) float64
    bias : (n_out,) float64 or None
        Added whatever is read.
    reads, writes : Way
    assign : callable
        Puts another `read` (n_in, k), `write` (k, n_out) and bias in the adapter's place, with k up to r.
    reader : nn.Module or None
        Its output is x @ read; None where the adapter reads the hook itself.
    """

    name: str
    read: torch.Tensor
    write: torch.Tensor
    bias: torch.Tensor | None
    reads: Way
    writes: Way
    assign: Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], None]
    reader: nn.Module | None = None

    def restore(self) -> None:
        """Put the map itself back."""
        self.assign(self.read, self.write, self.bias)

    def silence(self) -> None:
        """Make the map add nothing."""
        none = None if self.bias is None else torch.zeros_like(self.bias)
        self.assign(self.read[:, :0], self.write[:0], none)


Adapter = LatentAdapter | ModelAdapter


@contextmanager
def open_adapter(folder: Any, subject: LoadedSubject) -> Iterator[Adapter]:
    """Give the adapter saved in `folder`, at work in the whole model; the model is restored when the block ends."""
    if is_model_adapter(folder):
        with load_model_adapter(folder, subject) as model_adapter:
            yield model_adapter
    else:
        yield load_adapter(folder, subject.dictionary.d_sae).to(subject.model.device).requires_grad_(False)


def heldout_loss(subject: LoadedSubject, adapter: Adapter, rows: CachedRows, chosen: torch.Tensor, n: int) -> float:
    """Return the mean loss of the completion tokens of `chosen` rows under an adapter, in nats.

    Parameters
    ----------
    n : int
        Rows per forward pass.
    """
    total = n_tokens = 0.0
    with torch.no_grad():
        for part in chosen.split(n):
            batch = rows.batch(part).to(subject.model.device)
            losses = completion_losses(subject, batch, _residual(subject, adapter, batch))
            total += float(in_float64(losses).sum())
            n_tokens += len(losses)
    return total / n_tokens


def _residual(subject: LoadedSubject, adapter: Adapter, batch: Batch) -> torch.Tensor:
    return adapter.adapted(subject, batch) if isinstance(adapter, ModelAdapter) else adapted(subject, adapter, batch)


def signals(
    subject: LoadedSubject, adapter: Adapter, parts: list[MapPart], batch: Batch
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return what each part reads of a batch, x @ read (n, r) float64, and of which tokens, (n_tokens,) bool.

    BOS is left out: it is the same in every text, and often the largest activation of all.
    """
    text = ~bos_mask(subject, batch)
    found: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def keep(part: MapPart, output: torch.Tensor) -> None:
        if output.shape[:2] == batch.mask.shape:
            output = output[batch.mask]
        flat = output.reshape(-1, output.shape[-1])
        # The last block's MLP is run on those tokens alone whose logits are read.
        tokens = text if len(flat) == len(text) else batch.predicts & text
        found[part.name] = in_float64(flat if len(flat) < len(text) else flat[tokens]), tokens

    with torch.no_grad(), ExitStack() as hooks:
        for part in parts:
            if part.reader is None:
                read = part.read.float()
                z = batch.codes.combine(read) if part.reads.space == LATENTS else batch.residual.float() @ read
                found[part.name] = in_float64(z[text]), text
            else:
                hook = part.reader.register_forward_hook(lambda _, args, output, part=part: keep(part, output))
                hooks.callback(hook.remove)
        if any(part.reader is not None for part in parts):
            completion_losses(subject, batch, _residual(subject, adapter, batch))
    return [found[part.name] for part in parts]


def parts_of(subject: LoadedSubject, adapter: Adapter) -> list[MapPart]:
    """Return the linear maps of an adapter; none if it is no linear map."""
    if isinstance(adapter, LowRank):
        low = adapter

        def assign_low(read: torch.Tensor, write: torch.Tensor, bias: torch.Tensor | None) -> None:
            _fill(low.down, read)
            _fill(low.up, write)

        latents = Way(LATENTS)
        return [MapPart("", _exact(low.down), _exact(low.up), None, latents, latents, assign_low)]
    if isinstance(adapter, Mlp) and adapter.depth == 0:
        mlp = adapter

        def assign_mlp(read: torch.Tensor, write: torch.Tensor, bias: torch.Tensor | None) -> None:
            _fill(mlp.output, read @ write)
            _fill(mlp.output_bias, bias)

        one, latents = torch.eye(mlp.d_sae, dtype=torch.float64, device=mlp.output.device), Way(LATENTS)
        bias = None if mlp.output_bias is None else _exact(mlp.output_bias)
        return [MapPart("", one, _exact(mlp.output), bias, latents, latents, assign_mlp)]
    if isinstance(adapter, Residual):
        own = adapter

        def assign_residual(read: torch.Tensor, write: torch.Tensor, bias: torch.Tensor | None) -> None:
            _fill(own.down, read.T)
            _fill(own.up, write.T)
            _fill(own.bias, bias)

        bias = None if own.bias is None else _exact(own.bias)
        stream = Way(RESIDUAL)
        return [MapPart("", _exact(own.down).T, _exact(own.up).T, bias, stream, stream, assign_residual)]
    return _lora_parts(subject, adapter) if isinstance(adapter, Lora) else []


def _lora_parts(subject: LoadedSubject, adapter: Lora) -> list[MapPart]:
    """Return the change of every linear map of LoRA's blocks."""
    ways, found = _ways(subject), []
    for number, block in adapter.blocks.items():
        for name, module in block.named_modules():
            if isinstance(module, BaseTunerLayer):
                layer = cast("Any", module)
                inner, outer = layer.lora_A[PEFT_NAME], layer.lora_B[PEFT_NAME]
                scale = float(layer.scaling[PEFT_NAME])

                def assign(
                    read: torch.Tensor,
                    write: torch.Tensor,
                    bias: torch.Tensor | None,
                    inner: Any = inner,
                    outer: Any = outer,
                    scale: float = scale,
                ) -> None:
                    _fill(inner.weight, read.T)
                    _fill(outer.weight, write.T / scale)

                reads, writes = ways[int(number), name]
                read, write = _exact(inner.weight).T, _exact(outer.weight).T * scale
                found.append(MapPart(f"blocks.{number}.{name}", read, write, None, reads, writes, assign, inner))
    return found


def _ways(subject: LoadedSubject) -> dict[tuple[int, str], tuple[Way, Way]]:
    """Return how every module of every block reads and writes the residual stream, seen in one forward pass.

    A module reads the stream if its input is the output of a normalization (or the block's input), and writes it if
    its output is that of a part of the block: of its attention or MLP, or of a normalization behind these.
    """
    seen: dict[tuple[int, str], tuple[torch.Tensor, torch.Tensor]] = {}
    inputs: dict[int, torch.Tensor] = {}

    def first(value: Any) -> Any:
        return value[0] if isinstance(value, tuple) else value

    blocks = decoder_blocks(subject.model)
    with ExitStack() as hooks:
        for number, block in enumerate(blocks):
            for name, module in block.named_modules():

                def record(
                    _: nn.Module, args: Any, kwargs: Any, output: Any, key: tuple[int, str] = (number, name)
                ) -> None:
                    read = first(args) if args else kwargs.get("hidden_states")
                    if isinstance(read, torch.Tensor) and isinstance(first(output), torch.Tensor):
                        seen[key] = read, first(output)
                        if not key[1]:
                            inputs[key[0]] = read

                hooks.callback(module.register_forward_hook(record, with_kwargs=True).remove)
        with torch.no_grad():
            tokens = torch.zeros(1, 2, dtype=torch.int64, device=subject.model.device)
            subject.model(input_ids=tokens, use_cache=False)
    ones = subject.model.get_output_embeddings().weight.new_ones(subject.language.d_model)
    ways = {}
    for (number, name), (read, written) in seen.items():
        block = blocks[number]
        norms = {key: part for key, part in block.named_children() if "norm" in type(part).__name__.lower()}
        children = [key for key, _ in block.named_children() if key not in norms]
        reads = Way(RESIDUAL) if _same(read, inputs.get(number)) else Way(INSIDE)
        writes = Way(INSIDE)
        for key, norm in norms.items():
            if (number, key) in seen and _same(read, seen[number, key][1]):
                reads = Way(RESIDUAL, *linear_part(norm, ones))
        for key in children:
            if (number, key) in seen and _same(written, seen[number, key][1]):
                writes = Way(RESIDUAL)
                for after, norm in norms.items():
                    if (number, after) in seen and _same(written, seen[number, after][0]):
                        writes = Way(RESIDUAL, *linear_part(norm, ones))
        ways[number, name] = reads, writes
    return ways


def _same(one: torch.Tensor, other: torch.Tensor | None) -> bool:
    return other is not None and one.shape == other.shape and one.data_ptr() == other.data_ptr()


def _exact(parameter: torch.Tensor) -> torch.Tensor:
    return in_float64(parameter.detach())


def _fill(parameter: torch.Tensor | None, values: torch.Tensor | None) -> None:
    """Set a parameter to values that may have fewer rows or columns; the rest is 0."""
    if parameter is not None and values is not None:
        with torch.no_grad():
            parameter.zero_()
            parameter[tuple(slice(n) for n in values.shape)] = values.to(parameter)
