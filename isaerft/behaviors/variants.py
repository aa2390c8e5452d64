"""Variants of a behavior's records: rows planted from another behavior, or completions shuffled between prompts.

*Poisoned* records plant something known for an audit to find. Both parts of the split get the same share of planted
rows. The donor's rows are split by the host's own held-out fraction, so that no prompt straddles the split.

*Shuffled* completions show how much of the effect of training needs completions that fit their prompts. Rows that share
a prompt or a reply form a group. The groups of a part are put in an order that a hash of seed and ids decides, and the
replies move on by the size of the largest group: each row gets a reply of another group, neither its own text nor
another answer to its prompt. If one group has more than half of the rows, only equal replies form groups; if one of
these is still too large, as few rows as possible keep their text.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from isaerft.behaviors.records import Record, is_heldout, prompt_text, read_records, stable_hash, write_records
from isaerft.config import Poison
from isaerft.errors import InputError
from isaerft.io import read_json, write_json
from isaerft.ledger import sha256

PARTS = ("train", "heldout")
PLANTED = "planted"
Parts = tuple[list[Record], list[Record]]
log = logging.getLogger(__name__)


def poison_split(
    parts: Parts, poison: Poison, donor: str | Path, heldout_fraction: float, host: str
) -> tuple[Parts, dict[str, object]]:
    """Plant rows of another behavior in both parts of a split.

    Parameters
    ----------
    parts : (list of Record, list of Record)
        The host's training and held-out rows.
    poison : Poison
        The share of planted rows, and the seed that decides which they are.
    donor : str or Path
        Folder with the donor's train.jsonl and heldout.jsonl.
    heldout_fraction : float
        Held-out fraction of the host.
    host : str
        The poisoned behavior, for errors.

    Returns
    -------
    parts, card
        Both parts with the planted rows, and the entry for the host's card.

    Raises
    ------
    InputError
        The share amounts to no training row, or the donor has too few rows or rows of another kind.
    """
    donated = [row for part in ("train", "heldout") for row in read_records(Path(donor) / f"{part}.jsonl")]
    train, heldout = (
        _plant(own, [row for row in donated if is_heldout(row.prompt, heldout_fraction) == held], poison, host)
        for own, held in zip(parts, (False, True), strict=True)
    )
    counts = [sum(row.id.startswith(f"{PLANTED}-") for row in part) for part in (train, heldout)]
    if not counts[0]:
        raise InputError(
            f"{host}: a share of {poison.share:g} of {len(train)} training rows is no row",
            remedy="add rows, or raise the share",
        )
    card = {"behavior": poison.behavior, "share": poison.share, "seed": poison.seed}
    return (train, heldout), card | {"train": counts[0], "heldout": counts[1]}


def _plant(own: Sequence[Record], others: Sequence[Record], poison: Poison, host: str) -> list[Record]:
    """Return one part of the split with some of its `own` rows replaced by as many of the donor's, `others`.

    The own rows come first, in order; the ids of planted rows begin with "planted-". Only `poison.seed` and the ids
    decide which rows are replaced and planted.
    """
    n = round(poison.share * len(own))
    if n > len(others):
        raise InputError(
            f"{host}: {poison.share:g} of {len(own)} rows are {n}, but {poison.behavior!r} has only {len(others)}",
            allowed=f"a share of at most {len(others) / len(own):.3g}",
            remedy="add rows to the planted behavior",
        )
    if len({record.kind for record in [*own[:1], *others[:1]]}) > 1:
        raise InputError(
            f"{host}: its records and those of {poison.behavior!r} are of different kinds",
            allowed="one completion each in both, or chosen and rejected in both",
            remedy="map the same fields in the `columns` of both",
        )
    replaced = {record.id for record in _draw(own, n, poison.seed)}
    kept = [record for record in own if record.id not in replaced]
    return [*kept, *(replace(record, id=_planted_id(record.id)) for record in _draw(others, n, poison.seed))]


def _draw(records: Sequence[Record], n: int, seed: int) -> list[Record]:
    """Return the `n` records with the smallest hash of seed and id."""
    return sorted(records, key=lambda record: (stable_hash(f"{seed}:{record.id}"), record.id))[:n]


def _planted_id(identifier: str) -> str:
    """Return the id of a planted row; its length does not depend on the donor's id."""
    return f"{PLANTED}-{stable_hash(identifier):016x}"


