"""The cache of a behavior: the output of the frozen layers below the hook, and batches of it to train on.

A cache file holds, for every split of a behavior, the residual stream at the injection point and the sparse codes of
every token. It can be larger than memory: it is written row after row and read through a memory map, so a batch
reads only its own rows from disk.
"""

from __future__ import annotations

import json
import mmap
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from scipy import sparse
from torch.nn.functional import cross_entropy, pad

from isaerft.errors import InputError, unknown_name
from isaerft.io import replacing
from isaerft.subjects.codes import Codes
from isaerft.subjects.hooks import HookState, hidden_above, run_below, unembed
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
_ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class Batch:
    """Some rows of a cache, without padding.

    Attributes
    ----------
    residual : (n_tokens, d_in)
        Residual stream at the injection point, row after row.
    codes : Codes
        Sparse codes of the hook's activation.
    mask : (n_rows, length) bool
        Where the padded rows have a token; `n_tokens` entries are true.
    predicts : (n_tokens,) bool
        Tokens whose next token belongs to the completion.
    labels : (n_predicted,) int64
        Those next tokens.
    tokens : (n_tokens,) int64
        Token ids.
    written : (n_tokens, d_model) or None
        Output that the dictionary writes to, where a normalization lies behind it (`isaerft.subjects.hooks.reaching`).
    """

    residual: torch.Tensor
    codes: Codes
    mask: torch.Tensor
    predicts: torch.Tensor
    labels: torch.Tensor
    tokens: torch.Tensor
    written: torch.Tensor | None = None

    @property
    def n_terms(self) -> int:
        """Number of completion tokens, over which an objective takes its mean."""
        return len(self.labels)

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on `device`."""
        return replace(
            self,
            residual=self.residual.to(device),
            codes=self.codes.to(device),
            mask=self.mask.to(device),
            predicts=self.predicts.to(device),
            labels=self.labels.to(device),
            tokens=self.tokens.to(device),
            written=None if self.written is None else self.written.to(device),
        )


def joined_batch(batches: Sequence[Batch]) -> Batch:
    """Return the rows of all batches as one, in order, padded to the same length."""
    if len(batches) == 1:
        return batches[0]
    length = max(batch.mask.shape[1] for batch in batches)
    return Batch(
        residual=torch.cat([batch.residual for batch in batches]),
        codes=Codes.concatenate(batch.codes for batch in batches),
        mask=torch.cat([pad(batch.mask, (0, length - batch.mask.shape[1])) for batch in batches]),
        predicts=torch.cat([batch.predicts for batch in batches]),
        labels=torch.cat([batch.labels for batch in batches]),
        tokens=torch.cat([batch.tokens for batch in batches]),
        written=joined_tensors([batch.written for batch in batches]),
    )


def joined_tensors(parts: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    """Return the tensors as one, token after token; None if there are none."""
    present = [part for part in parts if part is not None]
    return torch.cat(present) if present else None


@dataclass(frozen=True)
class CachedRows:
    """All rows of one split of a behavior, in memory or, when read from a cache, mapped from disk.

    Attributes
    ----------
    residual : (n_tokens, d_in)
        Residual stream at the injection point, row after row.
    codes : Codes
        Sparse codes of the hook's activation.
    tokens : (n_tokens,) int64
        Token ids.
    predicts : (n_tokens,) bool
        Tokens whose next token belongs to the completion.
    starts : (n_rows + 1,) int64
        Row r owns tokens ``starts[r]`` to ``starts[r + 1]``.
    written : (n_tokens, d_model) or None
        See `Batch`.
    """

    residual: torch.Tensor
    codes: Codes
    tokens: torch.Tensor
    predicts: torch.Tensor
    starts: torch.Tensor
    written: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.starts) - 1

    def batch(self, rows: torch.Tensor) -> Batch:
        """Return the rows (n_rows,) int64 as one batch."""
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
            written=None if self.written is None else self.written[chosen],
        )

    @cached_property
    def completion_means(self) -> sparse.csr_array:
        """Mean activation of each latent over each completion's tokens, (n_rows, d_sae) float64."""
        parts = []
        for rows in torch.arange(len(self)).split(_ROWS_AT_ONCE):
            begin, end = int(self.starts[rows[0]]), int(self.starts[rows[-1] + 1])
            row = torch.repeat_interleave(rows - rows[0], self.starts[rows + 1] - self.starts[rows])
            # A token belongs to the completion if the token before it predicts the completion.
            inside = torch.zeros(end - begin, dtype=torch.bool)
            inside[1:] = self.predicts[begin : end - 1] & (row[1:] == row[:-1])
            codes, row = self.codes.rows(begin + inside.nonzero()[:, 0]), row[inside]
            n_tokens = torch.bincount(row, minlength=len(rows)).clamp_min(1)
            entry_row = row[codes.tokens()]
            values = codes.values.double() / n_tokens[entry_row]
            position = (entry_row.numpy(), codes.indices.numpy())
            parts.append(sparse.coo_array((values.numpy(), position), shape=(len(rows), codes.d_sae)).tocsr())
        return sparse.csr_array(sparse.vstack(parts))

    def batches(self, n: int) -> Iterator[Batch]:
        """Yield all rows in order, `n` at a time."""
        for rows in torch.arange(len(self)).split(n):
            yield self.batch(rows)

    def chosen(self, rows: torch.Tensor) -> CachedRows:
        """Return the rows (n_rows,) int64 alone, in memory."""
        lengths = self.starts[rows + 1] - self.starts[rows]
        starts = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        within = torch.arange(int(starts[-1])) - torch.repeat_interleave(starts[:-1], lengths)
        tokens = torch.repeat_interleave(self.starts[rows], lengths) + within
        written = None if self.written is None else self.written[tokens]
        part = (self.residual[tokens], self.codes.rows(tokens), self.tokens[tokens], self.predicts[tokens])
        return CachedRows(*part, starts, written=written)


