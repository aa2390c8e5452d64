"""The cache of a behavior: what the frozen part below the hook made of its rows, and batches of it to train on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from isaerft.errors import InputError, unknown_name
from isaerft.files import replacing
from isaerft.subjects.codes import Codes
from isaerft.subjects.load import LoadedSubject
from isaerft.subjects.mapped import TensorWriter, map_tensors
from isaerft.subjects.site import hidden_above, unembed


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