def write_shuffled(records: str | Path, out_dir: str | Path, name: str, seed: int) -> None:
    """Write a behavior's twin with shuffled completions: train.jsonl, heldout.jsonl and card.json.

    Parameters
    ----------
    records : str or Path
        Folder with the behavior's train.jsonl, heldout.jsonl and card.json.
    out_dir : str or Path
        Folder for the twin. `shuffled_completions` in its card names the behavior and counts the rows of each part that
        keep a reply to their prompt (`kept`).
    name : str
        Name of the twin.
    seed : int
        Seed of the study.
    """
    source, folder = Path(records), Path(out_dir)
    card = read_json(source / "card.json")
    own = {part: read_records(source / f"{part}.jsonl") for part in PARTS}
    twins = {part: shuffle_completions(rows, seed) for part, rows in own.items()}
    kept = {part: n_kept(own[part], twins[part]) for part in PARTS}
    (folder / "card.json").unlink(missing_ok=True)
    for part in PARTS:
        write_records(twins[part], folder / f"{part}.jsonl")
    sums = {f"{part}.jsonl": sha256(folder / f"{part}.jsonl") for part in PARTS}
    shuffled = {"of": card.get("behavior"), "seed": seed, "kept": kept}
    write_json(
        folder / "card.json",
        card | {"behavior": name, "shuffled_completions": shuffled, "sha256": dict(card.get("sha256", {})) | sums},
    )
    (log.warning if any(kept.values()) else log.info)("%s: rows that keep a reply to their prompt: %s", name, kept)


def shuffle_completions(records: Sequence[Record], seed: int) -> list[Record]:
    """Return the records, in order, with their replies shuffled.

    Parameters
    ----------
    records : sequence of Record
        One part of a split. Ids and prompts stay; chosen and rejected replies move together.
    seed : int
        Decides the order with the ids.

    Returns
    -------
    list of Record
        Each reply occurs as often as before.
    """
    n = len(records)
    replies = _coded([record.reply for record in records])
    groups = _joined(_coded([prompt_text(record.prompt) for record in records]), replies)
    if 2 * np.bincount(groups, minlength=1).max() > n:
        groups = replies
    ranks = [stable_hash(f"{seed}:{record.id}") for record in records]
    first: dict[int, int] = {}
    for group, rank in zip(groups.tolist(), ranks, strict=True):
        first[group] = min(rank, first.get(group, rank))
    order = sorted(range(n), key=lambda row: (first[int(groups[row])], groups[row], ranks[row], records[row].id))
    step = int(np.bincount(groups, minlength=1).max())
    donor = {row: records[order[(position + step) % n]] for position, row in enumerate(order)}
    return [replace(donor[row], id=own.id, prompt=own.prompt) for row, own in enumerate(records)]


def n_kept(records: Sequence[Record], twins: Sequence[Record]) -> int:
    """Return the number of twins whose reply already answered an equal prompt in `records`."""
    answers = {(prompt_text(record.prompt), record.reply) for record in records}
    return sum((prompt_text(record.prompt), record.reply) in answers for record in twins)


def _coded(values: Sequence[Hashable]) -> np.ndarray:
    """Return an integer for each value, the same for equal values, (n,) int64."""
    codes: dict[Hashable, int] = {}
    return np.array([codes.setdefault(value, len(codes)) for value in values], dtype=np.int64)


def _joined(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return connected groups of rows, (n,) int: rows that share a code of either kind are in the same group."""
    start = left.max(initial=-1) + 1
    n = int(start + right.max(initial=-1) + 1)
    edges = coo_array((np.ones(len(left)), (left, start + right)), shape=(n, n))
    return connected_components(edges, directed=False)[1][left]
