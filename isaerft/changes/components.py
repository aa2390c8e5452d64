"""Read a learned map: split it into components that each read one direction and write one.

A map adds x @ M to what it writes to. On held-out text the matrix of what it adds has a singular value decomposition,
which splits M into rank-one maps, M = sum_k read_k write_k': written directions are orthogonal in the residual stream,
signals x @ read_k are uncorrelated over tokens, and the singular value is the root mean square of what the component
adds. It is the decomposition of M itself under the held-out tokens' second moments, so it depends neither on the units
of latents nor on directions that no text ever takes.

A weight vector that reads x is not what varies in its signal [1]_: a latent's share of the signal is its share of the
signal's variance, and its likeness to the latent's encoder column is given besides.

References
----------
.. [1] Haufe et al. 2014, "On the interpretation of weight vectors of linear models in multivariate neuroimaging".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from isaerft import config
from isaerft.adapters.saved import seed_folders, seed_of
from isaerft.changes.parts import (
    INSIDE,
    LATENTS,
    RESIDUAL,
    Adapter,
    MapPart,
    heldout_loss,
    open_adapter,
    parts_of,
    signals,
)
from isaerft.changes.weight_pullback import weight_pullback
from isaerft.io import replacing
from isaerft.layout import MapsFolder
from isaerft.progress import Progress
from isaerft.subjects.cache import Batch, CachedRows, read_cache
from isaerft.subjects.codes import Codes
from isaerft.subjects.hooks import token_directions
from isaerft.subjects.load import LoadedSubject

BIAS = 0
TINY = 1e-9


@dataclass(frozen=True)
class Components:
    """A map's components, largest first.

    Attributes
    ----------
    read : (n_in, n) float64
        x @ read[:, k] is the signal of component k; its mean over held-out tokens is not negative.
    write : (n, n_out) float64
        What a signal of 1 adds, where the map writes.
    written : (n, d) float64
        The same in the residual stream, where the map reaches it: orthonormal rows.
    size : (n,) float64
        Root mean square of what is added.
    signal : (n_tokens, n) float64
    """

    read: torch.Tensor
    write: torch.Tensor
    written: torch.Tensor
    size: torch.Tensor
    signal: torch.Tensor


def components_of(part: MapPart, signal: torch.Tensor, decoder: torch.Tensor) -> Components:
    """Return the components of a map that has any effect on held-out tokens.

    Parameters
    ----------
    signal : (n_tokens, r) float64
        What the map reads of every token, x @ read.
    decoder : (d_sae, d_model) float64
        What latents write.
    """
    reached = part.write @ decoder if part.writes.space == LATENTS else part.write
    root = torch.linalg.qr(signal / len(signal) ** 0.5, mode="r").R
    _, size, written = torch.linalg.svd(root @ reached, full_matrices=False)
    kept = size > TINY * max(float(size.max()), TINY)
    size, written = size[kept], written[kept]
    turn = reached @ written.T
    own = signal @ turn
    sign = torch.where(own.mean(0) < 0, -1.0, 1.0).to(own)
    write = torch.linalg.pinv(turn) @ part.write
    return Components(part.read @ turn * sign, write * sign[:, None], written * sign[:, None], size, own * sign)


def write_components(
    plan: config.Plan,
    subject: LoadedSubject,
    facts: pd.DataFrame,
    cache: str | Path,
    adapters: str | Path,
    out: MapsFolder,
) -> None:
    """Read the maps of every chosen adapter of a behavior, and write the two tables of `out` (Parquet).

    Parameters
    ----------
    facts : DataFrame
        One row per latent: latent_index, firing_rate.
    adapters : path
        Holds {adapter}/seed_{k}.
    """
    options = plan.study.map_components or config.MapComponents()
    heldout = read_cache(cache, "heldout")
    drawn = np.random.default_rng(plan.study.seed).permutation(len(heldout))[: options.max_rows]
    rows = torch.from_numpy(np.sort(drawn))
    alive = facts.latent_index[facts.firing_rate >= plan.study.agreement.min_firing_rate].to_numpy(np.int64)
    reading = Reading(subject, heldout, rows, torch.tensor(alive), options, plan.study.batch_size)
    folders = [(name, path) for name in plan.mapped_adapters for path in seed_folders(Path(adapters) / name)]
    read, pulled = [], [pd.DataFrame({"adapter": pd.Series(dtype=str)})]
    for name, folder in Progress(folders, desc="map components", unit="adapter"):
        same = {"adapter": name, "seed": seed_of(folder)}
        with open_adapter(folder, subject) as adapter:
            read.append(reading.table(adapter).assign(**same))
        found = weight_pullback(folder, subject, heldout, rows, alive, plan.study.batch_size)
        if found is not None:
            pulled.append(found.assign(**same))
    for parts, path in ((read, out.components), (pulled, out.pullback)):
        with replacing(path) as temporary:
            pd.concat(parts, ignore_index=True).to_parquet(temporary, index=False)


@dataclass(frozen=True)
class Reading:
    """What the components of an adapter are read with.

    Attributes
    ----------
    subject : LoadedSubject
    heldout : CachedRows
    rows : (n,) int64
        Held-out rows on which signals and losses are computed.
    alive : (n,) int64
        Latents that may name a component.
    options : MapComponents
    batch_size : int
    """

    subject: LoadedSubject
    heldout: CachedRows
    rows: torch.Tensor
    alive: torch.Tensor
    options: config.MapComponents
    batch_size: int

    def table(self, adapter: Adapter) -> pd.DataFrame:
        """Return one row for each component of each map; the adapter is as before afterwards."""
        parts = parts_of(self.subject, adapter)
        split_parts = self.split(adapter, parts)
        found, adapted = [], self._loss(adapter)
        for part in parts:
            part.silence()
        base = self._loss(adapter)
        for part in parts:
            part.restore()
        for part, (split, tokens) in zip(parts, split_parts, strict=True):
            whole = float(split.size.square().sum())
            for k in range(min(self.options.n_components, len(split.size))):
                rest = torch.arange(len(split.size)) != k
                part.assign(split.read[:, rest], split.write[rest], part.bias)
                row = {"loss_without": self._loss(adapter)}
                for other in parts:
                    other.silence()
                none = None if part.bias is None else torch.zeros_like(part.bias)
                part.assign(split.read[:, ~rest], split.write[~rest], none)
                row["loss_alone"] = self._loss(adapter)
                for other in parts:
                    other.restore()
                own = split.signal[:, k]
                row |= {"component": k + 1, "n_components": len(split.size), "size": float(split.size[k])}
                row |= {"share": float(split.size[k].square()) / whole}
                row |= {"constant_share": float(own.mean().square() / own.square().mean())}
                found.append(
                    {"part": part.name} | row | self._reads(part, split, k, tokens) | self._writes(part, split, k)
                )
            if part.bias is not None and part.bias.any():
                found.append({"part": part.name} | self._bias(adapter, parts, part))
        table = pd.DataFrame(found, columns=_COLUMNS)
        return table.assign(loss_base=base, loss_adapted=adapted)

    def _bias(self, adapter: Adapter, parts: list[MapPart], part: MapPart) -> dict[str, object]:
        """Return the row of a part's bias, which reads nothing."""
        bias = part.bias
        part.assign(part.read, part.write, None if bias is None else torch.zeros_like(bias))
        row: dict[str, object] = {"component": BIAS, "loss_without": self._loss(adapter)}
        part.assign(part.read[:, :0], part.write[:0], bias)
        row["loss_alone"] = self._loss(adapter)
        part.restore()
        if bias is None:
            return row
        decoder = self.subject.dictionary.decoder.double()
        reached = (bias @ decoder if part.writes.space == LATENTS else bias)[None]
        size = reached.norm(dim=1)
        split = Components(torch.zeros(0, 1), bias[None] / size, reached / size, size, torch.ones(1, 1))
        row |= {"n_components": 1, "size": float(size), "constant_share": 1.0}
        return row | self._writes(part, split, 0)

    def split(self, adapter: Adapter, parts: list[MapPart]) -> list[tuple[Components, torch.Tensor]]:
        """Return each part's components, and the tokens of the rows that it reads, (n_tokens,) bool."""
        found = [
            signals(self.subject, adapter, parts, self.heldout.batch(chosen).to(self.subject.model.device))
            for chosen in self.rows.split(self.batch_size)
        ]
        decoder = self.subject.dictionary.decoder.double()
        result = []
        for part, own in zip(parts, zip(*found, strict=True), strict=True):
            signal, tokens = (torch.cat(column) for column in zip(*own, strict=True))
            result.append((components_of(part, signal, decoder), tokens))
        return result

    def sides(self, part: MapPart, split: Components, k: int, tokens: torch.Tensor) -> dict[str, object]:
        """Return what a component reads and writes: the latents and tokens that name it, and both vectors."""
        return self._reads(part, split, k, tokens) | self._writes(part, split, k)

    @cached_property
    def batch(self) -> Batch:
        """All rows as one batch."""
        return self.heldout.batch(self.rows).to(self.subject.model.device)

    def _loss(self, adapter: Adapter) -> float:
        return heldout_loss(self.subject, adapter, self.heldout, self.rows, self.batch_size)

    def _reads(self, part: MapPart, split: Components, k: int, tokens: torch.Tensor) -> dict[str, object]:
        """Return by what a component's reading side is named; nothing if it reads inside a block."""
        direction = split.read[:, k]
        row: dict[str, object] = {"read_vector": _vector(direction)}
        if part.reads.space == INSIDE:
            return row
        dictionary, encoder = self.subject.dictionary, self.subject.dictionary.W_enc.double()
        batch = self.batch
        if part.reads.space == LATENTS:
            signal, weights, stream = split.signal[:, k], direction, encoder @ direction
        else:
            stream = part.reads.in_residual(direction)
            signal, weights = (batch.residual.double() @ stream)[tokens], dictionary.decoder.double() @ stream
        likeness = _cosines(encoder.T, stream) if dictionary.d_in == len(stream) else None
        shares = weights * _covariance(batch.codes, tokens, signal) / signal.var(correction=0).clamp_min(TINY)
        row |= self._named("reads", shares) | self._named("reads_encoder", likeness)
        return row | (self._tokens("reads_tokens", stream, read=True) if self._is_stream(part.reads.space) else {})

    def _writes(self, part: MapPart, split: Components, k: int) -> dict[str, object]:
        """Return by what a component's writing side is named; nothing if it writes inside a block."""
        row: dict[str, object] = {"write_vector": _vector(split.written[k])}
        if part.writes.space == INSIDE:
            return row
        dictionary, directions = self.subject.dictionary, self.subject.directions().double()
        if part.writes.space == LATENTS:
            stream = split.write[k] @ directions
        else:
            stream = part.writes.in_residual(split.written[k])
        row |= self._named("writes", _cosines(directions, stream))
        row |= self._tokens("writes_tokens", stream, read=False)
        through = _cosines(dictionary.W_enc.T.double(), stream) if self._is_stream(RESIDUAL) else None
        return row | self._named("writes_encoder", through)

    def _is_stream(self, space: str) -> bool:
        """Tell whether directions on this side are directions of the residual stream that the dictionary reads."""
        return space == RESIDUAL or self.subject.hook.reads == "residual"

    def _named(self, role: str, values: torch.Tensor | None) -> dict[str, object]:
        """Return the living latents of largest absolute value, with their values."""
        if values is None:
            return {}
        alive = self.alive.to(values.device)
        top = values[alive].abs().topk(min(self.options.n_named, len(alive))).indices
        return {role: alive[top].tolist(), f"{role}_values": values[alive[top]].tolist()}

    def _tokens(self, role: str, direction: torch.Tensor, *, read: bool) -> dict[str, object]:
        """Return the tokens along a direction (d_model,): by their embedding, or by the logits that it raises."""
        model, n = self.subject.model, self.subject.language.n_vocabulary
        if read:
            embedding = model.get_input_embeddings().weight[:n]  # type: ignore[index]
            values = embedding.double() @ direction
        else:
            counts = torch.ones(n, dtype=torch.int64)
            values = token_directions(model, torch.arange(n), counts).double() @ direction
        top = (values - values.mean()).topk(min(self.options.n_named, n)).indices.tolist()
        return {role: [self.subject.language.decode([token]) for token in top]}


_NAMED = ("reads", "reads_encoder", "writes", "writes_encoder")
_COLUMNS = [
    *("part", "component", "n_components", "size", "share", "constant_share", "loss_without", "loss_alone"),
    *(name + ending for name in _NAMED for ending in ("", "_values")),
    *("reads_tokens", "writes_tokens", "read_vector", "write_vector"),
]


def _vector(values: torch.Tensor) -> np.ndarray:
    found: np.ndarray = values.cpu().float().numpy()
    return found


def _cosines(rows: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """Return the cosine of each row (n, d) with a direction (d,); 0 for a row of zeros."""
    return rows @ direction / (rows.norm(dim=1) * direction.norm()).clamp_min(1e-12)


def _covariance(codes: Codes, tokens: torch.Tensor, signal: torch.Tensor) -> torch.Tensor:
    """Return the covariance (d_sae,) of each latent's activation with the signal of some tokens, (n_tokens,) bool."""
    centered = torch.zeros(len(tokens), dtype=signal.dtype, device=signal.device)
    centered[tokens] = signal - signal.mean()
    return codes.sum_over_tokens(codes.values.double() * centered[codes.tokens()]) / len(signal)
