"""Tensors too many for memory: a safetensors file written row after row, and read through a memory map.

A behavior's cache has a residual stream of `d_in` numbers for every token. Writing appends to one scratch file per
tensor and joins them at the end; reading maps the file, so that only the rows that are asked for are ever read.

The cache of a behavior: what the frozen part below the hook made of its rows, and batches of it to train on.

Running what lies below the hook once more for the tokens of a batch: under changed weights, or with gradients.
"""

from __future__ import annotations

import json
import mmap
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from isaerft.errors import InputError, unknown_name
from isaerft.io import replacing
from isaerft.subjects.dictionary import Codes
from isaerft.subjects.hooks import Below, hidden_above, run_below, unembed
from isaerft.subjects.load import LoadedSubject

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


@dataclass(frozen=True)
class Batch:
    """Some rows of a cache.

    Attributes
    ----------
    residual : (n_tokens, d_in)
        Residual stream of the rows' tokens, row after row, without padding.
    codes : Codes
        Their sparse activations.
    mask : (n_rows, length) bool
        Where the padded table has a token; `n_tokens` entries are true.
    predicts : (n_tokens,) bool
        Tokens whose next token belongs to the completion.
    labels : (n_predicted,) int64
        Those next tokens.
    tokens : (n_tokens,) int64
        Ids of the tokens, for what has to run the model below the hook again.
    """

    residual: torch.Tensor
    codes: Codes
    mask: torch.Tensor
    predicts: torch.Tensor
    labels: torch.Tensor
    tokens: torch.Tensor

    @property
    def n_terms(self) -> int:
        """Number of terms that an objective is a mean over: the completion tokens."""
        return len(self.labels)

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on `device`."""
        codes = Codes(
            self.codes.indices.to(device), self.codes.values.to(device), self.codes.starts.to(device), self.codes.d_sae
        )
        names = ("residual", "mask", "predicts", "labels", "tokens")
        return replace(self, codes=codes, **{name: getattr(self, name).to(device) for name in names})


@dataclass(frozen=True)
class CachedRows:
    """All rows of one split of a behavior, in memory or (when read from a cache) mapped from disk.

    Attributes
    ----------
    residual : (n_tokens, d_in)
    codes : Codes
    tokens : (n_tokens,) int64
    predicts : (n_tokens,) bool
        Tokens whose next token belongs to the completion.
    starts : (n_rows + 1,) int64
        Row r owns tokens ``starts[r]`` to ``starts[r + 1]``.
    """

    residual: torch.Tensor
    codes: Codes
    tokens: torch.Tensor
    predicts: torch.Tensor
    starts: torch.Tensor

    def __len__(self) -> int:
        return len(self.starts) - 1

    def batch(self, rows: torch.Tensor) -> Batch:
        """Return the given rows, (n_rows,) int64, as one batch."""
        begins = self.starts[rows]
        lengths = self.starts[rows + 1] - begins
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        first = torch.repeat_interleave(begins, lengths)
        chosen = first + mask.nonzero()[:, 1]
        predicts = self.predicts[chosen]
        return Batch(
            residual=self.residual[chosen],
            codes=self.codes.rows(chosen),
            mask=mask,
            predicts=predicts,
            labels=self.tokens[chosen[predicts] + 1],
            tokens=self.tokens[chosen],
        )

    def batches(self, n: int) -> Iterator[Batch]:
        """Yield all rows in order, `n` at a time."""
        for rows in torch.arange(len(self)).split(n):
            yield self.batch(rows)


def completion_losses(subject: LoadedSubject, batch: Batch, residual: torch.Tensor) -> torch.Tensor:
    """Run the part above the hook on a (changed) residual stream.

    Parameters
    ----------
    residual : (n_tokens, d_in)
        In place of ``batch.residual``; gradients flow back to it.

    Returns
    -------
    (n_predicted,) float32
        Loss of each completion token, in nats. Logits are made only where the completion is.
    """
    return cross_entropy(completion_logits(subject, batch, residual), batch.labels, reduction="none")


def completion_logits(subject: LoadedSubject, batch: Batch, residual: torch.Tensor) -> torch.Tensor:
    """Run the part above the hook on a (changed) residual stream (n_tokens, d_in) and unembed where loss falls.

    Returns
    -------
    (n_predicted, n_vocabulary) float32
    """
    residual = residual.to(subject.model.dtype)
    padded = residual.new_zeros(*batch.mask.shape, residual.shape[-1])
    padded = padded.index_put(batch.mask.nonzero(as_tuple=True), residual)
    hidden = hidden_above(subject.model, subject.site, padded, batch.mask.long())
    return unembed(subject.model, hidden[batch.mask][batch.predicts]).float()


def write_cache(splits: Mapping[str, CachedRows | Iterable[CachedRows]], path: str | Path) -> None:
    """Write the splits of a behavior as one safetensors file, atomically.

    A split may come in parts, row after row; each is written as it comes, so that memory holds one part at a time.
    """
    with replacing(path) as temporary:
        writer = TensorWriter(temporary.parent / "parts")
        d_sae = 0
        for name, rows in splits.items():
            parts = [rows] if isinstance(rows, CachedRows) else rows
            ends = {"starts": 0, "code_starts": 0}
            for part in ends:
                writer.append(f"{name}.{part}", torch.zeros(1, dtype=torch.int64))
            for part in parts:
                d_sae = part.codes.d_sae
                for field, tensor in _stored(part).items():
                    if field in ends:
                        tensor = tensor[1:] + ends[field]
                        ends[field] = int(tensor[-1])
                    writer.append(f"{name}.{field}", tensor)
        writer.join(temporary, {"d_sae": str(d_sae)})


def read_cache(path: str | Path, split: str) -> CachedRows:
    """Map one split of a cache; a batch reads its own rows from the disk and nothing else is read."""
    if not Path(path).is_file():
        raise InputError(f"cache {str(path)!r} does not exist", remedy="run `isaerft capture` first")
    tensors, metadata = map_tensors(path)
    part = {name.removeprefix(f"{split}."): value for name, value in tensors.items() if name.startswith(f"{split}.")}
    if not part:
        raise unknown_name("split", split, {name.split(".")[0] for name in tensors})
    codes = Codes(part["indices"], part["values"], part["code_starts"], int(metadata["d_sae"]))
    return CachedRows(part["residual"], codes, part["tokens"], part["predicts"], part["starts"])


def _stored(rows: CachedRows) -> dict[str, torch.Tensor]:
    """Return the tensors of some rows by the names they have in a cache."""
    return {
        "residual": rows.residual,
        "tokens": rows.tokens,
        "predicts": rows.predicts,
        "starts": rows.starts,
        "indices": rows.codes.indices.int(),
        "values": rows.codes.values,
        "code_starts": rows.codes.starts,
    }


def rerun(subject: LoadedSubject, batch: Batch) -> Below:
    """Run a batch's tokens through everything below the hook, with gradients where they are on.

    Returns
    -------
    Below
        Activation and residual stream, (n_tokens, d_in) each, tokens in the batch's order.
    """
    padded = batch.tokens.new_full(batch.mask.shape, subject.language.padding)
    padded[batch.mask] = batch.tokens
    gradient = torch.is_grad_enabled()
    below = run_below(subject.model, subject.site, padded, batch.mask.long(), gradient=gradient)
    return Below(below.activation[batch.mask], below.residual[batch.mask])


def from_cache(subject: LoadedSubject, batch: Batch) -> Below:
    """Return the same of the base model, from the cache as far as it is there.

    The cache keeps the residual stream where adapters write; what an SAE on attention or MLP reads is run again.
    """
    if subject.site.reads == "residual":
        return Below(batch.residual, batch.residual)
    with torch.no_grad():
        return Below(rerun(subject, batch).activation, batch.residual)


def at_bos(subject: LoadedSubject, batch: Batch) -> torch.Tensor:
    """Tell which tokens of a batch are BOS, where no latent counts as active, (n_tokens,) bool."""
    is_bos = torch.zeros_like(batch.mask)
    is_bos[:, : len(subject.language.bos)] = True
    return is_bos[batch.mask]