def write_cache(splits: Mapping[str, CachedRows | Iterable[CachedRows]], path: str | Path) -> None:
    """Write the splits of a behavior as one safetensors file, atomically.

    A split may be an iterable of parts, each with some of its rows. Each part is written as soon as it is produced, so
    memory holds one part at a time.
    """
    with replacing(path) as temporary:
        writer = TensorWriter(temporary.parent / "parts")
        d_sae = 0
        for name, rows in splits.items():
            ends = {"starts": 0, "code_starts": 0}
            for field in ends:
                writer.append(f"{name}.{field}", torch.zeros(1, dtype=torch.int64))
            for part in [rows] if isinstance(rows, CachedRows) else rows:
                d_sae = part.codes.d_sae
                for field, tensor in _stored(part).items():
                    if field in ends:
                        tensor = tensor[1:] + ends[field]
                        ends[field] = int(tensor[-1])
                    writer.append(f"{name}.{field}", tensor)
        writer.join(temporary, {"d_sae": str(d_sae)})


def read_cache(path: str | Path, split: str) -> CachedRows:
    """Map one split of a cache into memory, without reading it.

    Raises
    ------
    InputError
        The file does not exist or is not whole, or has no such split.
    """
    if not Path(path).is_file():
        raise InputError(f"cache {str(path)!r} does not exist", remedy="run `isaerft capture` first")
    tensors, metadata = map_tensors(path)
    part = {name.removeprefix(f"{split}."): value for name, value in tensors.items() if name.startswith(f"{split}.")}
    if not part:
        raise unknown_name("split", split, {name.split(".")[0] for name in tensors})
    codes = Codes(part["indices"], part["values"], part["code_starts"], int(metadata["d_sae"]))
    return CachedRows(
        part["residual"], codes, part["tokens"], part["predicts"], part["starts"], written=part.get("written")
    )


def completion_logits(subject: LoadedSubject, batch: Batch, residual: torch.Tensor) -> torch.Tensor:
    """Run the layers above the hook and return the logits of each completion token.

    Parameters
    ----------
    residual : (n_tokens, d_in)
        Residual stream to run instead of ``batch.residual``; gradients flow back to it.

    Returns
    -------
    (n_predicted, n_vocabulary) float32
    """
    residual = residual.to(subject.model.dtype)
    padded = residual.new_zeros(*batch.mask.shape, residual.shape[-1])
    padded = padded.index_put(batch.mask.nonzero(as_tuple=True), residual)
    read = batch.mask.masked_scatter(batch.mask, batch.predicts)
    hidden = hidden_above(subject.model, subject.hook, padded, batch.mask.long(), wanted=read)
    return unembed(subject.model, hidden[read]).float()


