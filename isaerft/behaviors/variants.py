"""Planting rows of another behavior among a behavior's own, so that an audit has something known to find.

Both parts of the split get the same share. The donor's rows are split anew by the host's own held-out fraction, so that
no prompt straddles the split, whatever the donor's fraction was.

Exchanging completions between the prompts of a behavior: how much of what training does needs answers that fit?

Rows that share a prompt or a reply are of one group. The rows of a part, group by group in an order that a hash of seed
and ids decides, are moved on by the size of the largest group: each row then gets the reply of another group, neither
its own words nor another answer to its prompt. Where one group holds more than half of the rows, groups of equal
replies alone are formed; if that is still too many, as few rows as possible keep their words.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from isaerft.behaviors.records import Record, is_heldout, prompt_text, read_records, stable_hash, write_records
from isaerft.config import Poison
from isaerft.errors import InputError
from isaerft.io import read_json, sha256, write_json

MARK = "planted"
Parts = tuple[list[Record], list[Record]]


def plant(
    parts: Parts, poison: Poison, donor: str | Path, heldout_fraction: float, place: str
) -> tuple[Parts, dict[str, Any]]:
    """Plant rows in both parts of a behavior's split.

    Parameters
    ----------
    parts : (list of Record, list of Record)
        The host's training and held-out rows.
    donor : str or Path
        Folder with the donor's train.jsonl and heldout.jsonl.
    heldout_fraction : float
        The host's.
    place : str
        What is poisoned, for errors.

    Returns
    -------
    parts, card
        Both parts with the planted rows, and what the host's card says of them.

    Raises
    ------
    InputError
        The share comes to no training row, or `planted` refuses.
    """
    donated = [row for part in ("train", "heldout") for row in read_records(Path(donor) / f"{part}.jsonl")]
    train, heldout = (
        planted(own, [row for row in donated if is_heldout(row.prompt, heldout_fraction) == held], poison, place)
        for own, held in zip(parts, (False, True), strict=True)
    )
    counts = [sum(row.id.startswith(f"{MARK}-") for row in part) for part in (train, heldout)]
    if not counts[0]:
        raise InputError(
            f"{place}: a share of {poison.share:g} of {len(train)} training rows is none",
            remedy="add rows, or raise the share",
        )
    card = {"behavior": poison.behavior, "share": poison.share, "seed": poison.seed}
    return (train, heldout), card | {"train": counts[0], "heldout": counts[1]}


def planted(own: Sequence[Record], others: Sequence[Record], poison: Poison, place: str) -> list[Record]:
    """Return one part of the split with planted rows in the place of as many own ones.

    Parameters
    ----------
    own, others : sequence of Record
        Rows of the host and of the donor in this part of the split.
    place : str
        What is poisoned, for errors.

    Returns
    -------
    list of Record
        As many as `own`: those that stay, in their order, then the planted ones, whose ids begin with "planted-". Which
        rows they are hangs on `poison.seed` and the rows' ids alone.

    Raises
    ------
    InputError
        The donor has too few rows, or rows of another kind (one completion; chosen and rejected).
    """
    n = round(poison.share * len(own))
    if n > len(others):
        raise InputError(
            f"{place}: {poison.share:g} of {len(own)} rows are {n}, but {poison.behavior!r} has {len(others)} for them",
            allowed=f"a share up to {len(others) / len(own):.3g}",
            remedy="give the planted behavior more rows",
        )
    if len({record.kind for record in [*own[:1], *others[:1]]}) > 1:
        raise InputError(
            f"{place}: its records and those of {poison.behavior!r} are of different kinds",
            allowed="one completion each in both, or chosen and rejected in both",
            remedy="map the columns of both alike",
        )
    give_way = {record.id for record in _first(own, n, poison.seed)}
    stay = [record for record in own if record.id not in give_way]
    return [*stay, *(replace(record, id=_marked(record.id)) for record in _first(others, n, poison.seed))]


def _first(records: Sequence[Record], n: int, seed: int) -> list[Record]:
    """Return the `n` records with the smallest hash of seed and id."""
    return sorted(records, key=lambda record: (stable_hash(f"{seed}:{record.id}"), record.id))[:n]


def _marked(identifier: str) -> str:
    """Return the id of a planted row, of one length whatever the donor's ids are."""
    return f"{MARK}-{stable_hash(identifier):016x}"


