"""Tensors too many for memory: a safetensors file written row after row, and read through a memory map.

A behavior's cache has a residual stream of `d_in` numbers for every token. Writing appends to one scratch file per
tensor and joins them at the end; reading maps the file, so that only the rows that are asked for are ever read.
"""

from __future__ import annotations

import json
import mmap
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch

from isaerft.errors import InputError

_TO_TORCH = {
    "I64": torch.int64,
    "I32": torch.int32,
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "BOOL": torch.bool,
}
_TO_NAME = {dtype: name for name, dtype in _TO_TORCH.items()}
_LENGTH_BYTES = 8


class TensorWriter:
    """Named tensors that grow along their first dimension, on disk.

    Parameters
    ----------
    folder : path
        Where the scratch files go; it is made, and emptied by `join`.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._folder.mkdir()
        self._kinds: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
        self._n_rows: dict[str, int] = {}

    def append(self, name: str, rows: torch.Tensor) -> None:
        """Append `rows` (n, ...) to the tensor `name`; dtype and trailing shape stay as they were at first."""
        kind = rows.dtype, tuple(rows.shape[1:])
        if self._kinds.setdefault(name, kind) != kind:
            raise ValueError(f"tensor {name!r} has rows of {self._kinds[name]}, not {kind}")
        self._n_rows[name] = self._n_rows.get(name, 0) + len(rows)
        with open(self._folder / name, "ab") as stream:
            # NumPy knows no bfloat16, so the bytes are what is written.
            stream.write(rows.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)

    def join(self, path: str | Path, metadata: Mapping[str, str]) -> None:
        """Write all tensors as one safetensors file; the same tensors give the same bytes."""
        # Wide types first, as safetensors itself does: every tensor then starts at a multiple of its item size.
        order = sorted(self._kinds, key=lambda name: (-self._kinds[name][0].itemsize, name))
        header: dict[str, object] = {"__metadata__": dict(metadata)}
        end = 0
        for name in order:
            (dtype, trailing), scratch = self._kinds[name], self._folder / name
            begin, end = end, end + scratch.stat().st_size
            shape = [self._n_rows[name], *trailing]
            header[name] = {"dtype": _TO_NAME[dtype], "shape": shape, "data_offsets": [begin, end]}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % _LENGTH_BYTES)
        with open(path, "wb") as stream:
            stream.write(len(text).to_bytes(_LENGTH_BYTES, "little") + text)
            for name in order:
                with open(self._folder / name, "rb") as part:
                    shutil.copyfileobj(part, stream)
                (self._folder / name).unlink()


def map_tensors(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Map the tensors of a safetensors file into memory without reading them, and return them with its metadata.

    The pages are shared and read-only, so a file larger than memory is fine; writing into such a tensor is not.

    Raises
    ------
    InputError
        The file is not a safetensors file, or is cut short.
    """
    with open(path, "rb") as stream:
        n_header = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        start, size = _LENGTH_BYTES + n_header, Path(path).stat().st_size
        try:
            header = json.loads(stream.read(n_header)) if start <= size else {}
            metadata = header.pop("__metadata__")
            complete = start + max(part["data_offsets"][1] for part in header.values()) <= size
        except (ValueError, KeyError):
            complete = False
        if not complete:
            raise InputError(f"{str(path)!r} is not a complete safetensors file", remedy="make the file again")
        # safe_open maps privately, which Linux refuses for a file larger than memory.
        pages = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    return {name: _view(pages, start, part) for name, part in header.items()}, metadata


def _view(pages: mmap.mmap, start: int, part: Mapping[str, object]) -> torch.Tensor:
    """Return a tensor on mapped pages, from its entry in the header."""
    dtype, shape, (begin, end) = _TO_TORCH[part["dtype"]], part["shape"], part["data_offsets"]
    if begin == end:
        return torch.empty(shape, dtype=dtype)
    with warnings.catch_warnings():
        # PyTorch warns that the pages cannot be written; they never are.
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        flat = torch.frombuffer(pages, dtype=dtype, count=(end - begin) // dtype.itemsize, offset=start + begin)
    return flat.view(shape)