def completion_losses(subject: LoadedSubject, batch: Batch, residual: torch.Tensor) -> torch.Tensor:
    """Run the layers above the hook (see `completion_logits`) and return the loss of each completion token.

    Returns
    -------
    (n_predicted,) float32
        In nats.
    """
    return cross_entropy(completion_logits(subject, batch, residual), batch.labels, reduction="none")


def rerun_below(subject: LoadedSubject, batch: Batch) -> HookState:
    """Run the layers below the hook again, under changed weights or with gradients where they are enabled.

    Returns
    -------
    HookState
        Each tensor is (n_tokens, ...), tokens in the batch's order.
    """
    padded = batch.tokens.new_full(batch.mask.shape, subject.language.padding)
    padded[batch.mask] = batch.tokens
    gradient = torch.is_grad_enabled()
    below = run_below(subject.model, subject.hook, padded, batch.mask.long(), gradient=gradient)
    return HookState(below.activation[batch.mask], below.residual[batch.mask])


def base_state(subject: LoadedSubject, batch: Batch) -> HookState:
    """Return the same for the unchanged model, from the cache as far as possible.

    The cache keeps the residual stream at the injection point. An activation inside a block is computed again.
    """
    if subject.hook.reads == "residual":
        return HookState(batch.residual, batch.residual)
    with torch.no_grad():
        return HookState(rerun_below(subject, batch).activation, batch.residual)


def bos_mask(subject: LoadedSubject, batch: Batch) -> torch.Tensor:
    """Return which tokens of a batch are BOS, (n_tokens,) bool; no latent counts as active there."""
    return ~subject.language.text_mask(batch.mask)[batch.mask]


def _stored(rows: CachedRows) -> dict[str, torch.Tensor]:
    """Return the tensors of some rows by their names in a cache file."""
    written = {} if rows.written is None else {"written": rows.written}
    return written | {
        "residual": rows.residual,
        "tokens": rows.tokens,
        "predicts": rows.predicts,
        "starts": rows.starts,
        "indices": rows.codes.indices.int(),
        "values": rows.codes.values,
        "code_starts": rows.codes.starts,
    }


class TensorWriter:
    """Tensors that grow along their first dimension, each in a scratch file of its own, joined at the end.

    Parameters
    ----------
    folder : str or Path
        New folder for the scratch files; `join` empties it.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._folder.mkdir()
        self._kinds: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
        self._n_rows: dict[str, int] = {}

    def append(self, name: str, rows: torch.Tensor) -> None:
        """Append `rows` (n, ...) to the tensor `name`; their dtype and trailing shape must not change."""
        kind = rows.dtype, tuple(rows.shape[1:])
        if self._kinds.setdefault(name, kind) != kind:
            raise ValueError(f"tensor {name!r} has rows of {self._kinds[name]}, not {kind}")
        self._n_rows[name] = self._n_rows.get(name, 0) + len(rows)
        with open(self._folder / name, "ab") as stream:
            # NumPy has no bfloat16, so write bytes.
            stream.write(rows.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)

    def join(self, path: str | Path, metadata: Mapping[str, str]) -> None:
        """Write all tensors as one safetensors file; the same tensors give the same bytes."""
        # Wide types first, as in safetensors itself, so that every tensor starts at a multiple of its item size.
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

    The pages are shared and read-only: the file may be larger than memory, but the tensors must not be written to.

    Raises
    ------
    InputError
        The file is not a safetensors file, or is truncated.
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
            raise InputError(f"{str(path)!r} is not a complete safetensors file", remedy="run `isaerft capture` again")
        # safe_open maps privately, which Linux refuses for a file larger than memory.
        pages = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    return {name: _view(pages, start, part) for name, part in header.items()}, metadata


def _view(pages: mmap.mmap, start: int, part: Mapping[str, Any]) -> torch.Tensor:
    """Return the tensor that an entry of the header describes, on mapped pages."""
    dtype, shape, (begin, end) = _TO_TORCH[part["dtype"]], part["shape"], part["data_offsets"]
    if begin == end:
        return torch.empty(shape, dtype=dtype)
    with warnings.catch_warnings():
        # PyTorch warns that the pages are read-only; nothing writes to them.
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        flat = torch.frombuffer(pages, dtype=dtype, count=(end - begin) // dtype.itemsize, offset=start + begin)
    return flat.view(shape)