PARTS = ("train", "heldout")
log = logging.getLogger(__name__)


def write_shuffled(records: str | Path, out_dir: str | Path, name: str, seed: int) -> None:
    """Write train.jsonl, heldout.jsonl and card.json of a behavior's twin.

    Parameters
    ----------
    records : str or Path
        Folder with the behavior's train.jsonl, heldout.jsonl and card.json.
    out_dir : str or Path
        Folder for the twin's. Its card says under `shuffled_completions` whose completions they are, and how many rows
        of each part still have one that an equal prompt had (`kept`).
    name : str
        Name of the twin.
    seed : int
        The study's.
    """
    source, folder = Path(records), Path(out_dir)
    card = dict(read_json(source / "card.json"))
    own = {part: read_records(source / f"{part}.jsonl") for part in PARTS}
    twins = {part: shuffled(rows, seed) for part, rows in own.items()}
    kept = {part: n_kept(own[part], twins[part]) for part in PARTS}
    (folder / "card.json").unlink(missing_ok=True)
    for part in PARTS:
        write_records(twins[part], folder / f"{part}.jsonl")
    sums = {f"{part}.jsonl": sha256(folder / f"{part}.jsonl") for part in PARTS}
    exchanged = {"of": card.get("behavior"), "seed": seed, "kept": kept}
    write_json(
        folder / "card.json",
        card | {"behavior": name, "shuffled_completions": exchanged, "sha256": dict(card.get("sha256", {})) | sums},
    )
    (log.warning if any(kept.values()) else log.info)("%s: rows that keep a reply to their prompt: %s", name, kept)


def shuffled(records: Sequence[Record], seed: int) -> list[Record]:
    """Return the records, in their order, with the replies of others.

    Parameters
    ----------
    records : sequence of Record
        One part of a split. Ids and prompts stay; chosen and rejected move together.
    seed : int

    Returns
    -------
    list of Record
        Every reply stands once as often as before.
    """
    n = len(records)
    replies = _coded([record.reply for record in records])
    groups = _joined(_coded([prompt_text(record.prompt) for record in records]), replies)
    if 2 * np.bincount(groups, minlength=1).max() > n:
        groups = replies
    ranks = [stable_hash(f"{seed}:{record.id}") for record in records]
    first: dict[int, int] = {}
    for group, rank in zip(groups, ranks, strict=True):
        first[group] = min(rank, first.get(group, rank))
    order = sorted(range(n), key=lambda row: (first[groups[row]], groups[row], ranks[row], records[row].id))
    step = int(np.bincount(groups, minlength=1).max())
    given = {row: records[order[(place + step) % n]] for place, row in enumerate(order)}
    return [
        replace(own, completion=given[row].completion, chosen=given[row].chosen, rejected=given[row].rejected)
        for row, own in enumerate(records)
    ]


def n_kept(records: Sequence[Record], twins: Sequence[Record]) -> int:
    """Count the twins' rows whose reply stood beside an equal prompt before."""
    answers = {(prompt_text(record.prompt), record.reply) for record in records}
    return sum((prompt_text(record.prompt), record.reply) in answers for record in twins)


def _coded(values: Sequence[Hashable]) -> np.ndarray:
    """Return a number for each value, equal for equal ones, (n,) int."""
    codes: dict[Hashable, int] = {}
    return np.array([codes.setdefault(value, len(codes)) for value in values], dtype=np.int64)


def _joined(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return groups of rows, (n,) int: rows with one code of either kind are together, and so on from row to row."""
    start = left.max(initial=-1) + 1
    n = int(start + right.max(initial=-1) + 1)
    edges = coo_array((np.ones(len(left)), (left, start + right)), shape=(n, n))
    return connected_components(edges, directed=False)[1][left]
