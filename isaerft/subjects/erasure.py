"""Directions erased from the residual stream at the hook: the rows that are left, and what can still be written.

An adapter that is trained on erased rows could write the erased direction back, so what latents write is erased too.
Then no adapter on latents moves the stream along it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from isaerft.errors import InputError, shown
from isaerft.io import replacing
from isaerft.outside import loading
from isaerft.subjects.cache import CachedRows
from isaerft.subjects.codes import Codes
from isaerft.subjects.load import LoadedSubject

TOKENS_AT_ONCE = 8192
PARTS = ("center", "read", "write")


@dataclass(frozen=True)
class Erasure:
    """x -> x - (x - center) @ read @ write at every token of text; BOS stays as it is.

    Attributes
    ----------
    center : (d_model,) float32
    read : (d_model, k) float32
    write : (k, d_model) float32
    """

    center: torch.Tensor
    read: torch.Tensor
    write: torch.Tensor

    def on_subject(self, subject: LoadedSubject) -> LoadedSubject:
        """Return the subject whose latents write only what is left of their decoder rows.

        Raises
        ------
        InputError
            The SAE does not read the residual stream.
        """
        if subject.hook.reads != "residual":
            raise InputError(
                f"directions erased with an SAE at {shown(subject.dictionary.hook_name)}",
                allowed="SAEs on the residual stream",
                remedy="leave the controls `erased_...` out",
            )
        rows = subject.dictionary.W_dec
        read, write = (part.to(rows) for part in (self.read, self.write))
        return replace(subject, dictionary=replace(subject.dictionary, W_dec=rows - (rows @ read) @ write))

    def on_rows(self, subject: LoadedSubject, rows: CachedRows) -> CachedRows:
        """Return what is left of the residual stream, with its codes, in memory.

        Parameters
        ----------
        subject : LoadedSubject
            With the whole dictionary: latents read as ever.
        """
        n_tokens, device = len(rows.residual), subject.model.device
        is_bos = torch.zeros(n_tokens, dtype=torch.bool)
        if subject.language.bos:
            is_bos[rows.starts[:-1]] = True
        center, read, write = (part.to(device) for part in (self.center, self.read, self.write))
        streams, codes = [], []
        for part in torch.arange(n_tokens).split(TOKENS_AT_ONCE):
            stream, kept = rows.residual[part].to(device), is_bos[part].to(device)
            left = stream - (((stream.float() - center) @ read) @ write).to(stream.dtype)
            left[kept] = stream[kept]
            streams.append(left.cpu())
            codes.append(subject.dictionary.encode(left).to("cpu").emptied(is_bos[part]))
        return replace(rows, residual=torch.cat(streams), codes=Codes.concatenate(codes))


def write_erasures(erasures: Sequence[Erasure], path: str | Path) -> None:
    """Write the erasure of each seed as one safetensors file, atomically."""
    tensors = {f"{seed}.{name}": getattr(one, name) for seed, one in enumerate(erasures) for name in PARTS}
    with replacing(path) as temporary:
        save_file(
            {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}, temporary
        )


def read_erasures(path: str | Path) -> list[Erasure]:
    """Read the erasure of each seed.

    Raises
    ------
    InputError
        The file does not exist.
    """
    if not Path(path).is_file():
        raise InputError(f"{str(path)!r} does not exist", remedy="run `isaerft erase` first")
    with loading("erased directions", path, remedy="run `isaerft erase` again"):
        tensors = load_file(path)
    seeds = range(len(tensors) // len(PARTS))
    return [Erasure(*(tensors[f"{seed}.{name}"] for name in PARTS)) for seed in seeds]
